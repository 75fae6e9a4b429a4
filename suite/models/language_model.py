"""Encoder and head joined; the output embeddings are the input embeddings where the encoder ties them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.profiler import record_function

from suite.models.encoders.base import Encoded, Encoder, State
from suite.models.heads.head import Head
from suite.spec.components import create
from suite.spec.run_spec import RunSpec


class Scored(NamedTuple):
    """``loss``: scalar to differentiate; ``nll`` [T * B]: nats of each target, without a gradient; ``encoded``."""

    loss: Tensor
    nll: Tensor
    encoded: Encoded


class LanguageModel(nn.Module):
    """p(next word | words so far), or p(word | context) for a table of contexts."""

    def __init__(self, encoder: Encoder, head: Head) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, inputs: Tensor, targets: Tensor, state: State) -> Scored:
        """Score a segment for training.

        Args:
            inputs: token ids [T, B].
            targets: the words that follow, [T, B].
            state: the encoder's state before the segment.

        Returns:
            The mean loss, each target's nats, and what the encoder gave.
        """
        with record_function("recurrence"):
            encoded: Encoded = self.encoder(inputs, state)
        with record_function("head"):
            loss, nll = self.head.loss(encoded.output, targets)
        return Scored(loss, nll, encoded)

    def pointwise_parameters(self) -> list[nn.Parameter]:
        """Parameters of the head's pointwise function, which may have a learning rate of their own."""
        return [p for p in self.head.pointwise.parameters() if p.requires_grad]

    def parameter_count(self) -> int:
        """Number of parameters; tied ones counted once, frozen ones included."""
        return sum(p.numel() for p in self.parameters())

    def head_parameter_count(self) -> int:
        """Parameters of the head alone, without an output matrix that belongs to the encoder."""
        shared = self.encoder.output_weight
        return sum(p.numel() for p in self.head.parameters() if p is not shared)


def build_model(
    spec: RunSpec,
    vocabulary: int,
    contexts: int | None,
    frequencies: Callable[[], npt.NDArray[np.float64]] | None = None,
) -> LanguageModel:
    """The model of one cell, freshly initialised from torch's global generator.

    Args:
        spec: the cell.
        vocabulary: number of words.
        contexts: of a distribution experiment; None for text.
        frequencies: the share of each training word, for a head whose bias starts there; without it, it starts at zero.

    Raises:
        InputError: encoder and head do not fit together.
    """
    encoder: Encoder = create("encoder", spec.encoder, vocabulary, contexts)
    head: Head = create("head", spec.head, encoder.context_size, vocabulary, encoder.output_weight)
    encoder.arithmetic = spec.recipe["precision"]["recurrence"]
    head.kernel = spec.recipe["kernel"]
    head.arithmetic = spec.recipe["precision"]["head"]
    if head.starts_at_frequencies and frequencies is not None:
        head.start_at(torch.from_numpy(frequencies()))
    return LanguageModel(encoder, head)
