"""A process of its own that feeds mutated files to the real readers and tells what came of it, as JSON.

``python fuzzing.py tasks|records FROM COUNT FOLDER``: inputs FROM to FROM + COUNT, each made from its number alone. A
find is any exception but the suite's own, more than two seconds of processor time, or text that a terminal would obey.
"""

from __future__ import annotations

import contextlib
import json
import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from mutation import as_json, as_yaml, damaged, mutated

from suite.errors import InputError, printable

ROOT = Path(__file__).parents[2]
LONGEST = 2.0
Input = Callable[[int], None]


class _Hang(BaseException):
    """Not an Exception, so that nothing on the way takes it for one of its own."""


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
    if number % 50 == 0:
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


def main() -> None:
    """Run some inputs; the last line is the outcome."""
    kind, first, count, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    one = {"tasks": tasks, "records": records}[kind](folder)

    def hang(_number: int, _frame: object) -> None:
        raise _Hang

    signal.signal(signal.SIGPROF, hang)
    finds = []
    slowest = 0.0
    for number in range(first, first + count):
        start = time.process_time()
        # Processor time: other work on the machine must not decide.
        signal.setitimer(signal.ITIMER_PROF, 5 * LONGEST)
        said = ""
        try:
            one(number)
        except _Hang:
            said = "a hang: " + " | ".join(traceback.format_exc(limit=-3).splitlines())
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            inner = [frame for frame in traceback.extract_tb(error.__traceback__) if "/suite/" in frame.filename]
            last = inner[-1] if inner else where
            said = (
                f"{type(error).__name__}: {str(error)[:200]} at {last.filename.rpartition('/suite/')[2]}:{last.lineno}"
            )
        signal.setitimer(signal.ITIMER_PROF, 0)
        took = time.process_time() - start
        slowest = max(slowest, took)
        if took > LONGEST and not said:
            said = f"{took:.1f} s"
        if said:
            finds.append(f"{kind} {number}: {said}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(json.dumps({"tried": count, "finds": finds, "slowest": round(slowest, 3), "peak_mib": peak}))


if __name__ == "__main__":
    main()
