"""Published parameter counts, and what every encoder must do."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from suite.errors import InputError
from suite.models.dropout import locked_dropout, word_dropout_embedding
from suite.models.encoders.base import Encoder
from suite.models.encoders.lstm import AwdLstm
from suite.models.language_model import LanguageModel
from suite.spec.components import create, names

V = 30
TEXT_ENCODERS = [name for name in names("encoder") if name != "table"]
SMALL: dict[str, dict[str, Any]] = {
    "awd-lstm": {"embedding": 8, "hidden": [12, 8]},
    "lstm": {"embedding": 8, "hidden": [12, 8]},
    "transformer": {"width": 8, "layers": 2, "attention_heads": 2, "feedforward": 16},
}


def encoder(name: str, **options: Any) -> Encoder:
    torch.manual_seed(0)
    made: Encoder = create("encoder", {"name": name, **SMALL.get(name, {}), **options}, V, None)
    return made.double()


@pytest.mark.parametrize(
    ("vocabulary", "encoder_options", "head", "published"),
    [
        (10_000, {"embedding": 280, "hidden": [960, 960, 620]}, {"name": "mos", "experts": 15}, 21_500_620),
        (33_278, {"embedding": 300, "hidden": [1150, 1150, 650]}, {"name": "mos", "experts": 15}, 34_909_528),
        (10_000, {"embedding": 400, "hidden": [1150, 1150, 400]}, {"name": "softmax"}, 24_221_600),
        (33_278, {"embedding": 400, "hidden": [1150, 1150, 400]}, {"name": "softmax"}, 33_556_078),
        # the same layers, sizes and parameters (Yang et al. 2018, table 5)
        (10_000, {"embedding": 280, "hidden": [960, 960, 620]}, {"name": "moc", "experts": 15}, 21_500_620),
        # one parameter a knot (Parthiban et al. 2021, table 2: 24.32M)
        (10_000, {"embedding": 400, "hidden": [1150, 1150, 400]}, {"name": "softmax", "pointwise": "plif"}, 24_321_600),
    ],
)
def test_parameter_counts_are_the_published_ones(
    vocabulary: int, encoder_options: dict[str, Any], head: dict[str, Any], published: int
) -> None:
    with torch.device("meta"):
        built: Encoder = create("encoder", {"name": "awd-lstm", **encoder_options}, vocabulary, None)
        model = LanguageModel(built, create("head", head, built.context_size, vocabulary, built.output_weight))
    assert model.parameter_count() == published


@pytest.mark.parametrize("name", TEXT_ENCODERS)
def test_encoders_are_causal(name: str) -> None:
    built = encoder(name).eval()
    tokens = torch.randint(V, (9, 3))
    changed = tokens.clone()
    changed[5:] = (changed[5:] + 1) % V
    state = tuple(s.double() for s in built.initial_state(3, tokens.device))
    before, after = built(tokens, state).output, built(changed, state).output
    torch.testing.assert_close(before[:5], after[:5], rtol=0, atol=1e-12)
    assert (before[5:] - after[5:]).abs().max() > 1e-6


@pytest.mark.parametrize("name", TEXT_ENCODERS)
def test_encoders_without_training_are_deterministic_and_undropped(name: str) -> None:
    built = encoder(name).eval()
    tokens = torch.randint(V, (5, 2))
    state = tuple(s.double() for s in built.initial_state(2, tokens.device))
    generator = torch.get_rng_state()
    first, second = built(tokens, state), built(tokens, state)
    torch.testing.assert_close(first.output, second.output, rtol=0, atol=0)
    torch.testing.assert_close(first.output, first.raw, rtol=0, atol=0)
    assert torch.equal(generator, torch.get_rng_state()), "evaluation must not consume training's random numbers"
    assert first.output.shape == (5, 2, built.context_size)


@pytest.mark.parametrize("name", ["awd-lstm", "lstm"])
def test_carried_state_makes_segments_one_text(name: str) -> None:
    built = encoder(name).eval()
    tokens = torch.randint(V, (10, 2))
    state = tuple(s.double() for s in built.initial_state(2, tokens.device))
    whole = built(tokens, state)
    first = built(tokens[:4], state)
    second = built(tokens[4:], first.state)
    torch.testing.assert_close(torch.cat((first.output, second.output)), whole.output, rtol=0, atol=1e-12)
    for carried, expected in zip(second.state, whole.state, strict=True):
        torch.testing.assert_close(carried, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", TEXT_ENCODERS)
def test_tied_embedding_is_shared_and_untied_is_not(name: str) -> None:
    assert encoder(name).output_weight is not None
    assert encoder(name, tied=False).output_weight is None


def test_awd_lstm_without_dropout_equals_torch_lstms() -> None:
    off = dict.fromkeys(("word_dropout", "input_dropout", "hidden_dropout", "output_dropout", "weight_drop"), 0.0)
    built = encoder("awd-lstm", **off).train()
    tokens = torch.randint(V, (7, 3))
    state = tuple(s.double() for s in built.initial_state(3, tokens.device))
    x = built.embedding[tokens]
    for index, layer in enumerate(built.layers):
        x, _ = layer(x, (state[2 * index], state[2 * index + 1]))
    torch.testing.assert_close(built(tokens, state).output, x, rtol=0, atol=1e-12)


def test_weight_drop_zeroes_recurrent_weights_once_a_segment() -> None:
    off = dict.fromkeys(("word_dropout", "input_dropout", "hidden_dropout", "output_dropout"), 0.0)
    built = encoder("awd-lstm", weight_drop=0.5, **off).train()
    assert isinstance(built, AwdLstm)
    tokens = torch.randint(V, (6, 2))
    state = tuple(s.double() for s in built.initial_state(2, tokens.device))
    built(tokens, state).output.sum().backward()
    gradient = built.layers[0].weight_hh_l0.grad
    dropped = (gradient == 0).double().mean().item()
    assert 0.35 < dropped < 0.65
    assert (built.layers[0].weight_ih_l0.grad == 0).double().mean().item() < 0.05


def test_locked_dropout_keeps_the_mean_and_one_mask_in_time() -> None:
    torch.manual_seed(0)
    x = torch.ones(5, 40, 50, dtype=torch.float64)
    dropped = locked_dropout(x, 0.3, training=True)
    torch.testing.assert_close(dropped, dropped[:1].expand_as(dropped))
    assert set(dropped.unique().tolist()) == {0.0, 1.0 / 0.7}
    assert abs(dropped.mean().item() - 1.0) < 0.03
    assert locked_dropout(x, 0.3, training=False) is x


def test_word_dropout_drops_every_occurrence_of_a_type() -> None:
    torch.manual_seed(0)
    weight = torch.ones(200, 4)
    tokens = torch.arange(200).repeat(2, 1).T
    looked_up = word_dropout_embedding(tokens, weight, 0.5, training=True)
    assert torch.equal(looked_up[:, 0], looked_up[:, 1])
    per_type = looked_up[:, 0]
    assert torch.equal(per_type.amin(-1), per_type.amax(-1)), "a type is dropped whole"
    assert 0.35 < (per_type[:, 0] == 0).float().mean() < 0.65


def test_table_gives_one_free_vector_a_context() -> None:
    table: Encoder = create("encoder", {"name": "table", "dimension": 3}, V, 10)
    out = table(torch.tensor([4, 4, 7]), ()).output
    assert out.shape == (3, 3)
    assert torch.equal(out[0], out[1])
    assert sum(p.numel() for p in table.parameters()) == 30
    assert table.output_weight is None


def test_table_refuses_text() -> None:
    with pytest.raises(InputError, match="holds one vector a context and text has no numbered contexts: use awd-lstm"):
        create("encoder", {"name": "table"}, V, None)


def test_transformer_refuses_a_width_its_heads_do_not_divide() -> None:
    with pytest.raises(InputError, match=r"encoder\.width 10 is not a multiple of 2 x attention_heads \(8\)"):
        create("encoder", {"name": "transformer", "width": 10, "attention_heads": 4}, V, None)
