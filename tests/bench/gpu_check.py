"""Errors of the fused loss on a GPU against the float64 truth, beside the reference's own: ``gpu.py --check``.

A fast form passes where its error is no larger than that of the reference in the same arithmetic (or, in half
precision, of the reference under torch's autocast, whose logits are rounded too; in TF32, of exact products of rounded
factors), with a small allowance.
"""

from __future__ import annotations

from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor

from suite.kernels import chunked, fused, pieces, reference
from suite.kernels.projection import Projection, expert_contexts
from suite.kernels.tuning import Tuning
from suite.models.heads.learnable import MonotonicNetwork, Plif
from suite.models.heads.pointwise import GeneralizedSigsoftmax, Identity, Pointwise, Sigsoftmax

TOKENS, SIZE, WORDS = 96, 75, 1003
ALLOWANCE, FLOOR = 1.5, 3e-6
# A logit that rounding carries over a knot takes the slope beyond it. Whether that happens in a draw is chance: the
# reference's own error in TF32 is 3e-4 without one and 2e-2 with some.
CROSSING = 2e-2
FUNCTIONS: dict[str, Any] = {
    "identity": Identity,
    "sigsoftmax": Sigsoftmax,
    "gss": lambda: GeneralizedSigsoftmax(c=-1.0, k=2.5),
    "plif": lambda: Plif(knots=2000, slope_std=0.2),
    "plif, deterministic": lambda: Plif(knots=2000, slope_std=0.2, deterministic=True),
    "plif, frozen": lambda: Plif(knots=2000, slope_std=0.2, frozen=True),
    "network": lambda: MonotonicNetwork(units=20, bound=4.0),
}
COUNTED = Tuning(cuda_from=0)
BY_TRITON = COUNTED._replace(looked_up=0)
HALF = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def problem(g: Pointwise, experts: int, bias: bool, weighted: bool) -> tuple[list[Tensor | None], Tensor]:
    """Contexts, log prior, weight, bias, row weights (leaves), and the targets."""
    torch.manual_seed(experts)

    def leaf(value: Tensor) -> Tensor:
        return value.cuda().requires_grad_()

    prior = leaf(torch.log_softmax(torch.randn(TOKENS, experts), -1)) if experts > 1 else None
    tensors = [
        leaf(torch.tanh(torch.randn(TOKENS, experts, SIZE))),
        prior,
        leaf(torch.randn(WORDS, SIZE) * 0.4),
        leaf(torch.randn(WORDS)) if bias else None,
        leaf(torch.rand(TOKENS) + 0.1) if weighted else None,
    ]
    return tensors, torch.randint(WORDS, (TOKENS,)).cuda()


def results(loss: Tensor, tensors: list[Tensor | None], g: Pointwise) -> list[Tensor]:
    """The loss and its gradients."""
    leaves = [t for t in tensors if t is not None] + [p for p in g.parameters() if p.requires_grad]
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


def plain(tensors: list[Tensor | None], targets: Tensor, g: Pointwise, eps: float, arithmetic: Any) -> list[Tensor]:
    """By the reference."""
    contexts, prior, weight, bias, share = tensors
    nll = reference.mixture_nll(contexts, prior, weight, bias, targets, g, eps, arithmetic)  # type: ignore[arg-type]
    return results(nll.mean() if share is None else (share * nll).sum(), tensors, g)


def to_tf32(value: Tensor) -> Tensor:
    """The nearest numbers of 10 bits after the point, in float64."""
    bits = value.float().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32).double()


class RoundedProduct(torch.autograd.Function):
    """x w^T of factors rounded to TF32, and its gradients likewise, exact but for that.

    cuBLAS takes TF32 only where rows begin at multiples of 16 bytes, so what it makes of these sizes is part of it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        """[N, K, d] by [V, d] to [N, K, V]."""
        ctx.save_for_backward(x, w)
        return to_tf32(x) @ to_tf32(w).T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        """By both factors."""
        by_product, x, w = map(to_tf32, (*gradients, *ctx.saved_tensors))
        return by_product @ w, by_product.flatten(0, 1).T @ x.flatten(0, 1)


def in_tf32(tensors: list[Tensor | None], targets: Tensor, g: Pointwise, eps: float) -> list[Tensor]:
    """As :func:`plain` of float64 tensors, with the products' factors rounded to TF32."""
    contexts, prior, weight, bias, share = tensors
    logits = RoundedProduct.apply(contexts, weight) + (0.0 if bias is None else bias)  # type: ignore[no-untyped-call]
    nll = reference.mixture_nll(contexts, prior, weight, None, targets, lambda _: g(logits), eps)  # type: ignore[arg-type]
    return results(nll.mean() if share is None else (share * nll).sum(), tensors, g)


def error(found: list[Tensor], truth: list[Tensor]) -> float:
    """The largest relative error, by norm, of loss and gradients."""
    pairs = zip(found, truth, strict=True)
    return max(((a.double() - b).norm() / b.norm().clamp_min(1e-30)).item() for a, b in pairs)


def one(name: str, experts: int, bias: bool, eps: float, weighted: bool, arithmetic: str) -> list[dict[str, Any]]:
    """Errors of every form for one combination."""
    torch.backends.cuda.matmul.allow_tf32 = arithmetic == "tf32"
    torch.manual_seed(1)
    g: Pointwise = FUNCTIONS[name]().cuda()
    tensors, targets = problem(g, experts, bias, weighted)
    wide = [None if t is None else t.detach().double().requires_grad_() for t in tensors]
    g.double()
    truth = plain(wide, targets, g, eps, "float32")
    rounding = error(in_tf32(wide, targets, g, eps), truth) if arithmetic == "tf32" else 0.0
    g.float()
    peers = [max(rounding, error(plain(tensors, targets, g, eps, arithmetic), truth))]
    if arithmetic in HALF:
        with torch.autocast("cuda", HALF[arithmetic]):
            peers.append(error(plain(tensors, targets, g, eps, "float32"), truth))
    contexts, prior, weight, offset, share = tensors
    arguments = (contexts, prior, weight, offset, targets, g, share, eps, 10 * experts * WORDS * 4, arithmetic)
    forms: dict[str, Any] = {"triton": fused.mixture_nll}
    if arithmetic == "float16":
        forms["triton, float16 logits"] = lambda *a: fused.mixture_nll(*a, None, Tuning(wide_logits=False))
    if arithmetic == "tf32":
        forms["triton, TF32 gradients"] = lambda *a: fused.mixture_nll(*a, None, Tuning(half_gradients=False))
    if name.startswith("plif"):  # the others at this size are by global atomics
        forms["triton, knots in shared memory"] = lambda *a: fused.mixture_nll(*a, None, COUNTED)
        few = COUNTED._replace(window=128, looked_up=128)
        forms["triton, some knots there"] = lambda *a: fused.mixture_nll(*a, None, few)
        forms["triton, knots in shared memory but for look-ups"] = lambda *a: fused.mixture_nll(*a, None, BY_TRITON)
    if name == "plif":
        forms["triton, scalar atomics"] = lambda *a: fused.mixture_nll(*a, None, Tuning(vector_atomics=False, copies=4))
    if name == "identity":
        forms["chunked"] = chunked.mixture_nll
    rows = []
    for form, loss in forms.items():
        found = error(results(loss(*arguments)[0], tensors, g), truth)
        rounded = arithmetic == "bfloat16" or "float16 logits" in form
        allowed = ALLOWANCE * (max(peers) if rounded else peers[0]) + FLOOR
        if isinstance(g, Plif) and arithmetic != "float32":
            allowed = max(allowed, CROSSING)
        rows.append(
            {
                "g": name,
                "K": experts,
                "bias": bias,
                "eps": eps,
                "weights": weighted,
                "arithmetic": arithmetic,
                "form": form,
                "error": found,
                "reference": peers[0],
                "autocast": peers[1] if len(peers) > 1 else None,
                "verdict": "ok" if found <= allowed else "TOO LARGE",
            }
        )
    return rows


def projected(arithmetic: str) -> dict[str, Any]:
    """The expert projection inside the chunks beside the same outside."""
    torch.backends.cuda.matmul.allow_tf32 = arithmetic == "tf32"
    torch.manual_seed(3)
    contexts, weight = torch.randn(TOKENS, 40).cuda(), torch.randn(WORDS, SIZE).cuda() * 0.4
    made = torch.randn(3 * SIZE, 40).cuda() * 0.2, torch.randn(3 * SIZE).cuda()
    prior = torch.log_softmax(torch.randn(TOKENS, 3), -1).cuda()
    mask, targets = torch.bernoulli(torch.full((12, 3 * SIZE), 0.7)).cuda(), torch.randint(WORDS, (TOKENS,)).cuda()

    def run(dtype: torch.dtype, form: Any, inside: bool) -> list[Tensor]:
        leaves = [t.to(dtype).requires_grad_() for t in (contexts, weight, *made)]
        x, w, p, b = leaves
        projection = Projection(p, b, 3, mask.to(dtype), 1 / 0.7)
        kind = "float32" if dtype is torch.float64 else arithmetic
        if inside:
            budget = 10 * 3 * WORDS * 4
            loss = form(x, prior, w, None, targets, Identity(), None, 0.0, budget, kind, projection)[0]
        else:
            latent = expert_contexts(x, projection, kind)  # type: ignore[arg-type]
            loss = reference.mixture_nll(latent, prior.to(dtype), w, None, targets, Identity(), 0.0, kind).mean()  # type: ignore[arg-type]
        return [loss.detach(), *torch.autograd.grad(loss, leaves)]

    truth = run(torch.float64, None, False)
    own, found = (
        error(run(torch.float32, None, False), truth),
        error(run(torch.float32, fused.mixture_nll, True), truth),
    )
    allowed = (4.0 if arithmetic == "bfloat16" else ALLOWANCE) * own + FLOOR
    verdict = "ok" if found <= allowed else "TOO LARGE"
    return {"g": "identity", "K": 3, "arithmetic": arithmetic, "form": "projection in the loop", "error": found} | {
        "reference": own,
        "verdict": verdict,
    }


def full_size(arithmetic: str, spread: float, seed: int) -> tuple[Plif, list[Tensor], Tensor]:
    """A PLIF of 100,000 knots with bound 20 and a mixture's tensors, the logits' standard deviation ``spread``."""
    torch.backends.cuda.matmul.allow_tf32 = arithmetic == "tf32"
    torch.manual_seed(seed)
    g = Plif().cuda()
    tensors, targets = problem(g, 15, True, True)
    made = [tensor for tensor in tensors if tensor is not None]
    assert len(made) == len(tensors)
    with torch.no_grad():
        made[2] *= spread / (0.4 * (0.39 * SIZE) ** 0.5)
    return g, made, targets


def counted(arithmetic: str, spread: float) -> dict[str, Any]:
    """PLIF's sums at full size in shared memory beside those by global atomics, a third of the tokens weightless.

    One chunk, so that both have the same logits; ``spread``: see :func:`full_size`.
    """
    g, (*tensors, share), targets = full_size(arithmetic, spread, 4)
    with torch.no_grad():
        share[::3] = 0.0

    def slopes(tuning: Tuning) -> Tensor:
        arguments = (*tensors, targets, g, share, 0.0, 10**9, arithmetic, None, tuning)
        return torch.autograd.grad(fused.mixture_nll(*arguments)[0], g.raw_slopes)[0]  # type: ignore[arg-type]

    found = error([slopes(COUNTED)], [slopes(Tuning(window=0)).double()])
    # In float32 a distance from a knot, in lengths of a piece, is exact to 2e-3 here; and these sums are taken of the
    # rounded gradient by z, the others of that by t before it is rounded.
    allowed = {"float32": 2e-4, "tf32": 1e-3, "float16": 1e-3, "bfloat16": 8e-3}[arithmetic]
    return {
        "g": "plif, 100,000 knots",
        "K": 15,
        "weights": True,
        "arithmetic": arithmetic,
        "form": f"knots in shared memory beside global, logits +-{spread:g}",
        "error": found,
        "verdict": "ok" if found <= allowed else "TOO LARGE",
    }


def looked_up(arithmetic: str, spread: float, window: int) -> dict[str, Any]:
    """PLIF's look-ups at full size in shared memory beside Triton's: the loss, its gradients, and no number as such.

    ``spread``: see :func:`full_size`. Two words have no probability, and one context is NaN.
    """
    g, tensors, targets = full_size(arithmetic, spread, 6)
    contexts, prior, weight, bias, share = tensors
    with torch.no_grad():
        bias[7] = bias[WORDS - 1] = -float("inf")
        targets[targets == 7] = 8
        targets[targets == WORDS - 1] = 9

    def losses(tuning: Tuning) -> tuple[Tensor, Tensor]:
        arguments = (contexts, prior, weight, bias, targets, g, share, 0.0, 10**6, arithmetic, None, tuning)
        return fused.mixture_nll(*arguments)  # type: ignore[arg-type]

    def made(tuning: Tuning) -> list[Tensor]:
        return results(losses(tuning)[0], tensors, g)  # type: ignore[arg-type]

    chosen = COUNTED._replace(looked_up=window)
    found = error(made(chosen), [t.double() for t in made(BY_TRITON)])
    with torch.no_grad():
        contexts[5, 3, 2] = float("nan")
        nan = [torch.isnan(losses(tuning)[1]) for tuning in (chosen, BY_TRITON)]
    # A half-precision gradient that lies between two numbers goes to either.
    allowed = {"float32": 2e-5, "tf32": 1e-4, "float16": 1e-4, "bfloat16": 1e-3}[arithmetic]
    same = torch.equal(*nan) and bool(nan[0][5]) and int(nan[0].sum()) == 1
    return {
        "g": "plif, 100,000 knots",
        "K": 15,
        "bias": True,
        "weights": True,
        "arithmetic": arithmetic,
        "form": f"{window} pieces looked up there beside Triton, logits +-{spread:g}",
        "error": found,
        "verdict": "NAN ELSEWHERE" if not same else "ok" if found <= allowed else "TOO LARGE",
    }


def repeats(deterministic: bool, tuning: Tuning) -> dict[str, Any]:
    """Whether the sums of PLIF's knots repeat bit for bit, replays of a graph among them."""
    torch.backends.cuda.matmul.allow_tf32 = False
    g = Plif(knots=500, deterministic=deterministic).cuda()
    tensors, targets = problem(g, 15, True, False)

    def step() -> Tensor:
        loss, _ = fused.mixture_nll(*tensors[:4], targets, g, chunk_bytes=10**6, tuning=tuning)  # type: ignore[arg-type]
        return torch.autograd.grad(loss, g.raw_slopes)[0]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        found = [step().clone() for _ in range(3)]
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = step()
    replayed = []
    for _ in range(2):
        graph.replay()
        replayed.append(out.clone())
    graph.reset()
    same = all(torch.equal(found[0], other) for other in found[1:]) and torch.equal(*replayed)
    # cuBLAS may take another algorithm in a graph.
    close = error([replayed[0]], [found[0].double()]) < 1e-4
    blocks, shared = pieces.limits(torch.device("cuda"))
    where = f"shared memory, {blocks} blocks of at most {shared} bytes" if tuning.window else "global memory"
    where += ", looked up there" if tuning.window and tuning.looked_up else ", looked up by Triton"
    return {
        "g": "plif, deterministic" if deterministic else "plif",
        "form": f"repeats bit for bit, in {where}",
        "verdict": "ok" if same and close else "DIFFERS" if close else "GRAPH DIFFERS",
    }


def check() -> bool:
    """Print the table of errors; whether every one is within its bound."""
    rows: list[dict[str, Any]] = []
    for arithmetic in ("float32", "tf32", "float16", "bfloat16"):
        cases = [(name, 15, True, 0.0, False) for name in FUNCTIONS]
        cases += [("identity", 1, True, 0.0, False), ("identity", 2, False, 1e-2, True), ("plif", 2, True, 1e-2, True)]
        cases += [("sigsoftmax", 1, False, 0.0, True), ("plif, deterministic", 1, False, 0.0, True)]
        for name, *rest in cases:
            try:
                rows += one(name, *rest, arithmetic)  # type: ignore[arg-type]
            except Exception as failure:
                message = f"{type(failure).__name__}: {failure}".splitlines()[0][:160]
                rows.append({"g": name, "K": rest[0], "arithmetic": arithmetic, "verdict": message})
        rows.append(_tried(lambda arithmetic=arithmetic: projected(arithmetic)))  # type: ignore[misc]
        for spread in (1.0, 15.0):
            rows.append(_tried(lambda arithmetic=arithmetic, spread=spread: counted(arithmetic, spread)))  # type: ignore[misc]
        for spread, window in ((1.0, 28_672), (15.0, 28_672), (1.0, 1024)):
            rows.append(_tried(lambda a=arithmetic, s=spread, w=window: looked_up(a, s, w)))  # type: ignore[misc]
    rows.append(_tried(lambda: repeats(True, Tuning(window=0))))
    for deterministic in (False, True):
        for tuning in (COUNTED, BY_TRITON):
            rows.append(_tried(lambda d=deterministic, t=tuning: repeats(d, t)))  # type: ignore[misc]
    print(tabulate(rows, headers="keys", floatfmt=".2e"), flush=True)
    wrong = [row for row in rows if row["verdict"] != "ok"]
    print(f"{len(rows)} checks, {len(wrong)} wrong", flush=True)
    return not wrong


def _tried(test: Any) -> dict[str, Any]:
    try:
        row: dict[str, Any] = test()
    except Exception as failure:
        row = {"form": "extra", "verdict": f"{type(failure).__name__}: {failure}".splitlines()[0][:160]}
    return row
