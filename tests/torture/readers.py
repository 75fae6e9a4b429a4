"""What is done with mutated files: each kind makes an input of a number, and gives it to what reads such files."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from mutation import as_json, as_yaml, damaged, mutated

from suite.errors import InputError, printable

ROOT = Path(__file__).parents[2]
Input = Callable[[int], None]


def _told(error: InputError) -> None:
    for problem in error.problems:
        text = str(problem)
        assert problem.message, "an error without words"
        assert text.replace("\n", "").isprintable(), text
        assert len(text) < 20_000, f"an error of {len(text):,} characters"


def tasks(folder: Path) -> Input:
    """Task files, read and expanded as every verb does."""
    from ruamel.yaml import YAML

    from suite.spec.plan import expand
    from suite.spec.task import load_task

    names = ("demo", "mos-ptb", "experts-ptb", "ganea2019-mixtures-ptb", "plif-synthetic", "rank-trap")
    files = [path for path in sorted((ROOT / "tasks").glob("*.yaml")) if path.stem in names]
    trees = [YAML(typ="safe", pure=True).load(path.read_text()) for path in files]
    for path in (ROOT / "tasks").glob("*.yaml"):  # what they extend
        (folder / path.name).write_bytes(path.read_bytes())

    def one(number: int) -> None:
        random = Random(number)
        place = random.randrange(len(files))
        raw = files[place].read_bytes()
        if random.random() < 0.65:
            raw = as_yaml(mutated(random, trees[place]), random)
        if random.random() < 0.5:
            raw = damaged(random, raw)
        path = folder / "x.yaml"
        path.write_bytes(raw)
        try:
            for spec in expand(load_task(path)):
                assert len(spec.run_key) == 64
                shown = f"{spec.name} {spec.title} {spec.protocol}"
                assert printable(shown) == shown.replace("\t", " ").replace("\xa0", " "), repr(shown)
        except InputError as error:
            _told(error)

    return one


def records(folder: Path) -> Input:
    """Records, read and shown by every verb that shows some, beside one that is good."""
    from suite.records.published import load_published
    from suite.records.reading import spec_key
    from suite.records.store import Store
    from suite.report import figures  # noqa: F401 - or the first input to be drawn would pay for matplotlib

    files = sorted((ROOT / "results/records").glob("*.json"), key=lambda path: path.name)
    kept = files[:: len(files) // 12]
    trees = [json.loads(path.read_text()) for path in kept]
    published = load_published()
    store = Store(folder / "results")
    store.records_dir.mkdir(parents=True, exist_ok=True)
    good = store.records_dir / kept[1].name
    good.write_bytes(kept[1].read_bytes())

    def one(number: int) -> None:
        random = Random(number)
        tree = dict(random.choice(trees))
        # The spec is whatever its key is made of, and so is anything else that has no fixed names.
        part = random.choice(
            ["spec", "spec", "metrics", "curves", "labels", "task", "provenance", "costs", "model", "", ""]
        )
        if tree.get(part):
            tree[part] = mutated(random, tree[part])
        else:
            tree = mutated(random, tree)
        if isinstance(tree.get("spec"), dict) and random.random() < 0.9:
            # A stranger can compute a key as well as we.
            with contextlib.suppress(ValueError, RecursionError):
                tree["run_key"] = spec_key(tree["spec"])
        raw = as_json(tree)
        if random.random() < 0.15:
            raw = damaged(random, raw)
        path = store.records_dir / f"x--{str(tree.get('run_key'))[:12].encode('ascii', 'replace').decode()}.json"
        path = path if "/" not in path.name and "\0" not in path.name else store.records_dir / "x--0.json"
        path.write_bytes(raw)
        try:
            _look_at(store, path, published, number)
        finally:
            path.unlink()

    return one


def bundles(folder: Path) -> Input:
    """Bundles whose members were changed, their digests computed anew, or whose bytes were."""
    from suite.records.bundle import MANIFEST, Item, write_bundle
    from suite.records.importing import import_records
    from suite.records.reading import read_record
    from suite.records.store import Store

    files = sorted((ROOT / "results/records").glob("*.json"))[::60]
    whole = [write_bundle([Item(read_record(path), None)]) for path in files]
    outside = folder / "outside"
    outside.mkdir(exist_ok=True)

    def one(number: int) -> None:
        random = Random(number)
        raw = random.choice(whole)
        if random.random() < 0.7:
            with zipfile.ZipFile(io.BytesIO(raw)) as archive:
                members = {name: archive.read(name) for name in archive.namelist()}
            name = random.choice(sorted(members))
            members[name] = as_json(mutated(random, json.loads(members[name])))
            if random.random() < 0.3:
                bad = ["../outside/x", "/tmp/x", "runs/../../outside/x", "runs\\x", "runs/" + "a" * 5000, "x\0y", ""]
                members[random.choice(bad)] = members.pop(name)
            manifest = json.loads(members.get(MANIFEST, b"{}"))
            if isinstance(manifest, dict) and isinstance(manifest.get("files"), dict) and random.random() < 0.8:
                manifest["files"] = {
                    name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                    for name, content in members.items()
                    if name != MANIFEST
                }
                members[MANIFEST] = as_json(manifest)
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as archive:
                for name, content in members.items():
                    archive.writestr(zipfile.ZipInfo(name or "x"), content)
            raw = buffer.getvalue()
        if random.random() < 0.4:
            raw = damaged(random, raw)
        path = folder / "b.zip"
        path.write_bytes(raw)
        into = Store(folder / "into")
        report = import_records(into, [path])
        assert report.added or report.same or report.refused
        if report.refused:
            _told(InputError(*report.refused))
        assert list(outside.iterdir()) == []
        assert {entry.name for entry in folder.iterdir()} <= {"b.zip", "into", "outside"}
        shutil.rmtree(into.root, ignore_errors=True)

    return one


def logs(folder: Path) -> Input:
    """Event logs of runs that left no record, as they are imported, and as the mirror reads them."""
    from suite.records.payload import payload_of
    from suite.records.reading import read_record
    from suite.records.recovery import record_from_events
    from suite.records.store import Store

    record = read_record(min((ROOT / "results/records").glob("*--ptb--*.json")))
    start = {
        "type": "start", "time": 1.7e9, "attempt": 1, "run_key": record.run_key, "spec": record.spec,
        "seed": record.seed,
        "scope": record.scope, "task": record.task.model_dump(), "labels": record.labels.model_dump(), "parameters": 1,
        "data": record.provenance.data, "packed": False, "provenance": record.provenance.model_dump(),
        "environment": record.environment.model_dump() if record.environment else {},
    }  # fmt: skip
    epochs = [
        {"type": "epoch", "time": 1.7e9 + n, "stage": "train", "epoch": n, "step": n, "valid_ppl": 9.0, "seconds": 1.0}
        for n in (1, 2, 3)
    ]

    def one(number: int) -> None:
        random = Random(number)
        raw = b"".join(as_json(event) + b"\n" for event in mutated(random, [start, *epochs]))
        if random.random() < 0.3:
            raw = damaged(random, raw)
        path = folder / "events.jsonl"
        path.write_bytes(raw)
        try:
            found = record_from_events(path)
            assert payload_of(Store(folder / "none"), found.run_key, found) is not None
        except InputError as error:
            _told(error)

    return one


def _look_at(store: Any, path: Path, published: Any, number: int) -> None:
    """What the verbs do with a results folder that holds the file."""
    from suite.records.bundle import Item, write_bundle
    from suite.records.payload import payload_of
    from suite.records.selection import load
    from suite.records.views import by_dataset
    from suite.report import listing, show, side_by_side
    from suite.report.leaderboard import build
    from suite.report.sides import side_of
    from suite.report.table import terminal

    found = load(store.root)
    if found.problems:
        _told(InputError(*found.problems))
    if len(found) < 2:
        return
    (record,) = [one for one in found if path.name.endswith(f"--{one.run_key[:12]}.json")] or [found[0]]
    texts = [show.render(record, published)]
    texts.append(listing.render(found, listing.default_columns(found), "table"))
    texts += [listing.render(found, found.own_names, form) for form in ("markdown", "csv", "json")]
    sides = [side_of(letter, "x", [one]) for letter, one in zip("AB", found, strict=False)]
    texts.append(side_by_side.render(sides))
    board = build(list(found), published, tasks={}, show="ours")
    texts.append(terminal(board, 120))
    payload_of(store, record.run_key, record)
    by_dataset(list(found))
    try:
        write_bundle([Item(record, None)])
    except InputError as error:
        _told(error)
    for text in texts:
        wrong = next((line for line in text.split("\n") if not line.isprintable()), "")
        assert not wrong, f"a terminal obeys {wrong[:100]!r}"
    if number % 10 == 0:
        _report(store, found, published)
    if number % 50 == 25:  # none that is reported too: each is measured by itself
        _figures(store, found, published)


def _report(store: Any, found: Any, published: Any) -> None:
    from suite.report.claims import load_claims
    from suite.report.pages import Report

    pages = Report(store.root, list(found), published, {}, load_claims(published))
    try:
        for path in pages.write():
            text = path.read_text(encoding="utf-8")
            assert "\x1b" not in text
            if path.suffix in (".md", ".html"):
                # What stands between fences is shown as it is.
                outside = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
                assert "<script>alert" not in outside
                assert "<img src=x" not in outside
    except InputError as error:
        _told(error)


def _figures(store: Any, found: Any, published: Any) -> None:
    from suite.report.figures import Sources, draw_all
    from suite.report.published_curves import load_curves

    for line in draw_all(Sources(store.root, list(found), {}, load_curves(), published), tidy=True):
        assert line.isprintable(), line


KINDS = {"tasks": tasks, "records": records, "bundles": bundles, "logs": logs}
