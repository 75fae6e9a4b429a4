"""Bundles: what is exported comes back, whatever is altered is refused with a reason, and nothing is ever executed."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from suite.errors import InputError
from suite.records.bundle import Item, write_bundle
from suite.records.importing import import_records
from suite.records.payload import payload_of
from suite.records.record import Record
from suite.records.store import Store
from suite.records.unbundle import read_bundle

Make = Callable[..., Record]
Files = dict[str, bytes]


@pytest.fixture
def logged(make_record: Make, start_run: Any, add_epoch: Any, store: Store) -> Item:
    """A finished run of three epochs and its event log."""
    where = {"device": "AMD EPYC", "device_kind": "cpu", "python": "3.11.7", "platform": "Linux x86_64"}
    machine = {**where, "versions": {"torch": "2.13.0"}, "cpu_count": 2, "threads": 1}
    record = make_record(1, environment=machine)
    start_run(store, record)
    for number in (1, 2, 3):
        add_epoch(store, record, number)
    store.events(record.run_key).append("end", status="finished")
    return Item(record, store.events(record.run_key).path.read_bytes())


def files_of(data: bytes) -> Files:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(files: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def rehashed(files: Files) -> Files:
    """With a manifest that fits, as somebody who alters a bundle would see to."""
    manifest = json.loads(files["manifest.json"])
    manifest["files"] = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in sorted(files.items())
        if name != "manifest.json"
    }
    return {**files, "manifest.json": json.dumps(manifest).encode()}


def refusal(tmp_path: Path, data: bytes) -> list[str]:
    """What is said of a bundle, the path left out."""
    path = tmp_path / "b.zip"
    path.write_bytes(data)
    into = Store(tmp_path / "into")
    report = import_records(into, [path])
    assert report.added == ()
    assert into.paths() == []
    assert not into.runs_dir.exists()
    return [str(problem).removeprefix(f"{path}: ") for problem in report.refused]


def test_what_is_exported_comes_back_and_twice_is_once(logged: Item, make_record: Make, tmp_path: Path) -> None:
    alone = Item(make_record(2, status="interrupted"), None)
    data = write_bundle([logged, alone])
    assert data == write_bundle([alone, logged, logged]), "sorted, each once, no clock"
    path = tmp_path / "b.zip"
    path.write_bytes(data)
    assert sorted(read_bundle(path), key=str) == sorted([logged, alone], key=str)
    here = Store(tmp_path / "here")
    report = import_records(here, [path])
    assert set(report.added) == {logged.record.run_key, alone.record.run_key}
    assert here.load() == [logged.record, alone.record]
    assert here.events(logged.record.run_key).path.read_bytes() == logged.events
    before = {file: file.read_bytes() for file in here.root.rglob("*") if file.is_file()}
    again = import_records(here, [tmp_path])
    assert (set(again.same), again.added, again.replaced, again.refused) == (set(report.added), (), (), ())
    assert {file: file.read_bytes() for file in here.root.rglob("*") if file.is_file()} == before


def test_a_log_comes_where_none_is_and_replaces_none(logged: Item, tmp_path: Path) -> None:
    path = tmp_path / "b.zip"
    path.write_bytes(write_bundle([logged]))
    here = Store(tmp_path / "here")
    here.write(logged.record)
    log = here.events(logged.record.run_key).path
    import_records(here, [path])
    assert log.read_bytes() == logged.events, "the record was here, its log was not"
    log.write_text("mine\n")
    import_records(here, [path])
    assert log.read_text() == "mine\n"


def test_another_record_is_never_replaced_silently(logged: Item, tmp_path: Path) -> None:
    path = tmp_path / "b.zip"
    here = Store(tmp_path / "here")
    other = logged.record.model_copy(update={"metrics": {"train": {"test": {"ppl": 1.0}}}})
    where = here.write(other)
    path.write_bytes(write_bundle([logged]))
    report = import_records(here, [path])
    assert [str(problem) for problem in report.refused] == [
        f"{path}: a different, finished record of this run is already here: {where}; remove it first"
    ]
    assert here.load() == [other]
    assert not here.events(other.run_key).path.exists()
    assert import_records(here, [path], replace=True).replaced == (other.run_key,)
    assert here.load() == [logged.record]


NOT_WHOLE = "not a whole zip file as `suite export` writes it; copy it or export it again"
STORED = "is compressed or encrypted; a bundle's members are stored as they are"
DAMAGED = "its sha256 is not the manifest's: damaged or altered"


def test_damage_is_refused(logged: Item, tmp_path: Path) -> None:
    data = write_bundle([logged])
    files = files_of(data)
    place = f"runs/{logged.record.run_key[:16]}"
    at = data.index(b'"status": "finished"')
    flipped = data[:at] + b'"status": "finishde"' + data[at + 20 :]
    for bad in (b"", b"PK", b"not a zip", data[:-1], data[:500], data + b"x", flipped):
        assert refusal(tmp_path, bad) == [NOT_WHOLE]
    assert refusal(tmp_path, packed(files, zipfile.ZIP_DEFLATED))[0] == f"member 'manifest.json' {STORED}"
    assert refusal(tmp_path, packed({})) == ["no bundle: it has no manifest.json"]
    altered = {**files, f"{place}/record.json": files[f"{place}/record.json"].replace(b"7.25", b"6.25")}
    assert refusal(tmp_path, packed(altered)) == [f"{place}/record.json: {DAMAGED}"]
    del altered[f"{place}/record.json"]
    assert refusal(tmp_path, packed(altered)) == [f"{place}/record.json: is listed in the manifest and missing"]
    assert refusal(tmp_path, packed(rehashed(altered))) == [f"{place}/record.json: is missing"]
    more = {**files, "runs/0123456789abcdef/record.json": b"{}"}
    assert refusal(tmp_path, packed(more)) == ["runs/0123456789abcdef/record.json: is not listed in the manifest"]


@pytest.mark.parametrize(
    "name",
    ["../evil.json", "/etc/passwd", "runs/../../evil", "runs\\0123456789abcdef\\record.json", "C:/record.json", "a.py",
     "runs/0123456789abcdef/", "runs/0123456789abcdef/weights.pt", "runs/0123456789ABCDEF/record.json",
     "manifest.json ", "runs/0123456789abcdef/record.json.exe"],
)  # fmt: skip
def test_a_name_that_leads_elsewhere_is_refused(logged: Item, tmp_path: Path, name: str) -> None:
    files = {**files_of(write_bundle([logged])), name: b"x"}
    assert refusal(tmp_path, packed(files)) == [f"member {name!r} has a name that no bundle holds"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.zip", "results"]


def test_links_and_doubles_are_refused(logged: Item, tmp_path: Path) -> None:
    data = write_bundle([logged])
    place = f"runs/{logged.record.run_key[:16]}"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo(f"{place}/record.json")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    said = f"member '{place}/record.json' is a link or another thing that is no file"
    assert refusal(tmp_path, buffer.getvalue()) == [said]
    buffer = io.BytesIO(data)
    with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("manifest.json", "{}")
    assert refusal(tmp_path, buffer.getvalue()) == ["member 'manifest.json' stands twice"]


def test_a_bomb_is_refused_before_it_is_read(tmp_path: Path, logged: Item) -> None:
    data = bytearray(write_bundle([logged]))
    end = data.rindex(b"PK\x05\x06")
    many = data[:end] + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 60_000, 60_000, 3_000_000, 0, 0)
    assert refusal(tmp_path, bytes(many)) == ["holds more than the 8,192 members of the largest bundle"]
    # Every entry claims the same large bytes: a quoted overlap.
    files = {"manifest.json": b"x" * 5000, "runs/0123456789abcdef/record.json": b"{}"}
    overlapping = bytearray(packed(files))
    at = overlapping.rindex(b"PK\x01\x02")
    overlapping[at + 20 : at + 28] = struct.pack("<LL", 5000, 5000)
    assert refusal(tmp_path, bytes(overlapping)) == ["its members add up to more than the whole file"]
    path = tmp_path / "big.zip"
    with path.open("wb") as file:
        file.truncate(64 * 1024 * 1024 + 1)
    with pytest.raises(InputError) as caught:
        read_bundle(path)
    assert str(caught.value) == f"{path}: larger than 64 MiB, so not a bundle"


def changed(files: Files, name: str, edit: Callable[[Any], Any]) -> bytes:
    """A bundle with one member's JSON edited and a manifest that fits it."""
    content = json.loads(files[name])
    return packed(rehashed({**files, name: json.dumps(edit(content)).encode()}))


def test_the_manifest_must_be_one(logged: Item, tmp_path: Path) -> None:
    files = files_of(write_bundle([logged]))

    def said(edit: Callable[[Any], Any]) -> list[str]:
        content = edit(json.loads(files["manifest.json"]))
        return refusal(tmp_path, packed({**files, "manifest.json": json.dumps(content).encode()}))

    newer = "written by a newer suite (bundle format 2, and this suite reads 1)"
    assert said(lambda m: {**m, "format": 2}) == [newer]
    assert said(lambda m: {**m, "format": 0}) == [
        "of a kind this suite does not read (bundle format 0, and this suite reads 1)"
    ]
    assert said(lambda m: {**m, "more": 1}) == ["manifest.json.more: unknown field"]
    assert said(lambda m: {k: v for k, v in m.items() if k != "runs"}) == [
        "manifest.json.runs: required field is missing"
    ]
    assert said(lambda m: {**m, "files": {}}) != []
    assert said(lambda _: [])[0].startswith("manifest.json: input should be a valid dictionary")
    runs = "manifest.json: its runs are not those of the records in the bundle"
    assert said(lambda m: {**m, "runs": [{**m["runs"][0], "commit": "f" * 40}]}) == [runs]
    broken = packed({**files, "manifest.json": b"{"})
    assert refusal(tmp_path, broken)[0].startswith("manifest.json: not valid JSON: ")


def test_a_record_that_is_not_what_it_says_is_refused_though_every_hash_fits(logged: Item, tmp_path: Path) -> None:
    files = files_of(write_bundle([logged]))
    key = logged.record.run_key
    place = f"runs/{key[:16]}"
    record, spec, log = (f"{place}/{name}" for name in ("record.json", "spec.json", "events.jsonl"))
    found = refusal(tmp_path, changed(files, record, lambda r: {**r, "spec": {**r["spec"], "seed": 9}}))
    assert len(found) == 1
    assert found[0].startswith(f"{record}: run_key: is {key[:12]}... but the recorded spec has key ")
    newer = refusal(tmp_path, changed(files, record, lambda r: {**r, "schema": 2}))
    assert newer == [f"{record}: written by a newer suite (schema 2); update the suite"]
    older = refusal(tmp_path, changed(files, record, lambda r: {**r, "schema": 0}))
    assert older == [f"{record}: of schema 0, which this suite no longer reads (it reads 1)"]
    (other,) = refusal(tmp_path, changed(files, spec, lambda s: {**s, "seed": 9}))
    assert other.startswith(f"{spec}: is not the spec of the record: its sha256 is ")
    assert other.endswith(f", the run key {key[:12]}")
    assert refusal(tmp_path, packed(rehashed({**files, spec: b"[NaN]"}))) == [
        f"{spec}: is not the spec of the record: it is no JSON object of finite values, the run key {key[:12]}"
    ]
    assert refusal(tmp_path, changed(files, f"{place}/environment.json", lambda _: {"device": "mine"})) == [
        f"{place}/environment.json: is not the environment of the record"
    ]
    moved = {name.replace(key[:16], "0" * 16): content for name, content in files.items()}
    assert refusal(tmp_path, packed(rehashed(moved))) == [f"runs/{'0' * 16}: the record in it is of run {key[:16]}"]

    def of_log(old: bytes, new: bytes) -> list[str]:
        return refusal(tmp_path, packed(rehashed({**files, log: files[log].replace(old, new)})))

    disagrees = f"{log}: does not agree with the record: "
    assert of_log(b'"valid_ppl": 8.5', b'"valid_ppl": 8.4') == [
        f"{disagrees}valid_ppl of epoch 1 is 8.4 in the log and 8.5 in the record"
    ]
    assert of_log(b'"step": 10', b'"step": 11') == [f"{disagrees}step of epoch 1 is 11 in the log and 10 in the record"]
    assert of_log(b'"status": "finished"', b'"status": "diverged"') == [
        f"{disagrees}the log ends with status diverged, the record with finished"
    ]
    assert of_log(key.encode(), b"0" * 64) == [f"{disagrees}the log is of run {'0' * 12}, the record of {key[:12]}"]
    assert of_log(b'"experts": 15', b'"experts": 16') == [
        f"{disagrees}the log was written with another spec than the record's"
    ]
    assert of_log(b'"type": "epoch"', b'"type": "exec"') == [f"{disagrees}event 2 of the log is none that a run writes"]
    assert refusal(tmp_path, packed(rehashed({**files, log: b"\n"}))) == [f"{disagrees}no run begins in the log"]
    better = changed(files, record, lambda r: {**r, "metrics": {"train": {"valid": {"ppl": 5.5}}}})
    assert refusal(tmp_path, better) == [
        f"{disagrees}train valid ppl is 5.5 in the record, and no epoch of the log has that"
    ]


def test_the_times_of_a_machine_may_differ_between_log_and_record(logged: Item, tmp_path: Path) -> None:
    files = files_of(write_bundle([logged]))
    log = f"runs/{logged.record.run_key[:16]}/events.jsonl"
    path = tmp_path / "b.zip"
    path.write_bytes(packed(rehashed({**files, log: files[log].replace(b'"seconds": 1.5', b'"seconds": 9.5')})))
    assert import_records(Store(tmp_path / "here"), [path]).added == (logged.record.run_key,)


def test_a_bundle_is_taken_whole_or_not_at_all(logged: Item, make_record: Make, tmp_path: Path) -> None:
    files = files_of(write_bundle([logged, Item(make_record(2), None)]))
    spec = f"runs/{make_record(2).run_key[:16]}/spec.json"
    assert len(refusal(tmp_path, changed(files, spec, lambda s: {**s, "seed": 3}))) == 1


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_mutation_of_the_file_gives_a_traceback(logged: Item, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(write_bundle([logged]))
    whole = bytes(content)
    for _ in range(data.draw(st.integers(1, 4))):
        # Directory and end are where a zip file is understood; half of the cuts fall there.
        low = data.draw(st.sampled_from([0, whole.index(b"PK\x01\x02"), len(whole) - 40]))
        at = data.draw(st.integers(min(low, len(content)), len(content)))
        length = data.draw(st.integers(0, 8))
        content[at : at + length] = data.draw(st.binary(max_size=8))
    path = tmp_path / "b.zip"
    path.write_bytes(content)
    try:
        items = read_bundle(path)
    except InputError as error:
        assert all(str(problem).startswith(f"{path}") for problem in error.problems)  # noqa: PT017
    else:
        assert items == [logged], "what was changed is told by no member"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_mutation_of_a_member_gives_a_traceback(logged: Item, tmp_path: Path, data: st.DataObject) -> None:
    files = files_of(write_bundle([logged]))
    name = data.draw(st.sampled_from(sorted(files)))
    lines = [json.loads(line) for line in files[name].splitlines()] if name.endswith("l") else [json.loads(files[name])]
    target = data.draw(st.sampled_from(lines))
    # Down to some place in it, and another value there.
    for _ in range(data.draw(st.integers(0, 5))):
        inner = [
            value
            for value in (target.values() if isinstance(target, dict) else target)
            if value and isinstance(value, dict | list)
        ]
        if not inner:
            break
        target = data.draw(st.sampled_from(inner))
    place = data.draw(st.sampled_from(sorted(target) if isinstance(target, dict) else range(len(target))))
    target[place] = data.draw(values)
    files[name] = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    path = tmp_path / "b.zip"
    path.write_bytes(packed(files if name == "manifest.json" else rehashed(files)))
    into = Store(tmp_path / "into")
    shutil.rmtree(into.root, ignore_errors=True)
    report = import_records(into, [path])
    assert bool(report.added) != bool(report.refused)
    for key in report.added:
        # What is taken in, the mirror can read.
        assert payload_of(into, key, into.get(key)) is not None


def test_a_bundle_that_no_import_would_take_is_not_made(make_record: Make) -> None:
    huge = Item(make_record(1), b"x" * (64 * 1024 * 1024))
    with pytest.raises(InputError) as caught:
        write_bundle([huge])
    assert str(caught.value) == (
        "a bundle of 1 run would be larger than the 64 MiB and 8,192 files that an import takes; export fewer at once"
    )
