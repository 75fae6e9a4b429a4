"""The output layer's loss in one pass over chunks: a mixture of K softmaxes at the memory of a softmax.

A chunk holds all K experts of a few tokens, so the experts' responsibilities are known right after the logits, and
every gradient is made in the forward pass: three matrix products, no recomputation, and one reused buffer of logits
sized by a byte budget instead of an N x K x V tensor. For a token with target y and weight w (see
:mod:`suite.kernels.reference` for the model):

    r_k = w exp(log pi_k + log p_k(y) - log p(y))        d loss / d log pi_k = -r_k
    d loss / d t_k = r_k (softmax(t_k) - onehot(y))      t_k = g(z_k), z_k = h_k W^T + b

With eps, the loss is -log(p + eps) and r_k carries the factor p / (p + eps). What lies between the products is a
:class:`RowPass`: plain torch (:mod:`suite.kernels.chunked`) or Triton (:mod:`suite.kernels.fused`).

Nothing here waits for the device, so a call can be captured in a CUDA graph.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from suite.kernels import twice
from suite.kernels.arithmetic import Products, power_of_two
from suite.kernels.projection import ProjectedChunks
from suite.kernels.twice import Loss
from suite.models.heads.pointwise import Pointwise


class Call(NamedTuple):
    """The arguments of one call as its row pass sees them; shapes as :func:`suite.kernels.chunked.mixture_nll` says."""

    targets: Tensor
    log_prior: Tensor | None
    bias: Tensor | None
    row_weight: Tensor | float  # one number where every token has the same
    operands: tuple[Tensor, ...]
    pointwise: Pointwise
    eps: float
    experts: int
    words: int
    products: Products
    # Which gradients are asked for: of the logits at all, the log prior, the bias, the pointwise function's operands.
    of_logits: bool
    of_log_prior: bool
    of_bias: bool
    of_operands: bool


class RowPass(ABC):
    """What happens to a chunk's logits between the products. One object serves one call, chunk after chunk.

    ``nll`` [N] and ``of_log_prior`` [N, K] are filled by rows; ``of_bias`` [V] and ``of_operands`` are complete after
    :meth:`finish`.
    """

    # Whether the product that makes the logits adds the bias; otherwise the pass does.
    bias_in_product = False

    def __init__(self, call: Call, rows: int) -> None:
        """Allocate for chunks of at most ``rows`` rows (a token's expert each)."""
        self.call = call
        self.nll = torch.empty(call.targets.shape[0], dtype=call.products.dtype, device=call.targets.device)
        self.of_log_prior = (
            torch.empty_like(call.log_prior) if call.of_log_prior and call.log_prior is not None else None
        )
        self.of_bias: Tensor | None = None
        self.of_operands: tuple[Tensor | None, ...] = (None,) * len(call.operands)

    @classmethod
    @abstractmethod
    def logits(cls, products: Products) -> torch.dtype:
        """Dtype in which the pass wants the logits."""

    @classmethod
    def gradients(cls, products: Products) -> torch.dtype:
        """Dtype in which the pass returns the logits' gradient, and in which its products take the other operand."""
        return products.operand_dtype

    @classmethod
    def width(cls, words: int) -> int:
        """Length of a row of logits in memory, at least ``words``."""
        return words

    def make(self, latent: Tensor, words: Tensor, z: Tensor) -> None:
        """Make the logits ``z`` [n K, width] = ``latent`` [n K, d] ``words``^T, with the bias if it belongs there."""
        if self.bias_in_product and self.call.bias is not None:
            torch.addmm(self.call.bias, latent, words.t(), out=z)
        else:
            self.call.products.multiply(latent, words.t(), z)

    @abstractmethod
    def run(self, z: Tensor, tokens: slice, scale: Tensor | float) -> Tensor | None:
        """Score the tokens and return the gradient by the logits as an operand of products.

        Args:
            z: [n K, width] logits of the tokens' experts; may be overwritten.
            tokens: which of the N.
            scale: factor on the returned gradient, and on it alone.

        Returns:
            [n K, width], zeros beyond the words; None where no gradient of the logits is asked for.
        """

    @abstractmethod
    def finish(self) -> None:
        """Complete ``of_bias`` and ``of_operands``."""


class Problem(NamedTuple):
    """The loss that is meant, and how it is computed."""

    meant: Loss
    row_pass: type[RowPass]
    experts: int


def tokens_per_chunk(tokens: int, experts: int, width: int, itemsize: int, chunk_bytes: int) -> int:
    """Tokens of a chunk: as many as fit in ``chunk_bytes``, at least one, and chunks of about equal size."""
    most = max(1, chunk_bytes // (experts * width * itemsize))
    chunks = -(-tokens // most)
    return -(-tokens // max(1, chunks))


def apply(
    problem: Problem,
    contexts: Tensor,
    log_prior: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    row_weight: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The weighted loss and the nll [N]; see :func:`suite.kernels.chunked.mixture_nll`."""
    projection = problem.meant.projection
    extra = (None, None) if projection is None else (projection.weight, projection.bias)
    operands = problem.meant.pointwise.operands()
    inputs = (contexts, log_prior, weight, bias, row_weight, *extra, *operands)
    if not torch.is_grad_enabled():
        # A function is told which inputs are parameters, whether or not gradients are enabled: it would make them all.
        inputs = tuple(given if given is None else given.detach() for given in inputs)
    loss, nll = _OnePass.apply(problem, *inputs)  # type: ignore[no-untyped-call]
    return loss, nll


class _GivenChunks:
    """Expert contexts [N, K, d] that exist already."""

    def __init__(self, contexts: Tensor, products: Products, needed: bool) -> None:
        # All at once: rounding them is one launch then, and they are small beside their logits.
        self._operand = products.operand(contexts.flatten(0, 1)) if products.native else None
        self._contexts, self._products = contexts, products
        self.of_contexts = torch.empty_like(contexts, memory_format=torch.contiguous_format) if needed else None
        self.of_weight = self.of_bias = None

    def operand(self, rows: slice) -> Tensor:
        if self._operand is None:
            return self._products.operand(self._contexts[rows].flatten(0, 1))
        experts = self._contexts.shape[1]
        return self._operand[rows.start * experts : rows.stop * experts]


class _OnePass(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        problem: Problem,
        contexts: Tensor,
        log_prior: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        row_weight: Tensor | None,
        project: Tensor | None,
        project_bias: Tensor | None,
        *operands: Tensor,
    ) -> tuple[Tensor, Tensor]:
        needs = ctx.needs_input_grad[1:]
        tokens = contexts.shape[0]
        products = Products(problem.meant.arithmetic, contexts)
        factor = problem.meant.factor
        share: Tensor | float = factor / max(1, tokens)
        if row_weight is not None:
            share = row_weight if factor == 1.0 else row_weight * factor
        source: _GivenChunks | ProjectedChunks
        if problem.meant.projection is None:
            source = _GivenChunks(contexts, products, needs[0])
        else:
            made = problem.meant.projection.with_parameters(project, project_bias)
            source = ProjectedChunks(contexts, made, products, (needs[0], needs[5], needs[6]))
        call = Call(
            problem.meant.targets,
            log_prior,
            bias,
            share,
            operands,
            problem.meant.pointwise,
            problem.meant.eps,
            problem.experts,
            weight.shape[0],
            products,
            of_logits=any((needs[0], needs[2], needs[3], *needs[5:])),
            of_log_prior=needs[1],
            of_bias=needs[3],
            of_operands=any(needs[7:]),
        )
        small = products.needs_scale or problem.row_pass.gradients(products) is torch.float16
        scale, alpha, late = _scale(share) if small else (1.0, 1.0, None)
        rows, of_weight = _chunks(problem, call, source, weight, needs, scale, alpha)
        ctx.mark_non_differentiable(rows.nll)
        ctx.problem = problem
        ctx.save_for_backward(contexts, log_prior, weight, bias, row_weight, project, project_bias, *operands)
        if late is not None:  # the factor is known to the device alone
            for gradient in (source.of_contexts, of_weight, source.of_weight, source.of_bias):
                if gradient is not None:
                    gradient.mul_(late)
        ctx.gradients = (
            source.of_contexts,
            rows.of_log_prior,
            of_weight,
            rows.of_bias,
            rows.nll * factor if needs[4] else None,
            source.of_weight,
            source.of_bias,
            *rows.of_operands,
        )
        loss = rows.nll.mean() if row_weight is None else (row_weight * rows.nll).sum()
        return loss, rows.nll

    @staticmethod
    def backward(ctx: Any, of_loss: Tensor, _of_nll: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            return (None, *twice.gradients(ctx.problem.meant, ctx.saved_tensors, ctx.needs_input_grad[1:], of_loss))
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("the gradients of this loss were handed out already; compute the loss again")
        factor = ctx.problem.meant.factor
        rescale = _rescaling(of_loss if factor == 1.0 else of_loss / factor)
        return (None, *(None if g is None else rescale(g) for g in gradients))


def _scale(share: Tensor | float) -> tuple[Tensor | float, float, Tensor | None]:
    """Factor on the logits' gradient, its inverse where the host knows it, else the inverse as a tensor."""
    if isinstance(share, float):
        scale = float(power_of_two(torch.tensor(share)))
        return scale, 1.0 / scale, None
    on_device = power_of_two(share.abs().amax())
    return on_device, 1.0, 1.0 / on_device


def _chunks(
    problem: Problem,
    call: Call,
    source: _GivenChunks | ProjectedChunks,
    weight: Tensor,
    needs: tuple[bool, ...],
    scale: Tensor | float,
    alpha: float,
) -> tuple[RowPass, Tensor | None]:
    """Run every chunk; returns the finished row pass and the gradient of ``weight``."""
    products, tokens = call.products, call.targets.shape[0]
    width = problem.row_pass.width(call.words)
    dtype = problem.row_pass.logits(products)
    step = tokens_per_chunk(tokens, problem.experts, width, dtype.itemsize, problem.meant.chunk_bytes)
    rows = problem.row_pass(call, step * problem.experts)
    # One allocation serves every chunk; a fresh one each time would go back to the system and return as new pages.
    buffer = torch.empty(step * problem.experts, width, dtype=dtype, device=weight.device)
    words = columns = _padded(weight, width, products)
    gradient = problem.row_pass.gradients(products)
    apart = gradient != products.operand_dtype
    of_latent_needed = needs[0] or needs[5] or needs[6]
    if of_latent_needed and apart:
        columns = products.empty(words.shape, gradient).copy_(words)
    elif of_latent_needed and products.tf32:
        # Hopper's TF32 units want both operands with the summed dimension last, unlike its half-precision ones.
        columns = words.t().contiguous().t()
    of_weight = weight.new_empty(width, weight.shape[1]) if needs[2] else None
    for start in range(0, tokens, step):
        part = slice(start, min(start + step, tokens))
        latent = source.operand(part)
        z = buffer[: latent.shape[0]]
        rows.make(latent, words, z)
        of_z = rows.run(z, part, scale)
        if of_z is None:
            continue
        if of_weight is not None:  # before the source's own gradients, which are made in place of the latent
            beside = products.empty(latent.shape, gradient).copy_(latent) if apart else latent
            products.add(of_weight, of_z.t(), beside, alpha, first=start == 0)
        if isinstance(source, ProjectedChunks):
            if of_latent_needed:
                of_latent = weight.new_empty(latent.shape)
                # Scaled still: its own products come next.
                source.back(part, products.multiply(of_z, columns, of_latent), alpha, start == 0)
        elif source.of_contexts is not None:
            products.multiply(of_z, columns, source.of_contexts[part].flatten(0, 1), alpha)
    rows.finish()
    return rows, None if of_weight is None else of_weight[: call.words]


def _padded(weight: Tensor, rows: int, products: Products) -> Tensor:
    """``weight`` as an operand, with zero rows down to ``rows``."""
    words = weight.shape[0]
    if words == rows:
        return products.operand(weight)
    out = products.empty((rows, weight.shape[1]))
    out[:words] = weight if products.native else products.operand(weight)
    out[words:] = 0.0
    return out


def _rescaling(factor: Tensor) -> Callable[[Tensor], Tensor]:
    """How a gradient takes the factor that is left, nearly always 1: in place, they are this call's own."""
    if factor.device.type == "cuda":
        try:
            from suite.kernels.triton_rows import rescale_
        except ImportError:
            return lambda gradient: gradient.mul_(factor)
        return lambda gradient: rescale_(gradient, factor)
    if factor.item() == 1.0:
        return lambda gradient: gradient
    return lambda gradient: gradient.mul_(factor)
