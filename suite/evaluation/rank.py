"""Empirical rank of the log-probability matrix: how far a head escapes the softmax bottleneck (Yang et al. 2018)."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suite.data.base import TextData
from suite.errors import Diverged, InputError
from suite.evaluation.perplexity import rows_per_chunk
from suite.models.language_model import LanguageModel
from suite.spec.types import PositiveInt
from suite.stages import Measurements, RunContext

_RELATIVE = {"rank_1e-3": 1e-3, "rank_1e-5": 1e-5, "rank_1e-7": 1e-7}


class Rank:
    """Rank of the matrix of log p(word | context) over the test split, contexts x words.

    Contexts are kept in float32; the head is recomputed in float64, without log(p + 1e-8), which alone would fake full
    rank; the matrix is never held: a QR factorisation is updated row block by row block, and the singular values are
    those of its triangle.

    ``rank`` counts singular values above numpy's default tolerance in float64; ``rank_press`` uses the papers' own
    threshold, s > 0.5 sqrt(m + n + 1) s_0 eps with float32's eps (Press et al. 2007); ``rank_1e-3`` and its like count
    values above that fraction of the largest.

    Args:
        contexts: how many contexts of the split to use, from its beginning; all when absent.
    """

    name = "rank"

    def __init__(self, *, contexts: PositiveInt | None = None) -> None:
        self._limit = contexts

    def run(self, context: RunContext, state: dict[str, Any] | None) -> Measurements:
        """See :class:`suite.stages.Stage`."""
        if not isinstance(context.data, TextData):
            raise InputError("stage rank needs a text dataset")
        with context.clock("evaluate"):
            stream = context.data.streams["test"]
            if self._limit is not None:
                stream = stream[: self._limit + 1]
            contexts = _contexts(context.model, torch.from_numpy(np.array(stream)), context)
            values, rows = singular_values(context.model, contexts)
        return {"test": rank_metrics(values, rows, context.model.head.weight.shape[0])}


@torch.no_grad()
def _contexts(model: LanguageModel, stream: Tensor, context: RunContext) -> Tensor:
    """Encoder outputs [T, H] along a stream, state carried."""
    model.eval()
    bptt = context.recipe.evaluation.bptt or context.recipe.bptt
    state = model.encoder.initial_state(1, context.device)
    parts = []
    for start in range(0, len(stream) - 1, bptt):
        inputs = stream[start : min(start + bptt, len(stream) - 1)].to(context.device).long().unsqueeze(1)
        encoded = model.encoder(inputs, state)
        state = encoded.state
        parts.append(encoded.output.squeeze(1))
    return torch.cat(parts)


@torch.no_grad()
def singular_values(model: LanguageModel, contexts: Tensor) -> tuple[Tensor, int]:
    """Singular values (float64, descending) of the log-probability matrix of ``contexts`` [T, H], and T."""
    head = copy.deepcopy(model.head).double().eval()
    # Blocks at least as tall as the triangle, or the updates would dominate.
    block = max(head.weight.shape[0], rows_per_chunk(head, torch.float64))
    triangle: Tensor | None = None
    for start in range(0, contexts.shape[0], block):
        rows = contexts[start : start + block].double()
        step = rows_per_chunk(head, torch.float64)
        log_p = torch.cat([head.log_probs(rows[i : i + step]) for i in range(0, rows.shape[0], step)])
        if not torch.isfinite(log_p).all():
            raise Diverged("a log-probability is not finite: the rank is not defined")
        triangle = torch.linalg.qr(log_p if triangle is None else torch.cat((triangle, log_p)), mode="r").R
    assert triangle is not None
    return torch.linalg.svdvals(triangle), contexts.shape[0]


def rank_metrics(values: Tensor, rows: int, columns: int) -> dict[str, float]:
    """Ranks of a rows x columns matrix by its singular values, at each threshold of :class:`Rank`."""
    largest = float(values[0])
    thresholds = {
        "rank": largest * max(rows, columns) * torch.finfo(torch.float64).eps,
        "rank_press": 0.5 * (rows + columns + 1) ** 0.5 * largest * torch.finfo(torch.float32).eps,
        **{name: largest * fraction for name, fraction in _RELATIVE.items()},
    }
    return {name: float((values > threshold).sum()) for name, threshold in thresholds.items()}
