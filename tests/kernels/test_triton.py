"""The Triton row kernels and their driver under Triton's interpreter on the CPU, against the reference."""

from __future__ import annotations

import os

import pytest
import torch

os.environ.setdefault("TRITON_INTERPRET", "1")
pytest.importorskip("triton", reason="triton is not installed: pip install triton to run its interpreter on the CPU")

from suite.kernels import fused, reference
from suite.kernels.triton_rows import differentiate_rows
from suite.models.heads.pointwise import GeneralizedSigsoftmax, Identity, Pointwise, Sigsoftmax

FUNCTIONS: dict[str, Pointwise] = {
    "identity": Identity(),
    "sigsoftmax": Sigsoftmax(),
    "gss": GeneralizedSigsoftmax(c=-1.5, k=2.5),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("experts", [1, 3, 15])
@pytest.mark.parametrize("eps", [0.0, 1e-2])
@pytest.mark.parametrize("words", [33, 2500])  # one block, and two with the second one short
def test_rows(name: str, experts: int, eps: float, words: int) -> None:
    torch.manual_seed(0)
    g, tokens = FUNCTIONS[name], 3
    logits = (torch.randn(tokens * experts, words) * 3).requires_grad_()
    bias = torch.randn(words)
    log_prior = torch.log_softmax(torch.randn(tokens, experts), -1).requires_grad_() if experts > 1 else None
    targets, weight = torch.randint(words, (tokens,)), torch.rand(tokens)
    nll = reference.mixture_nll(logits.view(tokens, experts, words), log_prior, torch.eye(words), bias, targets, g, eps)
    (weight * nll).sum().backward()
    padded = torch.full((tokens * experts, words + 7), 9e9)
    padded[:, :words] = logits.detach()
    gss = (g.c, g.k) if isinstance(g, GeneralizedSigsoftmax) else None
    prior = None if log_prior is None else log_prior.detach()
    done = differentiate_rows(padded, words, bias, targets, prior, weight, experts, gss, eps)
    torch.testing.assert_close(done.nll, nll.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(padded[:, :words], logits.grad, rtol=1e-4, atol=2e-6)
    assert (padded[:, words:] == 0).all(), "the padding must not reach the products"
    if log_prior is not None:
        torch.testing.assert_close(done.of_log_prior, log_prior.grad, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("experts", [1, 3])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("chunk_bytes", [1, 10**8])
def test_driver(name: str, experts: int, bias: bool, chunk_bytes: int) -> None:
    torch.manual_seed(1)
    tokens, words, size, g = 4, 33, 5, FUNCTIONS[name]
    contexts = torch.randn(tokens, experts, size).requires_grad_()
    log_prior = torch.log_softmax(torch.randn(tokens, experts), -1).requires_grad_() if experts > 1 else None
    weight = torch.randn(words, size).requires_grad_()
    offset = torch.randn(words).requires_grad_() if bias else None
    targets, share = torch.randint(words, (tokens,)), torch.rand(tokens)
    leaves = [t for t in (contexts, log_prior, weight, offset) if t is not None]
    slow = (share * reference.mixture_nll(contexts, log_prior, weight, offset, targets, g)).sum()
    fast, _ = fused.mixture_nll(contexts, log_prior, weight, offset, targets, g, share, 0.0, chunk_bytes)
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)
    for a, b in zip(torch.autograd.grad(1.7 * slow, leaves), torch.autograd.grad(1.7 * fast, leaves), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5)
