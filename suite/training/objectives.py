"""What one optimiser step minimises: next-word loss along a text, or cross-entropy against known distributions."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from typing_extensions import override

from suite.data.base import DistributionData, Split, TextData
from suite.data.batching import LengthSampler, Segment, cut, segments
from suite.evaluation.modes import distribution_scores
from suite.evaluation.perplexity import official_perplexity, perplexity
from suite.models.encoders.base import State
from suite.models.language_model import LanguageModel
from suite.spec.recipe import Recipe
from suite.training.seeds import derive_seed


class Work(NamedTuple):
    """One optimiser step's share of an epoch."""

    start: int  # first row (text) or position in this epoch's order (distributions)
    length: int
    lr_scale: float
    items: int  # target words, or contexts


class Objective(ABC):
    """Yields the steps of an epoch, their losses, and the evaluation of the model; its state can be checkpointed.

    ``unit`` names what is counted (tokens or contexts); ``primary`` is the metric training selects the best weights by.
    """

    unit: str
    primary: str
    items_per_epoch: int

    @abstractmethod
    def begin_epoch(self) -> None:
        """Go back to the beginning of the data."""

    @abstractmethod
    def next(self) -> Work | None:
        """The next step, or None at the end of the epoch."""

    def prepare(self, model: LanguageModel) -> None:  # noqa: B027 - nothing, unless an objective carries a state
        """Make what steps need in the shapes of ``model``, which is in training mode; harmless when repeated."""

    @abstractmethod
    def stage(self, work: Work) -> None:
        """Tell the device which part of the data the next :meth:`losses` is about; waits for nothing."""

    @abstractmethod
    def losses(self, model: LanguageModel, length: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Micro-batches of the staged step, each (loss to differentiate, sum of nats for the report).

        The losses of a step add up to the loss of the whole batch. Whatever differs between steps of one ``length`` is
        read from the device and left there, so that a step captured in a CUDA graph can be replayed.
        """

    @abstractmethod
    def carried(self) -> list[Tensor]:
        """What :meth:`losses` changes beside the gradients: the state carried from segment to segment."""

    @abstractmethod
    def evaluate(self, model: LanguageModel, split: Split, *, final: bool = False) -> dict[str, float]:
        """Score the model; ``final`` adds the variants the recipe asks for."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Position and random state, as tensors and plain values."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""


class NextWord(Objective):
    """Truncated back-propagation through time over one stream of words (Merity et al. 2018).

    loss = mean nats + alpha mean(dropped output^2) + beta mean((raw_t - raw_{t-1})^2)
    """

    unit = "tokens"
    primary = "ppl"

    def __init__(self, data: TextData, recipe: Recipe, seed: int, device: torch.device) -> None:
        self._data = data
        self._recipe = recipe
        self._device = device
        self._columns = _columns(data.streams["train"], recipe.batch_size, device)
        self.items_per_epoch = (self._columns.shape[1] - 1) * recipe.batch_size
        self._lengths = LengthSampler(recipe.bptt, recipe.random_length, seed=derive_seed(seed, "lengths"))
        self._row = 0
        self._segments: Iterator[Segment] | None = None
        self._start = torch.zeros((), dtype=torch.int64, device=device)
        self._states: list[State] = []  # one a micro-batch, always the same tensors
        self._restored: list[list[Tensor]] | None = None

    @override
    def begin_epoch(self) -> None:
        self._row, self._segments, self._restored = 0, None, None
        for state in self._states:
            for part in state:
                part.zero_()

    @override
    def next(self) -> Work | None:
        if self._segments is None:
            self._segments = segments(self._columns.shape[1], self._lengths, self._row)
        segment = next(self._segments, None)
        if segment is None:
            return None
        self._row = segment.start + segment.length
        return Work(*segment, segment.length * self._recipe.batch_size)

    @override
    def stage(self, work: Work) -> None:
        self._start.fill_(work.start)

    @override
    def losses(self, model: LanguageModel, length: int) -> Iterator[tuple[Tensor, Tensor]]:
        batch = self._recipe.batch_size
        step = self._recipe.micro_batch or batch
        rows = self._start + torch.arange(length + 1, device=self._device)
        window = self._columns.index_select(1, rows).t().long()
        for state, first in zip(self._states, range(0, batch, step), strict=True):
            columns = window[:, first : first + step]
            loss, nll, encoded = model(columns[:-1], columns[1:], state)
            if self._recipe.activation_regularization:
                loss = loss + self._recipe.activation_regularization * encoded.output.pow(2).mean()
            if self._recipe.temporal_regularization and length > 1:
                change = encoded.raw[1:] - encoded.raw[:-1]
                loss = loss + self._recipe.temporal_regularization * change.pow(2).mean()
            yield loss * (step / batch), nll.double().sum()
            if state:
                torch._foreach_copy_(list(state), [s.detach() for s in encoded.state])

    @override
    def prepare(self, model: LanguageModel) -> None:
        if self._states:
            return
        step = self._recipe.micro_batch or self._recipe.batch_size
        count = self._recipe.batch_size // step
        self._states = [model.encoder.initial_state(step, self._device) for _ in range(count)]
        if self._restored is not None:
            torch._foreach_copy_(self.carried(), [part for state in self._restored for part in state])
            self._restored = None

    @override
    def carried(self) -> list[Tensor]:
        return [part for state in self._states for part in state]

    @override
    def evaluate(self, model: LanguageModel, split: Split, *, final: bool = False) -> dict[str, float]:
        how = self._recipe.evaluation
        batch = how.test_batch if split == "test" else how.valid_batch
        bptt = how.bptt or self._recipe.bptt
        stream = self._data.streams[split]
        scores = perplexity(model, stream, batch, bptt, self._device)
        if self._data.unit == "character":
            scores["bpc"] = scores["nll"] / math.log(2.0)
        if final and "official" in how.variants:
            scores |= official_perplexity(model, stream, batch, bptt, self._device)
        return scores

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "row": self._row,
            "states": [list(state) for state in self._states],
            "lengths": dict(self._lengths.state),
        }

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._row = int(state["row"])
        # The states' tensors are made, in the encoder's own shapes, when the first step runs.
        self._restored, self._states = state["states"] or None, []
        self._lengths.state = state["lengths"]
        self._segments = None


class KnownDistributions(Objective):
    """Cross-entropy against N known distributions, contexts in a new order every epoch (Ganea et al. 2019)."""

    unit = "contexts"
    primary = "kl"

    def __init__(self, data: DistributionData, recipe: Recipe, seed: int, device: torch.device) -> None:
        self._batch = recipe.batch_size
        self._true = torch.tensor(data.probabilities).to(device)  # a copy: the data may be read-only
        self._targets = self._true.float()
        self.items_per_epoch = self._true.shape[0]
        self._generator = torch.Generator().manual_seed(derive_seed(seed, "order"))
        self._order = torch.arange(self.items_per_epoch)
        self._staged_order = self._order.to(device)
        self._start = torch.zeros((), dtype=torch.int64, device=device)
        self._position = 0

    @override
    def begin_epoch(self) -> None:
        self._order = torch.randperm(self.items_per_epoch, generator=self._generator)
        self._staged_order.copy_(self._order)
        self._position = 0

    @override
    def next(self) -> Work | None:
        length = min(self._batch, self.items_per_epoch - self._position)
        if length == 0:
            return None
        work = Work(self._position, length, 1.0, length)
        self._position += length
        return work

    @override
    def stage(self, work: Work) -> None:
        self._start.fill_(work.start)

    @override
    def carried(self) -> list[Tensor]:
        return []

    @override
    def losses(self, model: LanguageModel, length: int) -> Iterator[tuple[Tensor, Tensor]]:
        ids = self._staged_order[self._start + torch.arange(length, device=self._targets.device)]
        log_q = model.head.log_probs(model.encoder(ids, ()).output)
        nats = -(self._targets[ids] * log_q).sum(-1)
        yield nats.mean(), nats.detach().double().sum()

    @override
    def evaluate(self, model: LanguageModel, split: Split, *, final: bool = False) -> dict[str, float]:
        # The experiment asks how well a head can fit the distributions it is shown; nothing is held out.
        return distribution_scores(model, self._true)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"position": self._position, "order": self._order, "generator": self._generator.get_state()}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._position = int(state["position"])
        self._order = state["order"]
        self._staged_order.copy_(self._order)
        self._generator.set_state(state["generator"])


def _columns(stream: npt.NDArray[np.int32], batch_size: int, device: torch.device) -> Tensor:
    """The official cut of a stream (:func:`suite.data.batching.batchify`) as [batch, rows] on the device.

    A column is a contiguous piece of the stream, so a memory-mapped corpus stays mapped on a CPU.
    """
    with warnings.catch_warnings():
        # Read, never written.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(cut(stream, batch_size)).to(device)


def build_objective(data: TextData | DistributionData, recipe: Recipe, seed: int, device: torch.device) -> Objective:
    """The objective that fits the data."""
    if isinstance(data, DistributionData):
        return KnownDistributions(data, recipe, seed, device)
    return NextWord(data, recipe, seed, device)


def steps_per_epoch(objective: Objective, recipe: Recipe) -> int:
    """Expected optimiser steps of an epoch: exact unless sequence lengths are random."""
    if isinstance(objective, KnownDistributions):
        return math.ceil(objective.items_per_epoch / recipe.batch_size)
    length: float = recipe.bptt
    if recipe.random_length is not None:
        length = recipe.bptt * (1.0 - recipe.random_length.half_probability / 2.0)
    return max(1, math.ceil(objective.items_per_epoch / recipe.batch_size / length))
