"""Context vectors along a text, for what is measured on the matrix of its distributions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from suite.models.language_model import LanguageModel
from suite.stages import RunContext


@torch.no_grad()
def contexts_along(model: LanguageModel, stream: npt.NDArray[np.int32], context: RunContext) -> Tensor:
    """Encoder outputs [T, H] before each of the T = len(stream) - 1 words that have one before them, state carried."""
    model.eval()
    bptt = context.recipe.evaluation.bptt or context.recipe.bptt
    tokens = torch.from_numpy(np.array(stream)).to(context.device).long().unsqueeze(1)
    state = model.encoder.initial_state(1, context.device)
    parts = []
    for start in range(0, len(tokens) - 1, bptt):
        encoded = model.encoder(tokens[start : min(start + bptt, len(tokens) - 1)], state)
        state = encoded.state
        parts.append(encoded.output.squeeze(1))
    return torch.cat(parts)
