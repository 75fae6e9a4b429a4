"""Dynamic evaluation against a loop over parameters written from the equations."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import VOCABULARY, stream, text_model
from stage_runs import context_of, run_in_pieces
from torch import Tensor

from suite.data.base import TextData
from suite.errors import Diverged, InputError
from suite.evaluation.dynamic import DynamicEvaluation
from suite.evaluation.perplexity import perplexity
from suite.models.encoders.lstm import AwdLstm
from suite.models.heads.head import Head, MixtureOfSoftmaxes, Softmax
from suite.models.language_model import LanguageModel
from suite.stages import RunContext

CPU = torch.device("cpu")


def text(train: int = 130, valid: int = 24, test: int = 36) -> TextData:
    return TextData(
        {"train": stream(train), "valid": stream(valid, seed=1), "test": stream(test, seed=2)}, VOCABULARY, {}
    )


def segment_loss(model: LanguageModel, inputs: Tensor, targets: Tensor, state: Any, eps: float) -> tuple[Tensor, Any]:
    """Mean of -log(p + eps), from the whole distributions."""
    encoded = model.encoder(inputs, state)
    log_p = model.head.log_probs(encoded.output)
    p = log_p.gather(1, targets.reshape(-1, 1)).exp()
    return -(p + eps).log().mean(), tuple(s.detach() for s in encoded.state)


def by_the_equations(
    model: LanguageModel,
    data: TextData,
    split: str,
    *,
    bptt: int,
    batch: int,
    lr: float,
    epsilon: float,
    lamb: float,
    mean: bool,
    decay: str,
    parameters: list[str] | None,
) -> float:
    """Nats a token; every parameter a case of its own."""
    model = copy.deepcopy(model).eval()
    eps, model.head.eps = model.head.eps, 0.0
    learned = {n: p for n, p in model.named_parameters() if parameters is None or n in parameters}
    ids = data.streams["train"]
    rows = len(ids) // batch
    columns = torch.from_numpy(ids[: rows * batch].reshape(batch, rows).T.copy()).long()
    squares = {n: torch.zeros_like(p) for n, p in learned.items()}
    state, steps = model.encoder.initial_state(batch, CPU), 0
    i = 0
    while i < rows - 2:
        length = min(bptt, rows - 1 - i)
        model.zero_grad()
        loss, state = segment_loss(model, columns[i : i + length], columns[i + 1 : i + 1 + length], state, eps)
        torch.autograd.backward(loss)
        for name, p in learned.items():
            assert p.grad is not None
            squares[name] += p.grad**2
        i, steps = i + length, steps + 1
    ms = {n: torch.sqrt(s / steps if mean else s) for n, s in squares.items()}
    if decay == "mean":
        norm = sum(float(m.sum()) for m in ms.values()) / sum(m.numel() for m in ms.values())
    else:
        norm = sum(float(m.mean()) for m in ms.values())
    rate = {n: torch.minimum(m / norm, torch.full_like(m, 1 / lamb)) for n, m in ms.items()}
    before = {n: p.detach().clone() for n, p in learned.items()}
    words = torch.from_numpy(data.streams[split].copy()).long().unsqueeze(1)  # type: ignore[index]
    state = model.encoder.initial_state(1, CPU)
    nats = 0.0
    for i in range(0, len(words) - 1, bptt):
        inputs, targets = words[i : min(i + bptt, len(words) - 1)], words[i + 1 : i + 1 + bptt]
        with torch.no_grad():
            # Before the weights have seen these words, by a copy that cannot learn.
            nats += float(segment_loss(copy.deepcopy(model), inputs, targets, state, 0.0)[0]) * len(inputs)
        model.zero_grad()
        loss, state = segment_loss(model, inputs, targets, state, eps)
        torch.autograd.backward(loss)
        with torch.no_grad():
            for name, p in learned.items():
                assert p.grad is not None
                p += lamb * rate[name] * (before[name] - p) - lr * p.grad / (ms[name] + epsilon)
    return nats / (len(words) - 1)


@pytest.mark.parametrize(
    ("head", "head_options", "options"),
    [
        (Softmax, {}, {}),
        (Softmax, {}, {"bptt": 3, "statistics_batch": 7, "mean": True, "epsilon": 0.05}),
        (MixtureOfSoftmaxes, {"experts": 3, "eps": 0.02, "latent_dropout": 0.5}, {"bptt": 4}),
        (MixtureOfSoftmaxes, {"experts": 2}, {"decay": "mean", "lamb": 0.6, "statistics_batch": 1}),
        (Softmax, {"pointwise": {"name": "plif", "knots": 20}}, {"lr": 0.05}),
        (Softmax, {}, {"parameters": "head", "lr": 0.1}),
        (Softmax, {}, {"parameters": "encoder", "lr": 0.1}),
    ],
)
def test_it_is_what_the_equations_say(
    tmp_path: Path, head: type[Head], head_options: dict[str, Any], options: dict[str, Any]
) -> None:
    model, data = text_model(head, **head_options), text()
    used = {"bptt": 5, "statistics_batch": 6, "lr": 0.02, "epsilon": 0.001, "lamb": 0.3, **options}
    found = DynamicEvaluation(**used).run(context_of(model, data, tmp_path), None)
    which = used.pop("parameters", "all")
    names = None if which == "all" else [n for n, _ in model.named_parameters() if n.startswith(which)]
    shared = {"mean": False, "decay": "sum-of-means", **used}
    shared["batch"] = shared.pop("statistics_batch")
    for split, tokens in (("valid", 23), ("test", 35)):
        expected = by_the_equations(model, data, split, parameters=names, **shared)
        assert found[split]["nll"] == pytest.approx(expected, rel=1e-9)
        assert found[split]["ppl"] == pytest.approx(math.exp(expected), rel=1e-9)
        assert found[split]["tokens"] == tokens
        static = perplexity(model, data.streams[split], 1, 5, CPU)["nll"]  # type: ignore[index]
        assert abs(found[split]["nll"] - static) > 1e-4, "it learned something"


def test_words_are_scored_before_they_are_learned_from(tmp_path: Path) -> None:
    """However far a step goes, it reaches only words of later segments."""
    model, data = text_model(Softmax), text(test=6)
    wild = DynamicEvaluation(lr=50.0, statistics_batch=6, splits=["test"])
    static = perplexity(model, data.streams["test"], 1, 5, CPU)["nll"]
    assert wild.run(context_of(model, data, tmp_path), None)["test"]["nll"] == pytest.approx(static, rel=1e-12)
    longer = text(test=7)
    np.testing.assert_array_equal(longer.streams["test"][:6], data.streams["test"])
    moved = wild.run(context_of(model, longer, tmp_path), None)["test"]["nll"] * 6 - static * 5
    untouched = perplexity(model, longer.streams["test"], 1, 5, CPU)["nll"] * 6 - static * 5
    assert moved != pytest.approx(untouched, rel=1e-3), "the lone last word is scored with the weights learned before"


@pytest.fixture
def single_precision() -> None:
    """The precision the AWD-LSTM is made for; the fixture of every test here puts it back."""
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("single_precision")
def test_a_tied_and_dropped_encoder_learns_without_noise(tmp_path: Path) -> None:
    one = DynamicEvaluation(statistics_batch=6, seed=1).run(context_of(awd(), text(), tmp_path), None)
    assert DynamicEvaluation(statistics_batch=6, seed=2).run(context_of(awd(), text(), tmp_path), None) == one


def awd() -> LanguageModel:
    torch.manual_seed(3)
    encoder = AwdLstm(VOCABULARY, embedding=4, hidden=[5, 4])
    return LanguageModel(encoder, MixtureOfSoftmaxes(4, VOCABULARY, encoder.output_weight, experts=2))


@pytest.mark.usefixtures("single_precision")
def test_the_official_leak_leaves_the_weight_drop_on(tmp_path: Path) -> None:
    def leaky(seed: int) -> Any:
        stage = DynamicEvaluation(statistics_batch=6, weight_drop_leak=True, seed=seed)
        return stage.run(context_of(awd(), text(), tmp_path), None)

    assert leaky(1) == leaky(1) != leaky(2)
    quiet = awd()
    quiet.encoder.weight_drop = 0.0  # type: ignore[assignment]
    clean = DynamicEvaluation(statistics_batch=6).run(context_of(awd(), text(), tmp_path), None)
    leaking_nothing = DynamicEvaluation(statistics_batch=6, weight_drop_leak=True)
    assert leaking_nothing.run(context_of(quiet, text(), tmp_path), None) == clean


@pytest.mark.usefixtures("single_precision")
@pytest.mark.parametrize("options", [{}, {"weight_drop_leak": True}])
@pytest.mark.parametrize("every", [1, 3, 7])
def test_stopped_anywhere_it_ends_as_if_it_never_was(tmp_path: Path, every: int, options: dict[str, Any]) -> None:
    def stage() -> DynamicEvaluation:
        return DynamicEvaluation(statistics_batch=6, **options)

    def context() -> RunContext:
        return context_of(awd(), text(), tmp_path)

    whole = stage().run(context(), None)
    pieces, _, stopped = run_in_pieces(stage, context, every)
    assert pieces == whole
    assert stopped > 0


def test_some_segments_are_enough_where_asked(tmp_path: Path) -> None:
    data = text()
    limited = DynamicEvaluation(statistics_batch=1, statistics_steps=3, splits=["test"])
    short = data.streams["train"][:16]
    cut = TextData({**data.streams, "train": short}, VOCABULARY, {})
    all_of_it = DynamicEvaluation(statistics_batch=1, splits=["test"])
    model = text_model(Softmax)
    found = limited.run(context_of(model, data, tmp_path), None)
    assert found == all_of_it.run(context_of(model, cut, tmp_path), None)
    assert found != all_of_it.run(context_of(model, data, tmp_path), None)


def test_what_cannot_work_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\Astage dynamic-evaluation: splits is empty; name valid, test or both\Z"):
        DynamicEvaluation(splits=[])
    context = context_of(text_model(), text(), tmp_path)
    message = r"\Astage dynamic-evaluation: weight_drop_leak: the encoder has no weight drop to leave on\Z"
    with pytest.raises(InputError, match=message):
        DynamicEvaluation(weight_drop_leak=True).run(context, None)
    frozen = text_model()
    for parameter in frozen.head.parameters():
        parameter.requires_grad_(False)
    message = r"\Astage dynamic-evaluation: parameters: head has nothing that can be trained\Z"
    with pytest.raises(InputError, match=message):
        DynamicEvaluation(parameters="head").run(context_of(frozen, text(), tmp_path), None)


def test_a_loss_that_is_no_number_is_a_divergence(tmp_path: Path) -> None:
    broken = text_model(Softmax)
    with torch.no_grad():
        broken.head.weight.fill_(float("nan"))
    message = r"\Athe gradient statistics of the training set are not finite and positive numbers\Z"
    with pytest.raises(Diverged, match=message):
        DynamicEvaluation(statistics_batch=6).run(context_of(broken, text(), tmp_path), None)
    # Times a gradient over its mean, no float64: 1e200 was still one on some processors.
    wild = DynamicEvaluation(statistics_batch=6, lr=1e308, splits=["test"])
    with pytest.raises(Diverged, match=r"\Athe loss is not a finite number within the first 35 tokens\Z"):
        wild.run(context_of(text_model(Softmax), text(), tmp_path), None)
