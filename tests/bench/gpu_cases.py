"""What ``gpu.py`` times: shapes, the forms of the loss, their peers, and the sweeps of the kernels' constants."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from suite.kernels import chunked, fused, reference
from suite.kernels.arithmetic import Products
from suite.kernels.projection import Projection, expert_contexts
from suite.kernels.tuning import Tuning
from suite.models.heads.learnable import MonotonicNetwork, Plif
from suite.models.heads.pointwise import GeneralizedSigsoftmax, Identity, Pointwise, Sigsoftmax

# contexts N, experts K, dimension d, words V
SHAPES = {
    "ptb": (840, 15, 280, 10_000),
    "ptb, one softmax": (840, 1, 400, 10_000),
    "large": (4096, 10, 512, 33_278),
    "large, one softmax": (4096, 1, 512, 33_278),
    "1b-word": (1050, 7, 900, 793_471),
}
MIB = 2**20
HALF = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class Case(NamedTuple):
    """One form in one arithmetic; ``step`` is a forward and a backward pass."""

    form: str
    arithmetic: str
    step: Callable[[], Any]
    capture: bool = True


class Inputs(NamedTuple):
    """The tensors of a shape, leaves but for the targets."""

    contexts: Tensor
    log_prior: Tensor | None
    weight: Tensor
    bias: Tensor
    targets: Tensor

    @classmethod
    def random(cls, tokens: int, experts: int, size: int, words: int) -> Inputs:
        """Contexts in (-1, 1), weights as they start out."""
        torch.manual_seed(0)
        prior = torch.log_softmax(torch.randn(tokens, experts, device="cuda"), -1).requires_grad_()
        return cls(
            torch.tanh(torch.randn(tokens, experts, size, device="cuda")).requires_grad_(),
            prior if experts > 1 else None,
            (torch.rand(words, size, device="cuda") * 0.2 - 0.1).requires_grad_(),
            torch.zeros(words, device="cuda").requires_grad_(),
            torch.randint(words, (tokens,), device="cuda"),
        )

    def sizes(self) -> dict[str, int]:
        """N, K, d and V."""
        return dict(zip("NKdV", (*self.contexts.shape, self.weight.shape[0]), strict=True))

    def leaves(self) -> list[Tensor]:
        """What is differentiated by."""
        return [t for t in (self.contexts, self.log_prior, self.weight, self.bias) if t is not None]

    def differentiated(self, loss: Callable[[], Tensor], *more: Tensor) -> Callable[[], Any]:
        """A step: the loss and its gradients."""
        return lambda: torch.autograd.grad(loss(), [*self.leaves(), *more])


def cases(shape: str, x: Inputs) -> Iterator[Case]:
    """Every form that is timed at a shape."""
    if shape == "1b-word":
        for arithmetic in ("bfloat16", "float16"):
            yield one_pass(x, Identity(), arithmetic)
        yield one_pass(x, Sigsoftmax(), "bfloat16")
        return
    experts = x.contexts.shape[1]
    arithmetics = ("tf32", "bfloat16") if shape != "large" else ("bfloat16",)
    for arithmetic in arithmetics:
        yield peer(x, "three products alone", arithmetic, products_alone(x, arithmetic))
        if experts > 1:
            yield loss_case(x, "materialised, as published", arithmetic, lambda: published(x))
            yield loss_case(x, "materialised", arithmetic, lambda: materialised(x))
        else:
            yield loss_case(x, "torch cross_entropy", arithmetic, lambda: cross_entropy(x))
    if experts > 1:
        yield loss_case(x, "materialised, torch.compile", "bfloat16", torch.compile(lambda: materialised(x)))
    if importlib.util.find_spec("cut_cross_entropy") and experts == 1:
        yield cut_cross_entropy(x)
    for arithmetic in ("tf32", "bfloat16", "float16"):
        yield one_pass(x, Identity(), arithmetic)
        yield one_pass(x, Sigsoftmax(), arithmetic)
    yield one_pass(x, Identity(), "float16", ", float16 logits", Tuning(wide_logits=False))
    yield one_pass(x, Identity(), "tf32", ", TF32 gradients", Tuning(half_gradients=False))
    yield one_pass(x, Plif().cuda(), "tf32")
    if shape == "ptb":
        yield one_pass(x, Plif().cuda(), "bfloat16")
        yield one_pass(x, Plif(deterministic=True).cuda(), "tf32", ", deterministic")
        yield one_pass(x, Plif(frozen=True).cuda(), "tf32", ", frozen")
        yield one_pass(x, GeneralizedSigsoftmax(k=2.5), "tf32")
        yield one_pass(x, MonotonicNetwork().cuda(), "tf32")
        yield torch_rows(x, Identity())
        for arithmetic in ("tf32", "bfloat16"):
            for inside in (False, True):
                yield projected(x, arithmetic, inside)
    elif shape == "large":
        for inside in (False, True):
            yield projected(x, "bfloat16", inside)


def one_pass(x: Inputs, g: Pointwise, arithmetic: str, note: str = "", tuning: Tuning | None = None) -> Case:
    """The Triton form."""

    def loss() -> Tensor:
        return fused.mixture_nll(*x, g, arithmetic=arithmetic, tuning=tuning)[0]  # type: ignore[arg-type]

    named = "" if isinstance(g, Identity) else f", {type(g).__name__}"
    learned = [p for p in g.parameters() if p.requires_grad]
    # The last shape is for its memory alone; a captured pool beside it would say nothing more.
    return Case(f"one pass{named}{note}", arithmetic, x.differentiated(loss, *learned), x.weight.shape[0] < 500_000)


def torch_rows(x: Inputs, g: Pointwise) -> Case:
    """The one-pass form in plain torch."""
    return Case("one pass in torch", "tf32", x.differentiated(lambda: chunked.mixture_nll(*x, g)[0]))


def projected(x: Inputs, arithmetic: str, inside: bool) -> Case:
    """With the experts' projection from contexts of size 620, in the loop or before it."""
    tokens, experts, size = x.contexts.shape
    source = torch.randn(tokens, 620, device="cuda").requires_grad_()
    weight = (torch.randn(experts * size, 620, device="cuda") * 0.02).requires_grad_()
    bias = torch.zeros(experts * size, device="cuda").requires_grad_()
    mask = torch.bernoulli(torch.full((12 if tokens % 12 == 0 else 16, experts * size), 0.7, device="cuda"))
    leaves = [source, weight, bias, *x.leaves()[1:]]

    def step() -> Any:
        made = Projection(weight, bias, experts, mask, 1 / 0.7)
        latent = source if inside else expert_contexts(source, made, arithmetic)  # type: ignore[arg-type]
        loss, _ = fused.mixture_nll(
            latent,
            *x[1:],
            Identity(),
            arithmetic=arithmetic,
            projection=made if inside else None,  # type: ignore[arg-type]
        )
        return torch.autograd.grad(loss, leaves)

    return Case(f"projection {'in the loop' if inside else 'before'}, one pass", arithmetic, step)


def peer(x: Inputs, form: str, arithmetic: str, step: Callable[[], Any]) -> Case:
    """Something that is not a loss."""
    return Case(form, arithmetic, step)


def loss_case(x: Inputs, form: str, arithmetic: str, loss: Callable[[], Tensor]) -> Case:
    """A loss in plain torch, half precision by torch's autocast."""
    if arithmetic not in HALF:
        return Case(form, arithmetic, x.differentiated(loss))

    def cast() -> Tensor:
        with torch.autocast("cuda", HALF[arithmetic], cache_enabled=False):
            return loss()

    return Case(form, arithmetic, x.differentiated(cast))


def materialised(x: Inputs) -> Tensor:
    """The log-sum-exp form with every logit at once."""
    return reference.mixture_nll(*x, Identity()).mean()


def published(x: Inputs) -> Tensor:
    """As the official code of MoS writes it: probabilities, their sum, its logarithm."""
    assert x.log_prior is not None
    probability = torch.softmax(functional.linear(x.contexts, x.weight, x.bias), -1)
    mixed = (x.log_prior.exp().unsqueeze(2) * probability).sum(1)
    return functional.nll_loss(mixed.add(1e-8).log(), x.targets)


def cross_entropy(x: Inputs) -> Tensor:
    """One softmax, in torch's own words."""
    return functional.cross_entropy(functional.linear(x.contexts.squeeze(1), x.weight, x.bias).float(), x.targets)


def cut_cross_entropy(x: Inputs) -> Case:
    """apple/ml-cross-entropy, which takes half precision only."""
    from cut_cross_entropy import linear_cross_entropy

    def loss() -> Tensor:
        half = x.contexts.squeeze(1).bfloat16(), x.weight.bfloat16()
        return linear_cross_entropy(*half, x.targets, bias=x.bias.bfloat16())

    return Case("cut-cross-entropy", "bfloat16", x.differentiated(loss), capture=False)


def products_alone(x: Inputs, arithmetic: str) -> Callable[[], Any]:
    """The three matrix products at once, on operands that are there already: a floor."""
    products = Products(arithmetic, x.weight)  # type: ignore[arg-type]
    latent, weight = products.operand(x.contexts.detach().flatten(0, 1)), products.operand(x.weight.detach())
    logits = torch.empty(latent.shape[0], weight.shape[0], dtype=weight.dtype, device="cuda")
    of_latent = torch.empty_like(latent)
    of_weight = torch.empty_like(x.weight)

    def step() -> None:
        torch.mm(latent, weight.t(), out=logits)
        torch.mm(logits, weight, out=of_latent)
        products.multiply(logits.t(), latent, of_weight)

    return step


def plif_forms(x: Inputs, arithmetic: str) -> Iterator[Case]:
    """PLIF with its look-ups and sums in shared memory or not, between the identity and slopes that have no sums."""
    plif, frozen, there = Plif().cuda(), Plif(frozen=True).cuda(), Tuning(cuda_from=0)
    by_triton = there._replace(looked_up=0)
    yield one_pass(x, Identity(), arithmetic)
    yield one_pass(x, frozen, arithmetic, ", frozen", there)
    yield one_pass(x, frozen, arithmetic, ", frozen, looked up by Triton", by_triton)
    yield one_pass(x, plif, arithmetic, ", looked up by Triton", by_triton)
    yield one_pass(x, plif, arithmetic, ", global atomics", Tuning(window=0))
    yield one_pass(x, Plif(deterministic=True).cuda(), arithmetic, ", global, deterministic", Tuning(window=0))
    for window in (12_288, 20_480, 28_672):
        yield one_pass(x, plif, arithmetic, f", sums of {window}", there._replace(window=window))
    for pieces in (2_048, 4_096, 8_192, 12_288, 20_480, 28_672):
        yield one_pass(x, plif, arithmetic, f", {pieces} looked up", there._replace(looked_up=pieces))
    for tuning, note in ((there, ""), (by_triton, ", looked up by Triton")):
        for factor in (0.5, 0.75, 1.5, 2.0):
            size = tuple(int(factor * size) for size in Tuning().chunk_bytes)
            chunks = tuning._replace(chunk_bytes=size)  # type: ignore[arg-type]
            yield one_pass(x, plif, arithmetic, f", chunks {factor:g} times as large{note}", chunks)
    for tile in (1024, 4096):
        tiles = by_triton._replace(statistics_tile=tile, gradient_tile=tile)
        yield one_pass(x, plif, arithmetic, f", looked up by Triton, tile {tile}", tiles)


def tiles(x: Inputs, g: Pointwise, arithmetic: str) -> Iterator[Case]:
    """Shapes of the row kernels' tiles, and how far they are loaded ahead."""
    for tile, rows, warps in ((1024, 2, 2), (2048, 2, 4), (2048, 4, 4), (4096, 4, 4)):
        for programs in (500, 1000):
            tuning = Tuning(statistics_tile=tile, gradient_tile=tile, rows=rows, warps=warps, programs=programs)
            yield one_pass(x, g, arithmetic, f", tile {tile}, {rows} rows, {warps} warps, {programs} programs", tuning)
    for stages in (1, 2, 4):
        yield one_pass(x, g, arithmetic, f", {stages} stages", Tuning(stages=stages))


def sweeps() -> Iterator[tuple[str, Inputs, list[Case]]]:
    """(title, inputs, cases) of each sweep."""
    x = Inputs.random(*SHAPES["ptb"])
    for arithmetic in ("tf32", "bfloat16", "float16"):
        budgets = (8, 16, 24, 32, 48, 64, 80, 104, 128, 192)
        yield (
            f"chunk budgets, {arithmetic}",
            x,
            [
                one_pass(x, Identity(), arithmetic, f", {mib} MiB", Tuning(chunk_bytes=(mib * MIB,) * 3))
                for mib in budgets
            ],
        )
    for arithmetic in ("tf32", "bfloat16"):
        yield f"tiles, {arithmetic}", x, [case for g in (Identity(), Sigsoftmax()) for case in tiles(x, g, arithmetic)]
    for arithmetic in ("tf32", "bfloat16"):
        yield f"PLIF, {arithmetic}", x, list(plif_forms(x, arithmetic))
    one = Inputs.random(1400, 1, 400, 10_000)
    for arithmetic in ("tf32", "bfloat16"):
        yield f"PLIF, one softmax, {arithmetic}", one, list(plif_forms(one, arithmetic))
    few = Inputs.random(140, 1, 400, 10_000)
    yield "PLIF, few logits", few, list(plif_forms(few, "tf32"))
    wide = Inputs.random(1050, 15, 300, 33_278)
    for arithmetic in ("float16", "bfloat16"):
        yield (
            f"WikiText-2, {arithmetic}",
            wide,
            [
                one_pass(wide, Identity(), arithmetic, f", {mib} MiB", Tuning((mib * MIB,) * 3, large_bytes=0))
                for mib in (72, 112, 160, 240)
            ],
        )
    y = Inputs.random(*SHAPES["large"])
    large = [(64, 2048, 4), (128, 2048, 4), (192, 2048, 4), (256, 2048, 4), (128, 4096, 4)]
    yield (
        "large, bfloat16",
        y,
        [
            one_pass(y, Identity(), "bfloat16", f", {mib} MiB, tile {tile}", tuning)
            for mib, tile, rows in large
            for tuning in [Tuning((mib * MIB,) * 3, large_bytes=0, statistics_tile=tile, gradient_tile=tile, rows=rows)]
        ],
    )
