"""One free vector a context: the encoder of the categorical-distribution experiment (Ganea et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from suite.errors import InputError
from suite.models.encoders.base import Encoded, Encoder, State
from suite.spec.types import PositiveFloat, PositiveInt


class Table(Encoder):
    """Context i is a trainable vector of size ``dimension``, independent of every other, so only the head limits it.

    Raises:
        InputError: the dataset is text and has no numbered contexts.
    """

    def __init__(
        self,
        vocabulary: int,
        contexts: int | None = None,
        *,
        dimension: PositiveInt = 10,
        init_std: PositiveFloat = 1.0,
    ) -> None:
        super().__init__()
        if contexts is None:
            raise InputError("encoder table holds one vector a context and text has no numbered contexts: use awd-lstm")
        self.vectors = nn.Parameter(torch.randn(contexts, dimension) * init_std)
        self.context_size = dimension

    def forward(self, inputs: Tensor, state: State) -> Encoded:
        """Look up context ids [N] as vectors [N, H]."""
        vectors = self.vectors[inputs]
        return Encoded(vectors, vectors, state)
