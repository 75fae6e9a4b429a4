"""Plan, show, report and import: what the command line says of runs and records."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from pathlib import Path

import pytest
from tiny_tasks import ONE, TINY, Desk, one_record

from suite.records.store import Store


def test_plan_tells_what_is_done_and_what_is_left(with_run: Desk) -> None:
    rows = with_run.plan("tiny")
    assert [row[2:6] for row in rows] == [
        ["lstm/softmax", "1", "full", "done"],
        ["lstm/softmax", "2", "full", "new"],
        ["lstm/mos-2", "1", "full", "new"],
        ["lstm/mos-2", "2", "full", "new"],
    ]
    # A run of the same cell tells the time of another seed, and at most that of a head half as large; roughly, since
    # of its two epochs the first is not timed.
    assert re.fullmatch(r"\d+s", rows[1][6])
    assert re.fullmatch(r"~≤\d+s", rows[2][6])
    assert "\n4 cells, 1 done, 3 to run: about " in with_run.suite("plan", "tiny", "--all")[1]
    assert with_run.plan("tiny", "--max-epochs", "1")[0][4:6] == ["short", "new"]
    assert with_run.run("tiny", "--only", "head=mos", "--seed", "2")[0] == 0
    assert [row[5] for row in with_run.plan("tiny")] == ["done", "new", "new", "done"]


def test_plan_has_a_line_for_the_seeds_of_a_cell(desk: Desk) -> None:
    assert desk.suite("plan", "tiny") == (
        0,
        "task    dataset        method          seed  scope    status      estimate  run key\n"
        "------  -------------  ------------  ------  -------  --------  ----------  ---------\n"
        "tiny    hidden-markov  lstm/softmax     1-2  full     new                ?  2 runs\n"
        "tiny    hidden-markov  lstm/mos-2       1-2  full     new                ?  2 runs\n"
        "\n"
        "4 cells, 0 done, 4 to run: 4 with no run to go by\n",
        "",
    )


def test_show(with_run: Desk) -> None:
    record = one_record(with_run.results)
    code, out, err = with_run.suite("show", record.run_key[:6])
    assert (code, err) == (0, "")
    assert out.startswith(f"tiny hidden-markov lstm/softmax seed 1\n  run              {record.run_key}\n")
    assert with_run.suite("show", str(Store(with_run.results).path_of(record)))[1] == out
    assert with_run.suite("show", "ffff")[2].splitlines() == [
        "error: no record matches 'ffff'; give 4 or more digits of a run key, or a file name:",
        f"  {record.run_key[:12]}  tiny hidden-markov lstm/softmax seed 1 (finished)",
    ]


def test_show_names_the_deviations_of_the_task_file(with_run: Desk) -> None:
    record = one_record(with_run.results)
    deviations = "deviations:\n  - {what: two epochs, why: time is short, effect: none is known, touches: softmax}\n"
    with_run.write("tasks/tiny.yaml", TINY + deviations)
    block = "\n\nDeviations from the published recipe\n  - two epochs; why: time is short; effect: none is known.\n\n"
    assert block in with_run.suite("show", record.run_key)[1]
    with_run.write("tasks/tiny.yaml", TINY + deviations.replace("softmax", "mos-*"))
    assert "Deviations" not in with_run.suite("show", record.run_key)[1]


def test_report_before_any_run(desk: Desk) -> None:
    said = "no records in results yet: `suite run demo` makes some; --all shows what is published\n"
    assert desk.suite("report") == (0, said, "")
    assert "Yang et al. 2018" in desk.suite("report", "--all")[1]


def test_report_puts_the_floor_first(with_run: Desk) -> None:
    code, out, err = with_run.suite("report")
    assert (code, err) == (0, "")
    rows = out.splitlines()[4:6]
    assert rows[0].startswith("true floor (the source itself)")
    assert rows[1].startswith("lstm/softmax")


def test_report_as_csv(with_run: Desk) -> None:
    code, out, err = with_run.suite("report", "--csv")
    assert (code, err) == (0, "")
    (row,) = [row for row in csv.DictReader(io.StringIO(out)) if row["kind"] == "ours"]
    record = one_record(with_run.results)
    assert float(row["ours_test"]) == record.metrics["train"]["test"]["ppl"]
    assert row["records"] == record.run_key


def test_report_writes_the_leaderboard_and_into_a_readme(with_run: Desk) -> None:
    readme = with_run.write("README.md", "# Mine\n<!-- leaderboard:begin -->\nold\n<!-- leaderboard:end -->\nafter\n")
    code, out, err = with_run.suite("report", "--write", "--write-into", "README.md")
    assert (code, err) == (0, "")
    written = ("LEADERBOARD.md", "CLAIMS.md", "COSTS.md", "HEADS.md", "REPRODUCE.md")
    written += ("leaderboard.csv", "leaderboard.tex", "site/index.html")
    assert out.endswith("".join(f"wrote results/{name}\n" for name in written) + "wrote README.md\n")
    board = Path("results/LEADERBOARD.md").read_text()
    assert board.startswith("# Leaderboard\n\n<!-- leaderboard:begin -->\n")
    assert "Yang et al. 2018" in board
    text = readme.read_text()
    assert text.startswith("# Mine\n<!-- leaderboard:begin -->\n")
    assert text.endswith("<!-- leaderboard:end -->\nafter\n")
    assert "lstm/softmax" in text
    assert "old" not in text
    with_run.suite("report", "--write", "--write-into", "README.md")
    assert (readme.read_text(), Path("results/LEADERBOARD.md").read_text()) == (text, board)


def test_a_truncated_record_is_left_out_and_said(with_run: Desk) -> None:
    path = Store(with_run.results).path_of(one_record(with_run.results))
    whole = path.read_text()
    path.write_text(whole[:100])
    said = "the file is truncated or damaged; restore it or remove it"
    where = rf"{re.escape(str(path))}:\d+:\d+: not whole JSON \(.*\): {said}\n"
    code, out, err = with_run.suite("report")
    assert code == 0
    assert out.startswith("no records in results yet")
    assert re.fullmatch("warning: record left out: " + where, err)
    code, _, err = with_run.run(*ONE)
    assert code == 2
    assert re.fullmatch("error: " + where, err)


def test_records_made_elsewhere_are_imported_once(desk: Desk, finished: Path) -> None:
    assert desk.suite("import", str(finished)) == (0, "1 added, 0 here already, 0 replaced\n", "")
    assert desk.suite("import", str(finished)) == (0, "0 added, 1 here already, 0 replaced\n", "")
    assert one_record(desk.results) == one_record(finished)
    assert desk.run(*ONE)[1].startswith("[1/1] tiny hidden-markov lstm/softmax seed 1: done before (record ")


@pytest.mark.parametrize(
    ("typed", "said"),
    [("there/suite/__main__.py", "python -m suite"), ("bin/suite", "bin/suite")],
)
def test_the_command_to_go_on_with_is_the_one_typed(
    with_run: Desk, monkeypatch: pytest.MonkeyPatch, typed: str, said: str
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("sys.argv", [typed])
    assert with_run.run(*ONE)[1].splitlines()[-1] == f"Compare the runs in the browser: {said} ui --results results"


def test_a_run_is_handed_on_in_a_bundle(with_run: Desk) -> None:
    record = one_record(with_run.results)
    code, out, err = with_run.suite("export", record.run_key[:8], "head=softmax,seed=1", "--out", "b.zip")
    assert (code, err) == (0, "")
    digest = hashlib.sha256(Path("b.zip").read_bytes()).hexdigest()
    assert re.fullmatch(rf"b\.zip: 1 run, 1 with the event log, \d+ KiB\nsha256 {digest}\n", out)
    again = with_run.suite("export", record.run_key, "--out", "b.zip")[1]
    assert again.startswith("b.zip is there already, with these very bytes: 1 run, 1 with the event log, ")
    there = ["b.zip", "--results", "there"]
    assert with_run.suite("import", *there) == (0, "1 added, 0 here already, 0 replaced\n", "")
    assert with_run.suite("import", *there) == (0, "0 added, 1 here already, 0 replaced\n", "")
    here, elsewhere = Store(with_run.results), Store(Path("there"))
    assert elsewhere.load() == here.load()
    logs = [store.events(record.run_key).path.read_text() for store in (here, elsewhere)]
    assert logs[0] == logs[1] != ""


def test_a_log_of_another_attempt_is_not_handed_on(with_run: Desk) -> None:
    record = one_record(with_run.results)
    log = Store(with_run.results).events(record.run_key)
    log.append("start", attempt=1, run_key=record.run_key, spec=record.spec)
    log.append("end", status="failed")
    out = with_run.suite("export", record.run_key, "--out", "b.zip")[1].splitlines()
    assert out[0] == (
        f"{record.name}: its event log is left out, it does not agree with the record: "
        "the log ends with status failed, the record with finished"
    )
    assert out[1].startswith("b.zip: 1 run, 0 with the event log, ")


def test_what_an_export_cannot_write(with_run: Desk) -> None:
    key = one_record(with_run.results).run_key[:8]
    with_run.write("mine.zip", "mine")
    what = "name what to write: --out FILE.zip for a bundle of the runs, --weights DIR for one's weights"
    about = "--dtype and --shard-mib are about weights; name a folder for them with --weights DIR"
    for line, message in (
        ([key], what),
        ([key, "--out", "b.zip", "--dtype", "float16"], about),
        ([key, "--out", "w"], "--out w: the name of a bundle ends in .zip; weights go into a folder, --weights DIR"),
        ([key, "--out", "mine.zip"], "--out mine.zip: exists and is another file; name a new one"),
        (["head=mos", "--out", "b.zip"], "'head=mos': none of 1 records passes"),
        ([key, "--weights", "tasks"], "--weights tasks: exists and is not an empty folder; name a new one"),
    ):
        assert with_run.suite("export", *line) == (2, "", f"error: {message}\n")
    assert not Path("b.zip").exists()


def test_an_import_refuses_what_is_no_record_and_takes_the_rest(desk: Desk, finished: Path) -> None:
    (source,) = (finished / "records").iterdir()
    altered = desk.write("more/altered.json", source.read_text().replace('"seed": 1', '"seed": 3'))
    broken = desk.write("more/broken.json", source.read_text()[:-40])
    code, out, err = desk.suite("import", str(source), "more/altered.json", "more/broken.json", "absent.json")
    assert (code, out) == (2, "1 added, 0 here already, 0 replaced\n")
    first, second, third = err.splitlines()
    assert first.startswith(f"refused: {altered.relative_to(desk.root)}: run_key: is ")
    assert second.startswith(f"refused: {broken.relative_to(desk.root)}:")
    assert third == "refused: absent.json: cannot be read: No such file or directory"
