"""Hidden Markov sources: sampling them, and their exact conditional distributions by the forward filter."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# Filtering rescales this rarely: a factor loses at most 1e-10 or so a step, far from the smallest double.
_RESCALE_EVERY = 16
_CHUNK_ELEMENTS = 1 << 21


def dirichlet(rng: np.random.Generator, concentration: float, shape: tuple[int, int]) -> Array:
    """Rows of a symmetric Dirichlet distribution: float64 ``shape``, each row summing to 1.

    Gamma variates are drawn in log space, log G(a) = log G(a + 1) + log(U) / a, because at concentrations near 0.01
    most of them are smaller than the smallest double and whole rows would turn into 0 / 0.
    """
    log_gamma = np.log(rng.standard_gamma(concentration + 1.0, shape)) + np.log1p(-rng.random(shape)) / concentration
    rows: Array = np.exp(log_gamma - log_gamma.max(axis=1, keepdims=True))
    rows /= rows.sum(axis=1, keepdims=True)
    return rows


@dataclass(frozen=True)
class MarkovSource:
    """A hidden Markov model with S states over V symbols; float64 throughout.

    ``start`` [S] is the distribution of the first state, ``transition`` [S, S] and ``emission`` [S, V] have rows that
    sum to 1: p(state' | state) and p(symbol | state).
    """

    start: Array
    transition: Array
    emission: Array

    def sample(self, rng: np.random.Generator, tokens: int) -> npt.NDArray[np.int32]:
        """A text of ``tokens`` symbols, int32 [tokens]."""
        last = len(self.start) - 1
        cumulative = np.cumsum(self.transition, axis=1).tolist()
        path = np.empty(tokens, np.intp)
        row = np.cumsum(self.start).tolist()
        # Two draws a symbol, side by side: a longer text of the same stream begins with the shorter one.
        moves, draws = rng.random((tokens, 2)).T
        for step, draw in enumerate(moves.tolist()):
            # A cumulative sum may end a rounding error below 1.
            state = min(bisect_right(row, draw), last)
            path[step] = state
            row = cumulative[state]
        text = np.empty(tokens, np.int32)
        for state, weights in enumerate(self.emission):
            here = path == state
            text[here] = np.searchsorted(np.cumsum(weights), draws[here], side="right")
        np.minimum(text, self.emission.shape[1] - 1, out=text)
        return text

    def state_predictions(self, text: npt.NDArray[np.int32]) -> Array:
        """p(state of symbol t + 1 | symbols 0..t) for t = 0..T-2: float64 [T - 1, S], rows sum to 1."""
        steps = len(text) - 1
        by_symbol = np.ascontiguousarray(self.emission.T)
        predictions = np.empty((max(steps, 0), len(self.start)))
        belief = self.start.copy()
        for step, symbol in enumerate(text[:-1].tolist()):
            belief *= by_symbol[symbol]
            if step % _RESCALE_EVERY == 0:
                belief /= belief.sum()
            belief = belief @ self.transition
            predictions[step] = belief
        predictions /= predictions.sum(axis=1, keepdims=True)
        return predictions

    def conditionals(self, text: npt.NDArray[np.int32]) -> Iterator[tuple[slice, Array]]:
        """The exact p(symbol t + 1 | symbols 0..t), in chunks of rows t: (rows, float64 [chunk, V])."""
        states = self.state_predictions(text)
        size = max(1, _CHUNK_ELEMENTS // self.emission.shape[1])
        for begin in range(0, len(states), size):
            rows = slice(begin, min(begin + size, len(states)))
            yield rows, states[rows] @ self.emission

    def log_conditionals(self, text: npt.NDArray[np.int32]) -> Array:
        """log p(symbol t + 1 | symbols 0..t) for every t: float64 [T - 1, V]."""
        out = np.empty((len(text) - 1, self.emission.shape[1]))
        for rows, probabilities in self.conditionals(text):
            np.log(probabilities, out=out[rows])
        return out

    def floor(self, text: npt.NDArray[np.int32]) -> tuple[float, float]:
        """(mean negative log-likelihood of symbols 1..T-1, mean exact conditional entropy), nats a symbol."""
        nll = entropy = 0.0
        for rows, probabilities in self.conditionals(text):
            logs = np.log(probabilities)
            targets = text[rows.start + 1 : rows.stop + 1]
            nll -= float(logs[np.arange(len(targets)), targets].sum())
            entropy -= float(np.einsum("tv,tv->", probabilities, logs))
        return nll / (len(text) - 1), entropy / (len(text) - 1)


def sparse_source(
    rng: np.random.Generator,
    *,
    states: int,
    vocabulary: int,
    successors: int,
    emission_concentration: float,
    noise: float,
) -> MarkovSource:
    """Draw a source whose states each have ``successors`` possible next states and emit a few symbols.

    One successor of every state follows a random cycle through all states, so the chain is irreducible whatever the
    other draws. Emissions are Dirichlet rows mixed with the uniform distribution at weight ``noise``, which bounds
    every probability away from 0. The first state is drawn uniformly.
    """
    transition = np.zeros((states, states))
    cycle = rng.permutation(states)
    following = np.empty(states, np.intp)
    following[cycle] = np.roll(cycle, -1)
    weights = dirichlet(rng, 1.0, (states, successors))
    for state in range(states):
        others = rng.permutation(np.delete(np.arange(states), following[state]))[: successors - 1]
        transition[state, [following[state], *others]] = weights[state]
    emission = (1.0 - noise) * dirichlet(rng, emission_concentration, (states, vocabulary)) + noise / vocabulary
    return MarkovSource(np.full(states, 1.0 / states), transition, emission)
