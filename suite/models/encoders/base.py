"""What every encoder offers: context vectors for a segment, and the state to carry into the next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from suite.spec.recipe import Arithmetic

_HALF: dict[Arithmetic, torch.dtype] = {"float16": torch.float16, "bfloat16": torch.bfloat16}

# One tensor a layer and role, streams along dimension 1; empty for an encoder without state.
State = tuple[Tensor, ...]


class Encoded(NamedTuple):
    """Output of one segment.

    ``output`` [T, B, H] goes to the head, dropout applied; ``raw`` is the same before its dropout (the temporal
    regularisation of Merity et al. 2018 is taken on it); ``state`` is carried to the next segment.
    """

    output: Tensor
    raw: Tensor
    state: State


class Encoder(nn.Module, ABC):
    """Token ids [T, B] (or context ids [N]) to context vectors.

    Attributes:
        context_size: H, size of a context vector.
        arithmetic: of the encoder in training (the recipe's ``precision.recurrence``); evaluation is in float32.
        crowded: other runs share the GPU, so none should take all of it for long.
    """

    context_size: int
    arithmetic: Arithmetic = "float32"
    crowded: bool = False

    @property
    def half_dtype(self) -> torch.dtype | None:
        """The half precision it computes in now; None where it computes in its weights' own dtype."""
        return _HALF.get(self.arithmetic) if self.training else None

    @property
    def output_weight(self) -> nn.Parameter | None:
        """[V, d] embedding to be shared with the head, or None."""
        return None

    def initial_state(self, batch: int, device: torch.device) -> State:
        """State before the first token, for ``batch`` streams; empty where nothing is carried."""
        return ()

    @abstractmethod
    def forward(self, inputs: Tensor, state: State) -> Encoded:
        """Encode one segment, starting from ``state``."""
