"""The output head: K expert projections x a pointwise function x a mixture, in one class.

| head | experts | projection | mixture |
| --- | --- | --- | --- |
| softmax (any g: sigsoftmax, GSS, PLIF ...) | 1 | none, or linear | none |
| mixture of softmaxes, MoS (any g: MoSS, mixture of PLIF) | K | tanh | of distributions |
| mixture of contexts, MoC: the rank-limited control | K | tanh | of context vectors |
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from suite.errors import InputError
from suite.kernels import distributions, reference, twice
from suite.kernels.arithmetic import linear
from suite.kernels.choice import Kernel, choose
from suite.kernels.projection import Projection, expert_contexts
from suite.models.dropout import draw_mask
from suite.models.heads.pointwise import Pointwise
from suite.spec.components import create
from suite.spec.recipe import Arithmetic
from suite.spec.types import NonNegativeFloat, PointwiseOption, PositiveInt, Probability

# Expert contexts above this size (with their gradients three times as much) are made chunk by chunk.
PROJECTION_BYTES = 64 * 2**20
# How far below the commonest word's a bias is looked for, and how often that is halved: to float32's own precision.
_FARTHEST, _HALVINGS = 64.0, 32
INIT_RANGE = 0.1  # output embeddings start uniform in [-0.1, 0.1], as in the AWD-LSTM and MoS code


class Head(nn.Module):
    """Context vectors in, distributions over words out.

    Args:
        context_size: H, size of the encoder's output.
        vocabulary: V, number of words.
        tied: [V, d] parameter shared with the encoder's embedding, or None for a matrix of the head's own.
        experts: K; None for a plain softmax.
        dimension: d. Where it differs from H, a plain softmax projects its context linearly first (the down-projection
            of Melis et al. 2018). Absent: d of the tied matrix, else H.
        latent_dropout: locked dropout on the projected contexts of all experts.
        bias: add a bias to the logits, which starts at zero; ``unigram``: where it gives the training words'
            frequencies, once it is told them (:meth:`start_at`).
        eps: train on log(p + eps), as the MoS authors do with 1e-8; evaluation never uses it.
        pointwise: the increasing function applied to every logit.

    Raises:
        InputError: sizes that do not fit each other.
    """

    # Average the projected contexts before one softmax (MoC) instead of K distributions (MoS).
    mix_contexts: ClassVar[bool] = False

    def __init__(
        self,
        context_size: int,
        vocabulary: int,
        tied: nn.Parameter | None,
        *,
        experts: int | None = None,
        dimension: int | None = None,
        latent_dropout: float = 0.0,
        bias: bool | Literal["unigram"] = True,
        eps: float = 0.0,
        pointwise: PointwiseOption = "identity",
    ) -> None:
        super().__init__()
        self.kernel: Kernel | Literal["auto"] = "auto"
        self.arithmetic: Arithmetic = "float32"
        self.kernel_used: Kernel | None = None
        self.loss_factor = 1.0  # of the loss before it is differentiated, where that is known ahead
        self.experts = experts or 1
        self.latent_dropout = latent_dropout
        self.eps = eps
        if tied is None:
            weight = torch.empty(vocabulary, dimension or context_size)
            tied = nn.Parameter(nn.init.uniform_(weight, -INIT_RANGE, INIT_RANGE))
        elif tied.shape[1] != (dimension or (context_size if experts is None else tied.shape[1])):
            raise InputError(
                f"head: the tied output embeddings have size {tied.shape[1]}, and the head's is "
                f"{dimension or context_size}. Make the encoder's last layer {tied.shape[1]}, give the head "
                f"dimension: {tied.shape[1]} (a linear projection), or untie them with tied: false."
            )
        self.weight = tied
        self.dimension = tied.shape[1]
        self.bias = nn.Parameter(torch.zeros(vocabulary)) if bias else None
        self.starts_at_frequencies = bias == "unigram"
        self.prior: nn.Linear | None = None
        self.projection: nn.Linear | None = None
        if experts is not None:
            self.prior = nn.Linear(context_size, experts, bias=False)
            self.projection = nn.Linear(context_size, experts * self.dimension)
        elif context_size != self.dimension:
            self.projection = nn.Linear(context_size, self.dimension, bias=False)
        self.pointwise: Pointwise = pointwise if isinstance(pointwise, Pointwise) else create("pointwise", pointwise)

    @torch.no_grad()
    def start_at(self, frequencies: Tensor) -> None:
        """Set the bias to where p(word), were the contexts zero, is ``frequencies`` [V], each above 0.

        A mixture whose bias begins at zero learns them through its experts' contexts: under Adam these become one
        constant, their tanh saturated, before the bias has gone far.
        """
        assert self.bias is not None
        # The commonest word's bias is 1: from there down even log(relu(z)) takes every value.
        high = torch.ones_like(self.bias)
        low = high - _FARTHEST
        wanted = frequencies.log().to(self.bias)
        wanted += self.pointwise(high) - wanted.max()
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            below = self.pointwise(middle) < wanted
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        self.bias.copy_(high)

    def mixture(self, contexts: Tensor) -> tuple[Tensor, Tensor | None]:
        """Project contexts to experts.

        Args:
            contexts: [T, B, H] or [N, H].

        Returns:
            Expert contexts [N, K, d] and their log weights [N, K]; None where a single softmax remains.
        """
        arithmetic = self._arithmetic()
        rows = contexts.shape[:-1].numel()
        if self.prior is None or self.projection is None:
            projected = contexts
            if self.projection is not None:
                projected = linear(contexts, self.projection.weight, None, arithmetic)
            return projected.reshape(rows, 1, self.dimension), None
        made = expert_contexts(contexts.reshape(rows, -1), self._projection(contexts), arithmetic)
        log_prior = self.log_prior(contexts)
        if self.mix_contexts:
            return torch.einsum("nk,nkd->nd", log_prior.exp(), made).unsqueeze(1), None
        return made, (log_prior if self.experts > 1 else None)

    def loss(self, contexts: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mean training loss (with eps) of ``targets`` [N], and each one's nats [N] without a gradient.

        ``self.kernel`` says how; what was used last stands in ``self.kernel_used``.
        """
        self.kernel_used = self._kernel(contexts)
        if self.kernel_used == "reference":
            latent, log_prior = self.mixture(contexts)
            nll = reference.mixture_nll(
                latent,
                log_prior,
                self.weight,
                self.bias,
                targets.reshape(-1),
                self.pointwise,
                self.eps,
                self._arithmetic(),
            )
            return nll.mean(), nll.detach()
        return self._one_pass(self.kernel_used, contexts, targets, self.eps)

    def nll(self, contexts: Tensor, targets: Tensor) -> Tensor:
        """Negative log-likelihood [N] in nats of ``targets`` [N], given contexts [T, B, H] or [N, H].

        Without gradients no more than a chunk of logits exists at a time. With them each token's loss may be used in
        any way and differentiated again, in the checkpointed form: :meth:`loss` is much the faster.
        """
        eps = self.eps if self.training else 0.0
        if not torch.is_grad_enabled():
            kernel = self._kernel(contexts)
            return self._one_pass("chunked" if kernel == "reference" else kernel, contexts, targets, eps)[1]
        latent, log_prior = self.mixture(contexts)
        return twice.mixture_nll(
            latent, log_prior, self.weight, self.bias, targets.reshape(-1), self.pointwise, eps, self._arithmetic()
        )

    def log_probs(self, contexts: Tensor) -> Tensor:
        """Log-probabilities [N, V] of every word, given contexts [T, B, H] or [N, H], in their dtype."""
        latent, log_prior = self.mixture(contexts)
        return distributions.mixture_log_probs(
            latent, log_prior, self.weight, self.bias, self.pointwise, self._arithmetic()
        )

    def log_prior(self, contexts: Tensor) -> Tensor:
        """Log weights [N, K] of a mixture's experts, given contexts [T, B, H] or [N, H]; a plain softmax has none."""
        assert self.prior is not None
        return functional.log_softmax(self.prior(contexts).view(-1, self.experts), dim=-1)

    def _arithmetic(self) -> Arithmetic:
        """What the recipe asks for in training; evaluation multiplies what it is given."""
        return self.arithmetic if self.training else "float32"

    def _kernel(self, contexts: Tensor) -> Kernel:
        return choose(self.kernel, contexts, self.pointwise, self.experts, self.weight.shape[0])

    def _projection(self, contexts: Tensor) -> Projection:
        """The projection with this pass's locked dropout: one mask for all time steps of [T, B, H]."""
        assert self.projection is not None
        mask = None
        if self.training and self.latent_dropout > 0.0:
            streams = contexts.shape[-2]
            mask = draw_mask((streams, self.projection.out_features), self.latent_dropout, contexts)
        bias = self.projection.bias
        return Projection(self.projection.weight, bias, self.experts, mask, 1.0 / (1.0 - self.latent_dropout))

    def _one_pass(
        self, kernel: Literal["chunked", "triton"], contexts: Tensor, targets: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        projection: Projection | None = None
        log_prior: Tensor | None
        if self._projects_in_chunks(contexts):
            latent = contexts.reshape(-1, contexts.shape[-1])
            log_prior = self.log_prior(contexts) if self.experts > 1 else None
            projection = self._projection(contexts)
        else:
            latent, log_prior = self.mixture(contexts)
        if kernel == "triton":
            # Imported where it is used: Triton is there only with a GPU build of torch.
            from suite.kernels import fused as form
        else:
            from suite.kernels import chunked as form  # type: ignore[no-redef]
        return form.mixture_nll(
            latent,
            log_prior,
            self.weight,
            self.bias,
            targets.reshape(-1),
            self.pointwise,
            eps=eps,
            arithmetic=self._arithmetic(),
            projection=projection,
            factor=self.loss_factor,
        )

    def _projects_in_chunks(self, contexts: Tensor) -> bool:
        """Whether the experts' contexts are made chunk by chunk: slower, and worth it where they are many."""
        if self.prior is None or self.mix_contexts:
            return False
        size = contexts.shape[:-1].numel() * self.experts * self.dimension * contexts.element_size()
        return size > PROJECTION_BYTES


class Softmax(Head):
    """One softmax, p = softmax(g(W h + b)); g is the identity unless said otherwise (sigsoftmax, gss, plif ...)."""

    def __init__(
        self,
        context_size: int,
        vocabulary: int,
        tied: nn.Parameter | None,
        *,
        dimension: PositiveInt | None = None,
        pointwise: PointwiseOption = "identity",
        bias: bool | Literal["unigram"] = True,
    ) -> None:
        super().__init__(context_size, vocabulary, tied, dimension=dimension, bias=bias, pointwise=pointwise)


class MixtureOfSoftmaxes(Head):
    """MoS, p = sum_k pi_k softmax(g(W tanh(P_k h) + b)) (Yang et al. 2018, eq. 3); defaults of the authors' code."""

    def __init__(
        self,
        context_size: int,
        vocabulary: int,
        tied: nn.Parameter | None,
        *,
        experts: PositiveInt = 10,
        dimension: PositiveInt | None = None,
        latent_dropout: Probability = 0.29,
        pointwise: PointwiseOption = "identity",
        bias: bool | Literal["unigram"] = True,
        eps: NonNegativeFloat = 0.0,
    ) -> None:
        super().__init__(
            context_size,
            vocabulary,
            tied,
            experts=experts,
            dimension=dimension,
            latent_dropout=latent_dropout,
            pointwise=pointwise,
            bias=bias,
            eps=eps,
        )


class MixtureOfContexts(MixtureOfSoftmaxes):
    """MoC, p = softmax(g(W sum_k pi_k tanh(P_k h) + b)): the parameters of MoS, the rank of a softmax."""

    mix_contexts = True
