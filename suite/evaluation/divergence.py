"""How different a model's distributions are from context to context (Yang et al. 2018, table 11)."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from suite.errors import DataError, Diverged, InputError
from suite.evaluation.contexts import contexts_along
from suite.evaluation.modelstate import restored_modes
from suite.evaluation.perplexity import rows_per_chunk
from suite.evaluation.watch import text_of
from suite.models.heads.head import Head
from suite.spec.types import NonNegativeInt, PositiveInt
from suite.stages import Measurements, RunContext


class Divergence:
    """Expected Kullback-Leibler divergence between the distributions of two contexts (Yang et al. 2018, table 11).

    ``pairwise_kl`` estimates the mean over ordered pairs of different contexts (i, j) of a split of
    KL(p_i || p_j) = sum_x p_i(x) (log p_i(x) - log p_j(x)), in nats, by its mean over ``pairs`` pairs drawn uniformly
    and independently; ``pairwise_kl_se`` is that mean's standard error, sd / sqrt(pairs).

    Args:
        pairs: how many pairs are drawn.
        splits: of which texts.
        seed: of the draw, which is the same for every model.
    """

    name = "divergence"

    def __init__(
        self,
        *,
        pairs: PositiveInt = 10000,
        splits: list[Literal["valid", "test"]] = ["valid", "test"],  # noqa: B006 - read, never changed
        seed: NonNegativeInt = 0,
    ) -> None:
        if not splits:
            raise InputError(f"stage {self.name}: splits is empty; name valid, test or both")
        if pairs < 2:
            raise InputError(f"stage {self.name}: pairs: 1 gives no standard error; draw at least 2")
        self._pairs = pairs
        self._splits = splits
        self._seed = seed

    def run(self, context: RunContext, state: dict[str, Any] | None) -> Measurements:
        """See :class:`suite.stages.Stage`."""
        text = text_of(context, self.name)
        scores: Measurements = {}
        with context.clock("evaluate"), restored_modes(context.model):
            for split in self._splits:
                contexts = contexts_along(context.model, text.streams[split], context)
                first, second = draw_pairs(contexts.shape[0], self._pairs, self._seed)
                values = pairwise_kl(context.model.head, contexts, first, second)
                mean, sd = float(values.mean()), float(values.std())
                if not math.isfinite(mean):
                    raise Diverged("the divergence between contexts is not a finite number")
                scores[split] = {
                    "pairwise_kl": mean,
                    "pairwise_kl_se": sd / math.sqrt(self._pairs),
                    "pairs": float(self._pairs),
                }
        return scores


def draw_pairs(contexts: int, pairs: int, seed: int) -> tuple[Tensor, Tensor]:
    """``pairs`` ordered pairs of different numbers below ``contexts``, each equally likely, as two int64 [pairs].

    Raises:
        DataError: fewer than two contexts.
    """
    if contexts < 2:
        raise DataError(f"{contexts} context makes no pair; the split needs at least 3 tokens")
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(contexts, (pairs,), generator=generator)
    shift = torch.randint(1, contexts, (pairs,), generator=generator)
    return first, (first + shift) % contexts


@torch.no_grad()
def pairwise_kl(head: Head, contexts: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """KL(p_i || p_j) in nats, float64 [pairs], of the rows i of ``first`` and j of ``second`` in contexts [T, H]."""
    step = max(1, rows_per_chunk(head, contexts.dtype) // 2)
    parts = []
    for i in range(0, first.shape[0], step):
        log_p = head.log_probs(contexts[first[i : i + step].to(contexts.device)]).double()
        log_q = head.log_probs(contexts[second[i : i + step].to(contexts.device)]).double()
        parts.append((log_p.exp() * (log_p - log_q)).sum(-1))
    return torch.cat(parts)
