"""What mutated records once broke: each is refused with its place, or shown as what it is."""

from __future__ import annotations

from typing import Any

import pytest
from records_factory import make_record

from suite.errors import InputError
from suite.records.reading import parse_record, spec_key
from suite.records.record import Record
from suite.records.selection import Records
from suite.records.views import by_dataset
from suite.report import formatting, listing, show, side_by_side
from suite.report.plot_synthetic import synthetic
from suite.report.sides import side_of

ESCAPES = "\x1b[2J\x9b31m\u202e"


def with_spec(**changes: Any) -> Record:
    """A record whose spec was changed and whose key fits it all the same."""
    record = make_record()
    spec = {**record.spec, **changes}
    return record.model_copy(update={"spec": spec, "run_key": spec_key(spec)})


def refusal(record: Record) -> str:
    with pytest.raises(InputError) as caught:
        parse_record(record.to_json().encode(), "r.json")
    return str(caught.value)


ALTERED = "the file was altered after its run; restore it or remove it"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"recipe": []}, "r.json: spec.recipe: input should be a valid dictionary or instance of _Recipe"),
        ({"recipe": {}}, "r.json: spec.recipe.budget: required field is missing"),
        ({"recipe": {"budget": {"epochs": {}}}}, "r.json: spec.recipe.budget.epochs: input should be a valid integer"),
        ({"stages": []}, "r.json: spec.stages: list should have at least 1 item after validation, not 0"),
        ({"stages": [{"name": {}}]}, "r.json: spec.stages.0.name: input should be a valid string"),
        ({"head": "mos"}, "r.json: spec.head: input should be a valid dictionary or instance of _Component"),
        ({"seed": 7}, f"r.json: spec.seed: is not the record's own seed: {ALTERED}"),
        ({"scope": "smoke"}, f"r.json: spec.scope: is not the record's own scope: {ALTERED}"),
    ],
)
def test_a_spec_that_no_run_writes_is_refused_though_its_key_fits(changes: dict[str, Any], said: str) -> None:
    assert refusal(with_spec(**changes)) == said


def test_many_problems_and_long_keys_are_told_in_short() -> None:
    record = make_record()
    text = record.to_json().replace('"facts": {}', '"facts": {' + ", ".join(f'"{i}": "x"' for i in range(500)) + "}")
    with pytest.raises(InputError) as caught:
        parse_record(text.encode(), "r.json")
    assert len(caught.value.problems) == 11
    assert str(caught.value).endswith("\nr.json: and 490 more")
    text = record.to_json().replace('"facts": {}', '"facts": {"' + "x" * 100_000 + '": "x"}')
    with pytest.raises(InputError) as caught:
        parse_record(text.encode(), "r.json")
    assert len(str(caught.value)) < 500


def test_numbers_beyond_what_anything_stores_are_refused() -> None:
    record = make_record()
    text = record.to_json().replace('"parameters": 21500620', f'"parameters": {10**400}')
    with pytest.raises(InputError) as caught:
        parse_record(text.encode(), "r.json")
    assert str(caught.value).startswith("r.json: model.parameters: ")


def test_nothing_that_a_record_holds_reaches_a_terminal_as_an_order() -> None:
    one, two = make_record(seed=1), make_record(seed=2, scope="short", encoder=f"lstm{ESCAPES}")
    two = two.model_copy(
        update={
            "spec": {**two.spec, "recipe": {**two.spec["recipe"], ESCAPES: ESCAPES}},
            "metrics": {f"train{ESCAPES}": {"test": {f"ppl{ESCAPES}": 1.0}}},
            "provenance": two.provenance.model_copy(update={"commit": ESCAPES}),
        }
    )
    records = Records([one, two])
    texts = [show.render(two), *show.compare_lines(two, [])]
    texts += [listing.render(records, records.own_names, form) for form in ("table", "markdown", "csv", "json")]  # type: ignore[arg-type]
    texts.append(side_by_side.render([side_of(letter, "x", [record]) for letter, record in (("A", one), ("B", two))]))
    for text in texts:
        assert text.replace("\n", "").isprintable()
    assert "\\u009b" in texts[-2], "JSON keeps the character, escaped"


@pytest.mark.parametrize("value", [float("inf"), 1.7e308, 5e-324])
def test_a_ratio_of_absurd_times_is_a_dash(value: float) -> None:
    assert formatting.cost(value) == "-"


def test_a_stranger_may_call_anything_categorical() -> None:
    options = ({}, {"contexts": 5}, {"contexts": 5, "concentration": 0.1, "words": "many"})
    records = [
        record.model_copy(
            update={
                "spec": {
                    **record.spec,
                    "dataset": {"name": "categorical", **one},
                    "encoder": {"name": "table", "dimension": 4},
                }
            }
        )
        for one in options
        for record in [make_record()]
    ]
    assert list(synthetic(records)) == []


def test_a_name_of_any_length_leaves_the_pages_of_the_ui_as_they_are() -> None:
    (pages,) = by_dataset([make_record(head="x" * 100_000)]).values()
    assert [page.title for page in pages] == ["runs by test_ppl", "means by head", "curves, and what they cost"]
