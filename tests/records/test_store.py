"""Records on disk: round trips, damage, renames, look-up, import and locks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from counted import calls_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from suite.errors import InputError
from suite.records.files import atomic_write
from suite.records.importing import import_records
from suite.records.record import LabelRef, Record
from suite.records.store import Store, file_name

finite = st.floats(allow_nan=False, allow_infinity=False)
metrics = st.dictionaries(
    st.text(max_size=5), st.dictionaries(st.text(max_size=5), st.dictionaries(st.text(max_size=5), finite))
)
curves = st.lists(st.dictionaries(st.text(max_size=6), finite), max_size=4)


def rewrite(path: Path, **changes: object) -> None:
    payload = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in payload.items() if value is not ...}))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(-(2**63), 2**63 - 1),
    metrics=metrics,
    curves=curves,
    head=st.text(min_size=1),
    message=st.none() | st.text(),
)
def test_every_record_comes_back_as_it_was(make_record, tmp_path, seed, metrics, curves, head, message):
    store = Store(tmp_path)
    record = make_record(
        seed, metrics=metrics, curves=curves, message=message, labels=LabelRef(dataset="d", encoder="e", head=head)
    )
    path = store.write(record)
    assert store.get(record.run_key) == record
    assert len(path.name.encode()) <= 255
    assert set(path.name) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._+-")
    assert store.find(path.name) == record
    path.unlink()


def test_a_file_is_named_after_its_labels_seed_and_key(make_record):
    record = make_record(3, head="plif/K=15")
    assert file_name(record) == f"demo--hmm--lstm--plif-K-15--s3--{record.run_key[:12]}.json"


def test_records_are_sorted_and_quick_to_load(make_record, store):
    for seed in (10, 2, 1):
        store.write(make_record(seed))
    store.write(make_record(5, head="linear"))
    assert [(r.labels.head, r.seed) for r in store.load()] == [("linear", 5), ("mos", 1), ("mos", 2), ("mos", 10)]
    short, long = make_record(98, epochs=5), make_record(99, epochs=500)
    calls = []
    for record in (short, short, long):
        store.write(record)
        calls.append(calls_of(lambda record=record: store.get(record.run_key)))
    assert calls[1] == calls[2], "points of a curve are read by no Python of ours"


def test_an_empty_or_absent_folder_holds_no_records(store):
    assert store.load() == []
    assert store.get("0" * 64) is None


def test_every_bad_file_is_reported_and_hides_no_good_one(make_record, store):
    good = make_record(1)
    store.write(good)
    paths = {seed: store.write(make_record(seed)) for seed in range(2, 9)}
    text = paths[2].read_text()
    paths[2].write_text(text[: text.index('"seed"') + 4])
    rewrite(paths[3], schema=7)
    rewrite(paths[4], provenance=...)
    spec = make_record(5).spec
    rewrite(paths[5], spec={**spec, "seed": 6})
    rewrite(paths[6], notes="hello", seed="three")
    paths[7].write_text("[]")
    paths[8].write_bytes(b"\xff\xfe")
    stray = store.records_dir / "stray.json"
    stray.write_text(make_record(9).to_json())
    (store.records_dir / "task.json").write_text('{"name": "x"}')

    records, problems = store.scan()
    assert records == [good]
    line = text[: text.index('"seed"')].count("\n") + 1
    expected = {
        f"{paths[2]}:{line}:3: not whole JSON (Unterminated string starting at): "
        "the file is truncated or damaged; restore it or remove it",
        f"{paths[3]}: written by a newer suite (schema 7); update the suite",
        f"{paths[4]}: provenance: required field is missing",
        f"{paths[6]}: notes: unknown field",
        f"{paths[6]}: seed: input should be a valid integer, unable to parse string as an integer",
        f"{paths[7]}: a record is a JSON object, not list",
        f"{paths[8]}: not a JSON text in UTF-8; restore it or remove it",
        f"{stray}: the name of this record must end in --{make_record(9).run_key[:12]}.json; "
        "use `suite import` to add it",
        f'{store.records_dir / "task.json"}: not a record: it has no "schema" field',
        f"{paths[5]}: run_key: is {make_record(5).run_key[:12]}... but the recorded spec has key "
        f"{make_record(6).run_key[:12]}...: the file was altered after its run; restore it or remove it",
    }
    assert {str(problem) for problem in problems} == expected
    with pytest.raises(InputError) as caught:
        store.load()
    assert set(str(caught.value).splitlines()) == expected


def test_a_record_that_holds_no_number_is_refused(make_record, store):
    path = store.write(make_record(1))
    path.write_text(path.read_text().replace('"ppl": 7.5', '"ppl": NaN'))
    assert [str(p) for p in store.scan().problems] == [
        f"{path}: metrics.train.valid.ppl: input should be a finite number"
    ]
    path.write_text(make_record(1).to_json().replace('"lr": 20.0', '"lr": Infinity'))
    assert [str(p) for p in store.scan().problems] == [
        f"{path}: spec: not valid JSON values: Out of range float values are not JSON compliant"
    ]


def test_an_unfinished_record_does_not_replace_a_finished_one(make_record, store):
    finished, interrupted = make_record(1), make_record(1, status="interrupted")
    path = store.write(finished)
    assert store.write(interrupted) == path
    assert store.get(finished.run_key) == finished
    store.write(interrupted, replace=True)
    assert store.get(finished.run_key) == interrupted
    store.write(finished)
    assert store.get(finished.run_key) == finished


def test_renaming_a_label_moves_the_record(make_record, store):
    record = make_record(1)
    old = store.write(record)
    renamed = record.model_copy(update={"labels": LabelRef(dataset="hmm", encoder="lstm", head="MoS-15")})
    new = store.write(renamed)
    assert store.paths() == [new]
    assert not old.exists()
    # A kill between writing the new file and removing the old one leaves both: still one run.
    old.write_text(record.to_json())
    assert len(store.load()) == 1


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    atomic_write(path, "old")

    def broken(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="No space left"):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_record_is_found_by_key_prefix_file_name_and_path(make_record, store):
    record = make_record(1)
    path = store.write(record)
    for text in (record.run_key[:4], record.run_key, record.run_key[:8].upper(), path.name, path.stem, str(path)):
        assert store.find(text) == record


def test_a_name_that_fits_no_record_or_several_lists_the_candidates(make_record, store):
    with pytest.raises(InputError) as caught:
        store.find("abcd")
    assert str(caught.value) == f"no record matches 'abcd': {store.records_dir} holds none; run a task first"

    records = [make_record(seed) for seed in range(12)]
    for record in records:
        store.write(record)
    with pytest.raises(InputError) as caught:
        store.find("abc")  # three digits are too few to be a key
    listed = [f"  {r.run_key[:12]}  demo hmm lstm/mos seed {r.seed} (finished)" for r in records[:10]]
    head = "no record matches 'abc'; give 4 or more digits of a run key, or a file name:"
    assert str(caught.value).splitlines() == [head, *listed, "  and 2 more"]


def test_an_ambiguous_prefix_lists_what_it_could_mean(make_record, store, monkeypatch):
    first, second = make_record(1), make_record(2)
    # Real keys with a common prefix of four digits would take thousands of records to meet.
    twins = [record.model_copy(update={"run_key": "abcd" + record.run_key[4:]}) for record in (first, second)]
    monkeypatch.setattr(Store, "scan", lambda _self: (twins, []))
    with pytest.raises(InputError) as caught:
        store.find("abcd")
    assert str(caught.value).splitlines() == [
        "'abcd' names 2 records; give more digits:",
        f"  {twins[0].run_key[:12]}  demo hmm lstm/mos seed 1 (finished)",
        f"  {twins[1].run_key[:12]}  demo hmm lstm/mos seed 2 (finished)",
    ]


def test_records_from_another_machine_are_imported_once(make_record, store, tmp_path):
    other = Store(tmp_path / "node")
    records = [make_record(seed) for seed in (1, 2, 3)]
    for record in records:
        other.write(record)
    odd = tmp_path / "anything.json"
    odd.write_text(make_record(4).to_json())
    report = import_records(store, [other.root, odd])
    assert set(report.added) == {make_record(seed).run_key for seed in (1, 2, 3, 4)}
    again = import_records(store, [other.records_dir, odd])
    assert (set(again.same), again.added, again.refused) == (set(report.added), (), ())
    assert store.load() == [make_record(seed) for seed in (1, 2, 3, 4)]


def test_an_import_prefers_finished_then_later_and_never_guesses(make_record, store, tmp_path):
    def incoming(record: Record) -> list[Path]:
        path = tmp_path / "in.json"
        path.write_text(record.to_json())
        return [path]

    early, finished = make_record(1, status="interrupted"), make_record(1)
    origin = early.provenance.model_copy(update={"ended": "2026-02-01T00:00:00+00:00"})
    later = early.model_copy(update={"provenance": origin})
    store.write(early)
    assert import_records(store, incoming(later)).replaced == (early.run_key,)
    refused = import_records(store, incoming(early)).refused
    where = store.path_of(early)
    prefix = f"{tmp_path / 'in.json'}: a different"
    assert [str(p) for p in refused] == [
        f"{prefix}, later record of this run is already here: {where}; remove it first"
    ]
    assert import_records(store, incoming(finished)).replaced == (early.run_key,)
    refused = import_records(store, incoming(later)).refused
    assert [str(p) for p in refused] == [
        f"{prefix}, finished record of this run is already here: {where}; remove it first"
    ]
    assert store.get(early.run_key) == finished


def test_an_import_refuses_what_is_no_record(store, tmp_path, monkeypatch, make_record):
    missing, pipe, empty, big, forged = (
        tmp_path / name for name in ("no.json", "pipe.json", "empty", "big.json", "forged.json")
    )
    os.mkfifo(pipe)
    empty.mkdir()
    with big.open("wb") as file:
        file.truncate(64 * 1024 * 1024 + 1)
    forged.write_text(make_record(1).to_json().replace(make_record(1).run_key, "../../etc/" + "0" * 54))
    report = import_records(store, [missing, pipe, empty, big, forged])
    assert [str(problem) for problem in report.refused] == [
        f"{missing}: cannot be read: No such file or directory",
        f"{pipe}: not a regular file; give a record's .json file",
        f"{empty}: holds no .json or .zip file, nor does a records folder in it",
        f"{big}: larger than 64 MiB, so not a record",
        f"{forged}: run_key: string should match pattern '^[0-9a-f]{{64}}$'",
    ]
    assert store.paths() == []


def test_a_run_is_locked_by_one_process_until_that_dies(store):
    key = "ab" * 32
    code = (
        "import sys, time; from pathlib import Path; from suite.records.store import Store\n"
        f"with Store(Path({str(store.root)!r})).lock({key!r}) as held:\n    print(held, flush=True); time.sleep(60)"
    )
    assert not store.is_locked(key)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        assert store.is_locked(key)
        with store.lock(key) as held:
            assert held is False
        other.kill()
    assert not store.is_locked(key)
    with store.lock(key) as held:
        assert held is True
        assert store.is_locked(key)
