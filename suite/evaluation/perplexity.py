"""Perplexity of a text model: exp of the mean negative log-likelihood over every target token, each counted once."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from suite.data.batching import batchify, complete_columns
from suite.errors import Diverged
from suite.models.heads.head import Head
from suite.models.language_model import LanguageModel

# Logits held at a time while scoring; the reference head keeps about three tensors of this size. A CPU wants them in
# its cache, a GPU wants few large products.
_LOGITS_BYTES = {"cpu": 8 * 1024 * 1024, "cuda": 512 * 1024 * 1024}


def rows_per_chunk(head: Head, dtype: torch.dtype = torch.float32) -> int:
    """How many contexts may be scored at once within the budget of logits."""
    words = head.weight.shape[0] * (1 if head.mix_contexts else head.experts)
    return max(1, _LOGITS_BYTES.get(head.weight.device.type, _LOGITS_BYTES["cpu"]) // (words * dtype.itemsize))


def score(model: LanguageModel, contexts: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood [N] in nats of targets [N] given contexts [N, H], a chunk of logits at a time."""
    return model.head.nll(contexts, targets)


def _finite(nll: float) -> float:
    if not math.isfinite(nll):
        raise Diverged("the evaluation loss is not a finite number")
    return nll


@torch.no_grad()
def perplexity(
    model: LanguageModel, stream: npt.NDArray[np.int32], batch_size: int, bptt: int, device: torch.device
) -> dict[str, float]:
    """Score every token of a split that has one before it.

    The stream's N - 1 (word, next word) pairs are cut into ``batch_size`` contiguous columns, read in segments of
    ``bptt`` with the state carried; padding of the last column is not scored.

    Returns:
        ``nll`` (nats a token), ``ppl`` and ``tokens`` (how many were scored).

    Raises:
        Diverged: the loss is not finite.
    """
    inputs, targets, mask = (torch.from_numpy(a).to(device) for a in complete_columns(stream, batch_size))
    model.eval()
    state = model.encoder.initial_state(inputs.shape[1], device)
    total = torch.zeros((), dtype=torch.float64, device=device)
    for i in range(0, inputs.shape[0], bptt):
        encoded = model.encoder(inputs[i : i + bptt].long(), state)
        state = encoded.state
        nll = score(model, encoded.output.flatten(0, 1), targets[i : i + bptt].long().flatten())
        total += (nll.double() * mask[i : i + bptt].flatten()).sum()
    tokens = int(mask.sum())
    nll_mean = _finite(total.item() / tokens)
    return {"nll": nll_mean, "ppl": math.exp(min(nll_mean, 700.0)), "tokens": float(tokens)}


@torch.no_grad()
def official_perplexity(
    model: LanguageModel, stream: npt.NDArray[np.int32], batch_size: int, bptt: int, device: torch.device
) -> dict[str, float]:
    """Perplexity as the AWD-LSTM and MoS code reports it (``evaluate`` in their main.py).

    Differences from :func:`perplexity`: the stream's tail that does not fill a row is dropped; each column's first
    token is never a target; log(p + eps) with the head's training eps; and the sum over rows - 1 rows is divided by
    the number of rows, which makes the figure slightly low.
    """
    data = torch.from_numpy(batchify(stream, batch_size)).to(device)
    rows = data.shape[0]
    model.eval()
    state = model.encoder.initial_state(batch_size, device)
    total = torch.zeros((), dtype=torch.float64, device=device)
    for i in range(0, rows - 1, bptt):
        length = min(bptt, rows - 1 - i)
        encoded = model.encoder(data[i : i + length].long(), state)
        state = encoded.state
        log_p = -score(model, encoded.output.flatten(0, 1), data[i + 1 : i + 1 + length].long().flatten()).double()
        if model.head.eps > 0:
            log_p = torch.logaddexp(log_p, torch.full_like(log_p, math.log(model.head.eps)))
        total -= log_p.sum()
    nll = _finite(total.item() / batch_size / rows)
    return {"official_nll": nll, "official_ppl": math.exp(min(nll, 700.0))}
