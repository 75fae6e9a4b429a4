"""Scores of the categorical-distribution experiment (Ganea et al. 2019): cross-entropy gap and mode matching."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from suite.errors import Diverged
from suite.evaluation.perplexity import rows_per_chunk
from suite.models.language_model import LanguageModel


@torch.no_grad()
def distribution_scores(model: LanguageModel, probabilities: Tensor) -> dict[str, float]:
    """How well the model's distributions match the true ones, over every context.

    Args:
        model: encoder over context ids 0..N-1 and a head over M words.
        probabilities: float64 [N, M], the true distributions.

    Returns:
        ``kl``: mean cross-entropy minus entropy, nats; ``mode_match``: percentage of contexts whose most probable
        word is the same.

    Raises:
        Diverged: a score is not finite.
    """
    model.eval()
    contexts = probabilities.shape[0]
    gap = torch.zeros((), dtype=torch.float64, device=probabilities.device)
    matched = torch.zeros((), dtype=torch.int64, device=probabilities.device)
    rows = rows_per_chunk(model.head)
    for start in range(0, contexts, rows):
        true = probabilities[start : start + rows]
        ids = torch.arange(start, start + true.shape[0], device=true.device)
        log_q = model.head.log_probs(model.encoder(ids, ()).output).double()
        # xlogy: a word of probability 0 contributes nothing.
        gap += (torch.special.xlogy(true, true) - true * log_q).sum()
        matched += (true.argmax(-1) == log_q.argmax(-1)).sum()
    kl = gap.item() / contexts
    if not math.isfinite(kl):
        raise Diverged("the cross-entropy gap is not a finite number")
    return {"kl": kl, "mode_match": 100.0 * matched.item() / contexts}
