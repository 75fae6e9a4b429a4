"""From one stream of token ids to batches: the official cut, the complete cut, and random sequence lengths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from suite.errors import DataError
from suite.spec.recipe import RandomLength

Ids = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]


def cut(stream: Ids, batch_size: int) -> Ids:
    """The official cut: ``batch_size`` contiguous pieces of equal length, the tail dropped.

    Returns int32 [batch_size, rows], rows = tokens // batch_size; a view of the stream.

    Raises:
        DataError: fewer tokens than pieces.
    """
    rows = len(stream) // batch_size
    if rows == 0:
        raise DataError(f"{len(stream)} tokens cannot fill a batch of {batch_size}; lower batch_size")
    return stream[: rows * batch_size].reshape(batch_size, rows)


def batchify(stream: Ids, batch_size: int) -> Ids:
    """:func:`cut` as the official code lays it out: a fresh, writable int32 [rows, batch_size], C-contiguous.

    Raises:
        DataError: fewer tokens than columns.
    """
    return np.array(cut(stream, batch_size).T, dtype=np.int32, order="C")


def complete_columns(stream: Ids, batch_size: int) -> tuple[Ids, Ids, Mask]:
    """Cut the N - 1 (input, target) pairs of a stream into contiguous columns, every pair exactly once.

    Returns:
        inputs, targets: int32 [rows, batch_size], rows = ceil((N - 1) / batch_size), read down one column after the
            other; id 0 where there is no pair.
        mask: bool [rows, batch_size], true where there is a pair: everywhere but at the end of the last columns.

    Raises:
        DataError: fewer than two tokens.
    """
    pairs = len(stream) - 1
    if pairs < 1:
        raise DataError(f"a stream of {len(stream)} tokens has nothing to predict; at least 2 are needed")
    rows = -(-pairs // batch_size)
    padding = rows * batch_size - pairs

    def columns(values: Ids) -> Ids:
        return np.ascontiguousarray(np.pad(values, (0, padding)).reshape(batch_size, rows).T, dtype=np.int32)

    mask = pairs > np.arange(rows * batch_size).reshape(batch_size, rows).T
    return columns(stream[:-1]), columns(stream[1:]), np.ascontiguousarray(mask)


class LengthSampler:
    """Sequence lengths by the rule of :class:`suite.spec.recipe.RandomLength`; always ``bptt`` when there is none.

    Draws come from a generator of its own, so nothing else that is random shifts them, and :attr:`state` puts a
    resumed run back at the very next length.
    """

    def __init__(self, bptt: int, random_length: RandomLength | None = None, *, seed: int = 0) -> None:
        self.bptt = bptt
        self.random_length = random_length
        self._rng = np.random.Generator(np.random.PCG64(seed))

    def sample(self) -> int:
        """The next sequence length, at least 1."""
        rule = self.random_length
        if rule is None:
            return self.bptt
        base = self.bptt if self._rng.random() >= rule.half_probability else self.bptt / 2
        length = max(rule.minimum, int(self._rng.normal(base, rule.std)))
        return length if rule.max_excess is None else min(length, self.bptt + rule.max_excess)

    def learning_rate_scale(self, length: int) -> float:
        """What the learning rate of a step of sampled ``length`` is multiplied with: length / bptt."""
        return length / self.bptt

    @property
    def state(self) -> Mapping[str, Any]:
        """The generator's state as JSON-able data; assign it to restore."""
        return self._rng.bit_generator.state

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        self._rng.bit_generator.state = dict(state)


class Segment(NamedTuple):
    """One training step's rows: inputs ``start : start + length``, targets one row later."""

    start: int
    length: int
    learning_rate_scale: float


def segments(rows: int, sampler: LengthSampler, start: int = 0) -> Iterator[Segment]:
    """The official epoch: lengths are drawn until fewer than two targets are left over; ``start`` resumes inside one.

    The last segment is cut to what is left, yet its learning rate is scaled by the length drawn, as in the official
    code.

    Raises:
        DataError: fewer than three rows, which hold no segment.
    """
    if rows < 3:
        raise DataError(f"{rows} rows a column hold no training step; lower batch_size or use more tokens")
    while start < rows - 2:
        drawn = sampler.sample()
        length = min(drawn, rows - 1 - start)
        yield Segment(start, length, sampler.learning_rate_scale(drawn))
        start += length
