"""The function a head has learned, sampled where its logits lie: what a record, which has no weights, keeps of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from suite.data.base import TextData
from suite.evaluation.contexts import contexts_along
from suite.evaluation.modelstate import restored_modes
from suite.models.arithmetic import arithmetic, of_evaluation
from suite.models.heads.head import Head
from suite.stages import RunContext

_POINTS = 257
# Enough to know where logits lie: a hundred thousand and more even of a small vocabulary.
_CONTEXTS = 256
_DIGITS = (7, 9, 5, 9)  # that a record keeps, by column
# Logits at a time: few, so that sorting them is no run's peak of memory.
_CHUNK = 2**22


def keep_function(context: RunContext, stage: str) -> None:
    """Put :func:`learned_function` of the model as it is among the run's functions, where there is one."""
    # As the scores are taken, whatever a training stage computes in.
    kind = of_evaluation(context.recipe.precision)
    with arithmetic(kind, kind):
        rows = learned_function(context)
    if rows:
        context.functions[stage] = rows


@torch.no_grad()
def learned_function(context: RunContext) -> list[list[float]]:
    """Rows (z, g(z), share of the logits seen at or below z, g(z) as built) of the head's function, by increasing z.

    257 values of z, evenly spaced from the lowest to the highest logit of the first 256 contexts of the validation
    text, or of the distributions. g is computed in float64; adding a constant to it changes no probability. Its slope
    is the difference of neighbours: a piecewise linear function has many pieces between them.

    Empty where nothing of g is learned, or its logits are all the same or not finite. The model is left as it was.
    """
    model = context.model
    pointwise = model.head.pointwise
    if not any(parameter.requires_grad for parameter in pointwise.parameters()):
        return []
    with restored_modes(model):
        model.eval()
        contexts = _contexts(context)
        ends = [torch.stack(z.aminmax()) for z in _logits(model.head, contexts)]
        low, high = (float(end) for end in (min(e[0] for e in ends), max(e[1] for e in ends)))
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            return []
        grid = torch.linspace(low, high, _POINTS, dtype=torch.float64, device=contexts.device)
        below = torch.zeros(_POINTS, dtype=torch.int64, device=contexts.device)
        count = 0
        for z in _logits(model.head, contexts):
            # Sorted, since a histogram's atomic additions are no deterministic operation on a GPU.
            below += torch.searchsorted(z.flatten().sort().values, grid.to(z.dtype), right=True)
            count += z.numel()
        values, start = (copy.deepcopy(g).to(grid)(grid) for g in (pointwise, context.pointwise_start))
    if not torch.isfinite(values).all():
        return []
    rows = torch.stack((grid, values, below.double() / count, start), dim=1).tolist()
    return [[float(f"{number:.{digits}g}") for number, digits in zip(row, _DIGITS, strict=True)] for row in rows]


def _contexts(context: RunContext) -> Tensor:
    """Context vectors [N, H] of the head."""
    if isinstance(context.data, TextData):
        return contexts_along(context.model, context.data.streams["valid"][: _CONTEXTS + 1], context)
    ids = torch.arange(min(_CONTEXTS, context.data.probabilities.shape[0]), device=context.device)
    output: Tensor = context.model.encoder(ids, ()).output
    return output


def _logits(head: Head, contexts: Tensor) -> Iterator[Tensor]:
    """Logits [n, K, V] of all experts, a chunk of contexts at a time."""
    words = head.weight.shape[0] * (1 if head.mix_contexts else head.experts)
    rows = max(1, _CHUNK // words)
    for start in range(0, contexts.shape[0], rows):
        latent, _ = head.mixture(contexts[start : start + rows])
        yield functional.linear(latent.to(head.weight.dtype), head.weight, head.bias)
