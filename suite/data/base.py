"""What a dataset hands to training: streams of token ids, or distributions over words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
_COUNTED_AT_ONCE = 2**24


@dataclass(frozen=True)
class Floor:
    """The best any model can do on one split of a synthetic language, in nats a token.

    ``nll`` is the mean negative log-likelihood of the true source on these very tokens; ``entropy`` the mean entropy
    of its exact conditional distributions along them, which no estimate beats in expectation.
    """

    nll: float
    entropy: float


@dataclass(frozen=True)
class TextData:
    """Token ids by split, one stream each; ``<eos>`` ends every line.

    ``streams[split]`` is int32 of shape [tokens]; ``digests`` holds the sha256 of what was read, by split or file.
    ``true_log_probs``, where the source is known, gives float64 [tokens - 1, vocabulary]: row i is the exact
    distribution of token i + 1 given tokens 0..i.
    """

    streams: Mapping[Split, npt.NDArray[np.int32]]
    vocabulary_size: int
    digests: Mapping[str, str]
    unit: Literal["word", "character", "symbol"] = "word"
    floors: Mapping[Split, Floor] = field(default_factory=dict)
    true_log_probs: Callable[[Split], npt.NDArray[np.float64]] | None = None
    facts: Mapping[str, float] = field(default_factory=dict)

    def frequencies(self) -> npt.NDArray[np.float64]:
        """Share of each word [vocabulary] among the training words, every word counted once more than it stands."""
        counts = np.ones(self.vocabulary_size)
        stream = self.streams["train"]
        # Piece by piece: counting makes a wider copy, and a stream may be mapped from a file larger than the memory.
        for start in range(0, len(stream), _COUNTED_AT_ONCE):
            counts += np.bincount(stream[start : start + _COUNTED_AT_ONCE], minlength=self.vocabulary_size)
        shares: npt.NDArray[np.float64] = counts / counts.sum()
        return shares


@dataclass(frozen=True)
class DistributionData:
    """N categorical distributions over M words: ``probabilities`` is float64 [N, M], rows sum to 1."""

    probabilities: npt.NDArray[np.float64]
    digests: Mapping[str, str]
    facts: Mapping[str, float] = field(default_factory=dict)

    def frequencies(self) -> npt.NDArray[np.float64]:
        """The mean of the distributions [M]."""
        mean: npt.NDArray[np.float64] = self.probabilities.mean(0)
        return mean


@dataclass(frozen=True)
class DataAccess:
    """Where corpora may be looked for, and whether the network may be used."""

    data_dir: Path | None = None
    offline: bool = False
    say: Callable[[str], None] = lambda _message: None


class Dataset(Protocol):
    """A dataset component: cheap to construct, knows its vocabulary before anything is read."""

    @property
    def vocabulary_size(self) -> int:
        """Number of types, ``<eos>`` and ``<unk>`` included (M for a distribution experiment)."""
        ...

    @property
    def contexts(self) -> int | None:
        """Number of contexts of a distribution experiment; None for text."""
        ...

    def load(self, access: DataAccess) -> TextData | DistributionData:
        """Read, verify and return the data.

        Raises:
            DataError: the corpus is missing, damaged or another variant; the message says which and what to do.
        """
        ...


def known_facts(data: TextData | DistributionData) -> dict[str, float]:
    """What is known of the data itself: floors as perplexities, and the dataset's own facts."""
    facts = {name: float(value) for name, value in data.facts.items()}
    if isinstance(data, TextData):
        for split, floor in data.floors.items():
            facts[f"{split}_floor_ppl"] = math.exp(floor.nll)
            facts[f"{split}_floor_entropy_ppl"] = math.exp(floor.entropy)
    return facts
