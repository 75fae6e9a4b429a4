"""``suite query``: which columns, in which form."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from records_factory import make_record

from suite.cli import main
from suite.records.selection import Records
from suite.records.store import Store
from suite.report.listing import default_columns, render

COLUMNS = ["head", "seed", "test.ppl", "costs.seconds_per_epoch", "costs.packed", "costs.exclusive", "key"]


def sample() -> Records:
    return Records(
        [
            make_record(test=56.123456),
            make_record(
                head="a|b", seed=2, test=None, costs={"packed": True, "seconds_per_epoch": None, "exclusive": None}
            ),
        ]
    )


def test_a_table_rounds_and_the_other_forms_do_not() -> None:
    records = sample()
    first, second = (record.run_key for record in records)
    assert render(records, COLUMNS, "markdown") == (
        "| head   |   seed |   test.ppl |   seconds_per_epoch | packed   | exclusive   | key          |\n"
        "|:-------|-------:|-----------:|--------------------:|:---------|:------------|:-------------|\n"
        f"| mos-15 |      1 |      56.12 |                40.0 | no       | yes         | {first[:12]} |\n"
        f"| a\\|b   |      2 |          - |                   - | yes      | -           | {second[:12]} |\n"
    )
    one, two = csv.DictReader(io.StringIO(render(records, COLUMNS, "csv")))
    assert (one["test.ppl"], one["key"], two["test.ppl"], two["head"]) == ("56.123456", first, "", "a|b")
    rows = json.loads(render(records, COLUMNS, "json"))
    assert [row["test.ppl"] for row in rows] == [56.123456, None]
    assert list(rows[0]) == COLUMNS
    assert render(records[:0], ["head"], "table") == "head\n------\n"
    assert render(records[:0], ["head", "seed"], "csv") == "head,seed\n"


def test_what_holds_for_all_is_no_column() -> None:
    names = default_columns(sample())
    assert names[:5] == ["task", "dataset", "encoder", "head", "seed"]
    assert not {"status", "scope", "version"} & set(names)
    mixed = Records([*sample(), make_record(head="plif", status="failed", scope="smoke")])
    assert {"status", "scope"} < set(default_columns(mixed))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    store = Store(tmp_path / "results")
    for head, test in (("softmax", 60.0), ("plif", 59.0), ("gss", 61.0)):
        store.write(make_record(head=head, test=test))
    return store.root


def test_the_verb_filters_sorts_and_cuts(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*arguments: str) -> list[str]:
        assert main(["query", *arguments, "--results", str(results)]) == 0
        return capsys.readouterr().out.splitlines()

    form = ("--columns", "head,test.ppl", "--format", "csv")
    assert said("test.ppl>59", "--sort", "test.ppl:desc", *form) == ["head,test.ppl", "gss,61.0", "softmax,60.0"]
    assert said("--sort", "protocol,head", "--limit", "1", *form) == ["head,test.ppl", "gss,61.0"]
    assert said("test.ppl<61", "--limit", "1", "--columns", "head")[-1] == "the first 1 of 2 of 3 records"
    assert said("head=moss", "--columns", "head") == ["head", "------", "", "0 of 3 records"]
    assert {"head", "test.ppl", "recipe.optimizer.lr"} < set(said("--keys"))


def test_the_verb_says_what_it_does_not_know(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = "`suite query --keys` lists all."
    hed = f"unknown key 'hed'. Did you mean head? {keys}"
    for line, message in (
        (["hed=a", "--columns", "sed"], hed),
        (["--columns", "sede,hed"], f"unknown key 'sede'. Did you mean seed? {keys}\n" + hed),
        (["--sort", "test.ppl:down"], "--sort test.ppl:down: expected KEY, KEY:asc or KEY:desc"),
    ):  # fmt: skip
        assert main(["query", *line, "--results", str(results)]) == 2
        assert capsys.readouterr().err == "".join(f"error: {part}\n" for part in message.splitlines())
    (results / "records" / "torn.json").write_text("{")
    assert main(["query", "head=plif", "--results", str(results)]) == 0
    assert capsys.readouterr().err.startswith(f"warning: record left out: {results / 'records' / 'torn.json'}:1:2: not")


def test_a_reader_that_leaves_in_the_middle_is_no_error(results: Path) -> None:
    store = Store(results)
    for record in (make_record(head="softmax", seed=seed) for seed in range(2, 250)):
        store.path_of(record).write_text(record.to_json())
    columns = "key,command,platform,device,torch,task,head,seed,test.ppl,title,started,ended,commit"
    command = [sys.executable, "-W", "error", "-m", "suite", "query", "--format", "json", "--columns", columns]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*command, "--results", str(results)], **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.read(1) == b"["
        process.stdout.close()
        assert (process.stderr.read(), process.wait(timeout=60)) == (b"", 0)
