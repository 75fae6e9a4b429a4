"""A run whose machine is lost leaves an event log; the record made of it has its curves and no final score."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tiny_tasks import ONE, Desk, one_record

from suite.errors import InputError
from suite.records.recovery import record_from_events
from suite.records.store import Store


@pytest.fixture
def stopped(desk: Desk) -> Path:
    """The event log of a run that was interrupted after an epoch, its record gone."""
    assert desk.run(*ONE, "--checkpoint-seconds", "1e-9")[0] == 0
    record = one_record(desk.results)
    log = Store(desk.results).run_dir(record.run_key) / "events.jsonl"
    lost = desk.root / "lost.jsonl"
    lines = [line for line in log.read_text().splitlines() if json.loads(line)["type"] != "end"]
    lost.write_text("\n".join(lines) + "\n")
    return lost


def test_the_log_of_a_lost_run_is_imported(desk: Desk, stopped: Path) -> None:
    whole = one_record(desk.results)
    shutil.rmtree(desk.results)
    assert desk.suite("import", str(stopped)) == (0, "1 added, 0 here already, 0 replaced\n", "")
    found = one_record(desk.results)
    assert (found.status, found.metrics) == ("interrupted", {})
    assert found.message == "the run ended without a record; this one is made of its event log"
    assert (found.run_key, found.spec, found.labels, found.curves) == (
        whole.run_key,
        whole.spec,
        whole.labels,
        whole.curves,
    )
    assert found.provenance.command == whole.provenance.command
    assert found.provenance.step_code == whole.provenance.step_code is not None
    assert found.provenance.data == whole.provenance.data
    assert found.costs is not None
    assert found.costs.seconds_per_epoch == found.curves[-1]["seconds"]
    # The run itself, once it is run again, replaces what was recovered of it.
    assert desk.run(*ONE)[0] == 0
    assert one_record(desk.results).status == "finished"


def test_a_repeated_epoch_counts_once_and_the_repeat_stands(stopped: Path) -> None:
    lines = stopped.read_text().splitlines()
    last = {**json.loads(lines[-1]), "valid_ppl": 1.5}
    stopped.write_text("\n".join([*lines, lines[0].replace('"attempt": 1', '"attempt": 2'), json.dumps(last), "{"]))
    record = record_from_events(stopped)
    assert [point["epoch"] for point in record.curves] == [1, 2]
    assert record.curves[-1]["valid_ppl"] == 1.5
    assert record.provenance.attempts == 2


def test_a_run_started_afresh_leaves_nothing_of_its_predecessor(stopped: Path) -> None:
    lines = stopped.read_text().splitlines()
    first = {**json.loads(lines[1]), "valid_ppl": 1.5}
    stopped.write_text("\n".join([*lines, lines[0], json.dumps(first)]))
    record = record_from_events(stopped)
    assert [(point["epoch"], point["valid_ppl"]) for point in record.curves] == [(1, 1.5)]


def test_what_packed_runs_took_is_not_their_cost(stopped: Path) -> None:
    stopped.write_text(stopped.read_text().replace('"packed": false', '"packed": true'))
    costs = record_from_events(stopped).costs
    assert costs is not None
    assert (costs.packed, costs.seconds_per_epoch) == (True, None)
    # A log from before logs said so cannot tell.
    stopped.write_text(stopped.read_text().replace('"packed": true, ', ""))
    assert record_from_events(stopped).costs is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "{0}: no run begins in it; expected the events.jsonl of a run"),
        (
            '{"type": "start"}\n{"type": "end", "status": "finished"}\n',
            "{0}: the run finished and has a record of its own: import that",
        ),
        ('{"type": "start"}\n', "{0}: not the event log of a run: KeyError: 'run_key'"),
    ],
)
def test_what_is_no_log_of_an_unfinished_run_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        record_from_events(path)
    assert str(caught.value) == message.format(path)


def test_a_strangers_log_gives_one_error_and_no_record(stopped: Path) -> None:
    lines = stopped.read_text().splitlines()
    start = json.loads(lines[0])

    def said(changed: object, *more: str) -> str:
        stopped.write_text("\n".join([json.dumps(changed), *more]))
        with pytest.raises(InputError) as caught:
            record_from_events(stopped)
        return str(caught.value)

    key = start["run_key"]
    altered = {**start, "spec": {**start["spec"], "seed": 99}}
    assert said(altered).startswith(f"{stopped}: run_key: is {key[:12]}... but the recorded spec has key ")
    log = f"{stopped}: not the event log of a run: "
    assert said({**start, "time": 1e300}).startswith(f"{log}OverflowError: ")
    assert said({**start, "time": "\x1b[2J"}) == f"{log}TypeError: 'str' object cannot be interpreted as an integer"
    assert said({**start, "provenance": []}) == f"{log}AttributeError: 'list' object has no attribute 'get'"
    odd = json.dumps({"type": "epoch", "time": 1, "stage": {}})
    assert said(start, odd) == f"{log}TypeError: unhashable type: 'dict'"
    half = {**start, "task": {**start["task"], "title": "\ud800"}}
    assert said(half).startswith(f"{log}UnicodeEncodeError: 'utf-8' codec can't encode character")
    with stopped.open("wb") as file:
        file.truncate(65 * 1024 * 1024)
    with pytest.raises(InputError) as caught:
        record_from_events(stopped)
    assert str(caught.value) == f"{stopped}: larger than 64 MiB, so not a log"
