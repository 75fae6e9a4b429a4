"""The language of queries, and records as a filtered table."""

from __future__ import annotations

import operator
import subprocess
import sys
from pathlib import Path

import pytest
from counted import calls_of
from hypothesis import given
from hypothesis import strategies as st
from records_factory import make_record

from suite import records
from suite.errors import InputError
from suite.records.query import is_query, parse
from suite.records.record import Record
from suite.records.selection import Records
from suite.records.store import Store

HEADS = {"softmax": 60.0, "mos-15": 56.0, "mos-5": 57.0, "sigsoftmax": 59.5}
OPERATORS = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def named(record: Record, name: str, **options: object) -> Record:
    """With another component behind the label of its head."""
    spec = {**record.spec, "head": {"name": name, **options}}
    return record.model_copy(update={"spec": spec})


def sample() -> Records:
    made = []
    for head, test in HEADS.items():
        for seed in (1, 2):
            record = make_record(
                head=head, seed=seed, test=test + seed / 10, curves=[{"epoch": 3.0, "valid_ppl": 61.0}]
            )
            options = {"experts": int(head[4:])} if head.startswith("mos") else {}
            made.append(named(record, head.split("-")[0] if options else "softmax", **options))
    stages = {"train": {"test": {"ppl": 58.0}}, "finetune": {"test": {"ppl": 55.0}}}
    made.append(make_record(head="plif", metrics=stages, stages=("train", "finetune"), costs={"packed": True}))
    made.append(make_record(head="gss", status="interrupted", dataset="wikitext-2", message="stopped"))
    return Records(made)


def labels(found: Records) -> list[str]:
    return [f"{record.labels.head} {record.seed}" for record in found]


@pytest.mark.parametrize(
    ("condition", "passing"),
    [
        ("head=mos", "mos-15 1, mos-15 2, mos-5 1, mos-5 2"),  # the component's name
        ("head=softmax", "softmax 1, softmax 2"),  # a label that exists means that one alone
        ("head!=mos dataset=ptb seed=1", "softmax 1, sigsoftmax 1, plif 1"),
        ("head~*softmax seed=2", "softmax 2, sigsoftmax 2"),  # the label or the component's name
        ("head=softmax,head=mos-5 seed=1", "softmax 1, mos-5 1"),
        ("dataset=ptb test.ppl<57", "mos-15 1, mos-15 2, plif 1"),
        ("train.test.ppl<=56.1", "mos-15 1"),
        ("validation.ppl=58 seed=2", "softmax 2, mos-15 2, mos-5 2, sigsoftmax 2"),
        ("test.ppl>56 test.ppl<57", "mos-15 1, mos-15 2"),
        ("experts>=15", "mos-15 1, mos-15 2"),
        ("head.experts!=15 head~mos*", "mos-5 1, mos-5 2"),
        ("packed=true", "plif 1"),
        ("message=stopped", "gss 1"),
        ("message!=", "gss 1"),
        ("test.ppl=", "gss 1"),
        ("status!=finished", "gss 1"),
        ("started>2026-01-01 ended<2026-01-02 head=gss", "gss 1"),
        ("device='NVIDIA H200' head=gss", "gss 1"),
        ("device~*H100*", ""),
        ("finetune.test.ppl<56", "plif 1"),
        ("last.valid_ppl=61.0 seed=1 experts=5", "mos-5 1"),
        ("", ", ".join(f"{head} {seed}" for head in HEADS for seed in (1, 2)) + ", plif 1, gss 1"),
    ],
)  # fmt: skip
def test_conditions(condition: str, passing: str) -> None:
    assert ", ".join(labels(sample().where(condition))) == passing


@given(st.sampled_from(sorted(OPERATORS)), st.sampled_from([55.0, 56.1, 57.2, 59.5, 60.2, 1e3]))
def test_an_order_is_the_order_of_numbers(sign: str, bound: float) -> None:
    everything = sample()
    passing = {record.run_key for record in everything.where(f"test.ppl{sign}{bound!r}")}
    for record, row in zip(everything, everything.rows(["test.ppl"]), strict=True):
        value = row["test.ppl"]
        expected = sign == "!=" if value is None else OPERATORS[sign](value, bound)
        assert (record.run_key in passing) == expected


@given(
    st.lists(st.sampled_from(["head=mos", "seed=1", "test.ppl<57", "head~*soft*", "experts!=5", "seed=2"]), unique=True)
)
def test_conditions_narrow_whatever_their_order_and_however_they_are_passed(conditions: list[str]) -> None:
    everything = sample()
    found = labels(everything.where(*conditions))
    assert found == labels(everything.where(",".join(reversed(conditions))))
    keys = [condition for condition in conditions if not condition.startswith(("head", "seed"))]
    assert set(found) <= set(labels(everything.where(*keys)))


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("hed=mos", "unknown key 'hed'. Did you mean head? `suite query --keys` lists all."),
        ("tset.ppl<3", "unknown key 'tset.ppl'. Did you mean test.ppl? `suite query --keys` lists all."),
        ("expert=15", "unknown key 'expert'. Did you mean head.experts? `suite query --keys` lists all."),
        ("qqqq=1", "unknown key 'qqqq'. `suite query --keys` lists all."),
        ("ppl<60", "key 'ppl' may mean train.valid.ppl, valid.ppl, train.test.ppl, test.ppl or finetune.test.ppl; "
                   "write one of them"),
        ("test.ppl<low", "'test.ppl<low': test.ppl holds numbers, and 'low' is none"),
        ("test.ppl<nan", "'test.ppl<nan': test.ppl holds numbers, and 'nan' is none"),
        ("seed=one", "'seed=one': seed holds numbers, and 'one' is none"),
        ("test.ppl<", "'test.ppl<': give a value after <"),
        ("mos", "'mos': expected KEY OPERATOR VALUE without spaces, such as head=mos or test.ppl<60; "
                "operators: = != < <= > >= ~"),
        ("head='mos", "\"head='mos\": a quotation mark is not closed"),
        ("hed=mos seed=one", "unknown key 'hed'. Did you mean head? `suite query --keys` lists all.\n"
                             "'seed=one': seed holds numbers, and 'one' is none"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked(condition: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        sample().where(condition)
    assert str(caught.value) == message


EVERYTHING = sample()


@given(st.text(max_size=30) | st.from_regex(r"[a-z.]{1,9}[=!<>~]{1,2}[^ ]{0,5}", fullmatch=True))
def test_any_text_is_a_query_or_a_clear_error(text: str) -> None:
    said = ""
    try:
        found = EVERYTHING.where(text)
    except InputError as error:
        said = str(error)
        found = EVERYTHING[:0]
    assert said or {record.run_key for record in found} <= {record.run_key for record in EVERYTHING}


def test_quotes_keep_spaces_and_commas_in_a_value() -> None:
    (term,) = parse(['head="a, b=c"'])
    assert (term.key, term.operator, term.value) == ("head", "=", "a, b=c")
    assert is_query("head=mos")
    assert not is_query("results/records/a.json")


def test_a_filter_makes_no_name_unknown() -> None:
    everything = sample()
    none = everything.where("seed=2", "status=interrupted")
    assert len(none) == 0
    assert len(none.where("head=mos").where("test.ppl<60")) == 0
    assert everything.where("head=gss").rows(["test.ppl", "seed"]) == [{"test.ppl": None, "seed": 1}]


def test_records_are_a_sequence_that_can_be_sorted() -> None:
    everything = sample()
    best = everything.sorted("test.ppl")
    assert labels(best.first(2)) == ["plif 1", "mos-15 1"]
    assert labels(everything.sorted("test.ppl", descending=True))[0] == "softmax 2"
    assert labels(best)[-1] == labels(everything.sorted("test.ppl", descending=True))[-1] == "gss 1", (
        "no value, no rank"
    )
    assert best[0].labels.head == "plif"
    assert labels(best[:2]) == ["plif 1", "mos-15 1"]
    assert repr(everything) == "<10 records>"


def test_a_folder_is_loaded_and_laid_out_as_a_frame(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    for record in (make_record(seed=2, test=55.5), make_record(head="plif")):
        store.write(record)
    (store.records_dir / "torn.json").write_text("{")
    found = records.load(store.root)
    assert repr(found) == "<2 records, 1 problem in files left out>"
    assert str(found.problems[0].where).startswith(str(store.records_dir / "torn.json"))
    frame = found.where("head=mos-15").frame(["head", "seed", "test.ppl", "lr"])
    assert frame.to_dict("list") == {"head": ["mos-15"], "seed": [2], "test.ppl": [55.5], "recipe.optimizer.lr": [20.0]}
    whole = found.frame()
    assert whole["costs.seconds_per_epoch"].tolist() == [40.0, 40.0]
    assert whole["recipe.optimizer.lr"].tolist() == [20.0, 20.0]
    assert list(found.where("seed=7").frame(["head"]).columns) == ["head"]
    with pytest.raises(InputError) as caught:
        records.load(tmp_path / "absent")
    assert str(caught.value) == f"{tmp_path / 'absent'}: no such folder; name the one that holds the results"


def test_thousands_of_records_are_quick(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.records_dir.mkdir()
    curve = [{"epoch": float(epoch), "train_nll": 5.0, "valid_nll": 4.0, "valid_ppl": 60.0} for epoch in range(300)]
    for seed in range(200):
        record = make_record(seed=seed, curves=curve)
        store.path_of(record).write_text(record.to_json())
    found: list[Records] = []
    calls = calls_of(lambda: found.append(records.load(tmp_path).where("head=mos-15 test.ppl<60 seed<50")))
    assert len(found[0]) == 50
    # 2,000 take 0.7 seconds. A call for every point of the curves would be 300 a record.
    assert calls < 200 * 250


def test_neither_torch_nor_pandas_is_imported_before_it_is_needed() -> None:
    code = "import sys\nfrom suite import records\nprint({'torch', 'mlflow', 'pandas', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
