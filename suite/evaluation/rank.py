"""Empirical rank of the log-probability matrix: how far a head escapes the softmax bottleneck (Yang et al. 2018)."""

from __future__ import annotations

import copy
import math
from typing import Any, Literal

import torch
from torch import Tensor

from suite.errors import Diverged, InputError
from suite.evaluation.contexts import contexts_along
from suite.evaluation.modelstate import restored_modes
from suite.evaluation.perplexity import rows_per_chunk
from suite.evaluation.watch import text_of
from suite.models.language_model import LanguageModel
from suite.spec.types import PositiveInt
from suite.stages import Measurements, RunContext

_RELATIVE = {"rank_1e-3": 1e-3, "rank_1e-4": 1e-4, "rank_1e-5": 1e-5, "rank_1e-7": 1e-7}
_LEFT_OUT = {"effective_rank_1e-3": 1e-3, "effective_rank_1e-4": 1e-4, "effective_rank_1e-5": 1e-5}
_SPECTRUM_POINTS = 200
_TRAP_EPS = 1e-8


class Rank:
    """Rank of the matrix of log p(word | context) over a split, contexts x words.

    Contexts are kept in float32; the head is recomputed in float64, without log(p + 1e-8), which alone would fake full
    rank; the matrix is never held: a QR factorisation is updated row block by row block, and the singular values are
    those of its triangle. Up to 200 of them, evenly spaced in the logarithm of their index, are kept as the spectrum:
    pairs (index from 1, s / s_0).

    ``rank`` counts singular values above numpy's default tolerance in float64; ``rank_press`` uses the papers' own
    threshold, s > 0.5 sqrt(m + n + 1) s_0 eps with float32's eps (Press et al. 2007); ``rank_1e-3`` and its like count
    values above that fraction of the largest; ``effective_rank_1e-3`` and its like are the least rank of a matrix that
    leaves out at most that fraction of the squares of all entries, by Eckart and Young of the squared singular values.

    Of a mixture also ``experts_used``, exp of the entropy of its experts' mean weights over the contexts, and
    ``experts_at_once``, the mean over contexts of exp of the entropy of their weights: from 1 to K. A mixture may have
    learned to be one softmax, whatever its rank is called.

    Args:
        contexts: how many contexts of the split to use, from its beginning; all when absent.
        splits: of which texts.
        press_float32: also ``rank_press_float32``, the papers' threshold on singular values taken the papers' way: log
            p, factorisation and all in float32, whose rounding adds a floor of noise to the spectrum.
        eps_trap: also ``rank_eps_trap``, the rank at numpy's tolerance of log(p + 1e-8), which training uses: close to
            full for any head, since log(exp(x) + 1e-8), entry by entry, of a matrix of low rank has none. A warning,
            not a measurement.
    """

    name = "rank"

    def __init__(
        self,
        *,
        contexts: PositiveInt | None = None,
        splits: list[Literal["valid", "test"]] = ["test"],  # noqa: B006 - read, never changed
        press_float32: bool = False,
        eps_trap: bool = False,
    ) -> None:
        if not splits:
            raise InputError(f"stage {self.name}: splits is empty; name valid, test or both")
        self._limit = contexts
        self._splits = splits
        self._press_float32 = press_float32
        self._eps_trap = eps_trap

    def run(self, context: RunContext, state: dict[str, Any] | None) -> Measurements:
        """See :class:`suite.stages.Stage`."""
        text = text_of(context, self.name)
        model, columns = context.model, context.model.head.weight.shape[0]
        scores: Measurements = {}
        with context.clock("evaluate"), restored_modes(model):
            for split in self._splits:
                stream = text.streams[split]
                contexts = contexts_along(model, stream if self._limit is None else stream[: self._limit + 1], context)
                values, rows = singular_values(model, contexts)
                scores[split] = rank_metrics(values, rows, columns)
                scores[split] |= experts_in_use(model, contexts)
                context.spectra[f"{self.name} {split}"] = spectrum(values)
                if self._press_float32:
                    rounded, _ = singular_values(model, contexts, dtype=torch.float32)
                    scores[split]["rank_press_float32"] = rank_metrics(rounded, rows, columns)["rank_press"]
                if self._eps_trap:
                    trapped, _ = singular_values(model, contexts, eps=_TRAP_EPS)
                    scores[split]["rank_eps_trap"] = rank_metrics(trapped, rows, columns)["rank"]
        return scores


@torch.no_grad()
def singular_values(
    model: LanguageModel, contexts: Tensor, *, dtype: torch.dtype = torch.float64, eps: float = 0.0
) -> tuple[Tensor, int]:
    """Singular values (descending, in ``dtype``) of the matrix of log(p + eps) of ``contexts`` [T, H], and T.

    Raises:
        Diverged: a log-probability is not finite.
    """
    head = copy.deepcopy(model.head).to(dtype).eval()
    # Blocks at least as tall as the triangle, or the updates would dominate.
    block = max(head.weight.shape[0], rows_per_chunk(head, dtype))
    triangle: Tensor | None = None
    for start in range(0, contexts.shape[0], block):
        rows = contexts[start : start + block].to(dtype)
        step = rows_per_chunk(head, dtype)
        log_p = torch.cat([head.log_probs(rows[i : i + step]) for i in range(0, rows.shape[0], step)])
        if not torch.isfinite(log_p).all():
            raise Diverged("a log-probability is not finite: the rank is not defined")
        if eps > 0.0:
            log_p = torch.logaddexp(log_p, torch.full_like(log_p, math.log(eps)))
        triangle = torch.linalg.qr(log_p if triangle is None else torch.cat((triangle, log_p)), mode="r").R
    assert triangle is not None
    # Of cuSOLVER's drivers this one was the fastest on triangles of a vocabulary's size.
    return torch.linalg.svdvals(triangle, driver="gesvd" if triangle.is_cuda else None), contexts.shape[0]


@torch.no_grad()
def experts_in_use(model: LanguageModel, contexts: Tensor) -> dict[str, float]:
    """How many experts of a mixture have a share in the distributions of ``contexts`` [T, H]; empty for one softmax."""
    head = model.head
    if head.prior is None:
        return {}
    weights = head.log_prior(contexts).double().exp()
    return {
        "experts_used": float(torch.special.entr(weights.mean(0)).sum().exp()),
        "experts_at_once": float(torch.special.entr(weights).sum(-1).exp().mean()),
    }


def rank_metrics(values: Tensor, rows: int, columns: int) -> dict[str, float]:
    """Ranks of a rows x columns matrix by its descending singular values, at each threshold of :class:`Rank`."""
    largest = float(values[0])
    thresholds = {
        "rank": largest * max(rows, columns) * torch.finfo(torch.float64).eps,
        "rank_press": 0.5 * (rows + columns + 1) ** 0.5 * largest * torch.finfo(torch.float32).eps,
        **{name: largest * fraction for name, fraction in _RELATIVE.items()},
    }
    # From the smallest on, or the sum of the others would round them away.
    squares_from = values.double().square().flip(0).cumsum(0).flip(0)
    kept = {name: squares_from > fraction * squares_from[0] for name, fraction in _LEFT_OUT.items()}
    counted = {name: values > threshold for name, threshold in thresholds.items()}
    return {name: float(mask.sum()) for name, mask in (counted | kept).items()}


def spectrum(values: Tensor, points: int = _SPECTRUM_POINTS) -> list[list[float]]:
    """At most ``points`` pairs (index from 1, s / s_0) of descending singular values, evenly spaced in log index.

    The first and the last value are always among them.
    """
    count = values.numel()
    spaced = torch.logspace(0.0, math.log10(count), points, dtype=torch.float64).round().long().clamp_(1, count)
    indices = torch.unique(spaced)
    relative = values.double().cpu()[indices - 1] / float(values[0])
    return [[float(i), float(f"{r:.6g}")] for i, r in zip(indices.tolist(), relative.tolist(), strict=True)]
