"""Data whose truth is known: a hidden Markov language, and categorical distributions to be matched."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from suite.data.base import SPLITS, DataAccess, DistributionData, Floor, Split, TextData
from suite.data.markov import dirichlet, sparse_source
from suite.errors import InputError
from suite.spec.types import NonNegativeInt, PositiveFloat, PositiveInt

T = TypeVar("T", bound=np.generic)

# The exact test log-probabilities are held at once to find their rank: 2**27 doubles are 1 GiB.
_MOST_EXACT_ENTRIES = 1 << 27


class HiddenMarkov:
    """A hidden Markov language whose true distributions, entropy and log-probability rank are known.

    Each of ``states`` hidden states emits a few of ``vocabulary`` symbols (Dirichlet rows of
    ``emission_concentration``, mixed with the uniform distribution at weight ``noise``) and moves to one of
    ``successors`` states. A token nearly reveals its state, so a small recurrent network can follow the language; the
    next distribution is a mixture of the successors' emissions, so the matrix of true log-probabilities has full rank
    and a small softmax cannot hold it.

    The source and the three texts are drawn from ``seed`` alone, from independent streams: whatever is trained, and
    with whatever seed, reads the same corpus. ``entropy_rate_nats`` is an estimate (no closed form exists): the mean
    exact conditional entropy over all three texts. ``log_prob_rank`` is numerical, at numpy's default tolerance.

    Raises:
        InputError: options that contradict each other.
    """

    contexts: int | None = None

    def __init__(
        self,
        *,
        vocabulary: PositiveInt = 128,
        states: PositiveInt = 64,
        successors: PositiveInt = 2,
        emission_concentration: PositiveFloat = 0.02,
        noise: PositiveFloat = 0.005,
        train_tokens: PositiveInt = 200_000,
        valid_tokens: PositiveInt = 10_000,
        test_tokens: PositiveInt = 10_000,
        seed: NonNegativeInt = 0,
    ) -> None:
        problems = []
        if successors > states:
            problems.append(f"successors: {successors} of only {states} states; give at most {states}")
        if noise > 1:
            problems.append(f"noise: {noise} is not a probability; give a number above 0 and at most 1")
        tokens: dict[Split, int] = {"train": train_tokens, "valid": valid_tokens, "test": test_tokens}
        problems += [
            f"{split}_tokens: {count} leaves nothing to predict; give at least 2"
            for split, count in tokens.items()
            if count < 2
        ]
        if test_tokens * vocabulary > _MOST_EXACT_ENTRIES:
            most = _MOST_EXACT_ENTRIES // vocabulary
            problems.append(
                f"test_tokens: the exact log-probabilities of {test_tokens} tokens over {vocabulary} symbols take "
                f"more than 1 GiB; give at most {most} test tokens"
            )
        if problems:
            raise InputError(*problems)
        self.vocabulary_size = vocabulary
        self._options = (vocabulary, states, successors, emission_concentration, noise, tuple(tokens.values()), seed)

    def load(self, access: DataAccess) -> TextData:
        """The three texts with floors, exact log-probabilities and facts; kept for the next cell, arrays read-only."""
        return _language(*self._options)


@lru_cache(maxsize=4)
def _language(
    vocabulary: int,
    states: int,
    successors: int,
    emission_concentration: float,
    noise: float,
    tokens: tuple[int, ...],
    seed: int,
) -> TextData:
    """Draw the language and measure it; kept, because every cell of a task reads the same one."""
    for_source, *for_splits = (np.random.Generator(np.random.PCG64(s)) for s in np.random.SeedSequence(seed).spawn(4))
    source = sparse_source(
        for_source,
        states=states,
        vocabulary=vocabulary,
        successors=successors,
        emission_concentration=emission_concentration,
        noise=noise,
    )
    streams = {split: _frozen(source.sample(rng, n)) for split, rng, n in zip(SPLITS, for_splits, tokens, strict=True)}
    floors = {split: Floor(*source.floor(text)) for split, text in streams.items()}
    predicted = np.array([count - 1 for count in tokens])
    entropies = np.array([floors[split].entropy for split in SPLITS])

    def true_log_probs(split: Split) -> npt.NDArray[np.float64]:
        return source.log_conditionals(streams[split])

    return TextData(
        streams=streams,
        vocabulary_size=vocabulary,
        digests={split: _digest(text.astype("<i4")) for split, text in streams.items()},
        unit="symbol",
        floors=floors,
        true_log_probs=true_log_probs,
        facts={
            "log_prob_rank": float(np.linalg.matrix_rank(true_log_probs("test"))),
            "entropy_rate_nats": float(predicted @ entropies / predicted.sum()),
        },
    )


class Categorical:
    """The categorical-distribution experiment of Ganea et al. (2019): N contexts, M words, rows ~ Dirichlet(beta).

    Every context has its own distribution over the words; a model with one free vector a context and shared word
    embeddings is fitted to all of them, and scored by how close it comes and how many modes it finds.
    """

    def __init__(
        self,
        *,
        contexts: PositiveInt = 1000,
        words: PositiveInt = 1000,
        concentration: PositiveFloat = 0.01,
        seed: NonNegativeInt = 0,
    ) -> None:
        self.contexts = contexts
        self.vocabulary_size = words
        self._options = (contexts, words, concentration, seed)

    def load(self, access: DataAccess) -> DistributionData:
        """The N x M distributions and their mean entropy; kept for the next cell, read-only."""
        return _distributions(*self._options)


@lru_cache(maxsize=4)
def _distributions(contexts: int, words: int, concentration: float, seed: int) -> DistributionData:
    rows = _frozen(dirichlet(np.random.Generator(np.random.PCG64(seed)), concentration, (contexts, words)))
    logs = np.log(rows, out=np.zeros_like(rows), where=rows > 0)
    # Logarithms differ in the last bit between processors; rounding keeps one digest for one experiment.
    digest = _digest(np.round(rows, 6).astype("<f8"))
    return DistributionData(
        probabilities=rows,
        digests={"probabilities": digest},
        facts={"entropy_nats": float(-(rows * logs).sum(axis=1).mean())},
    )


def _frozen(array: npt.NDArray[T]) -> npt.NDArray[T]:
    array.flags.writeable = False
    return array


def _digest(array: npt.NDArray[np.generic]) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()
