"""The folder of results: records, which are committed, and the working folders of runs, which are not."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from suite.errors import InputError, Problem, raise_all
from suite.records.events import EventLog
from suite.records.files import atomic_write, file_lock, no_collection, sync_folder
from suite.records.reading import read_record
from suite.records.record import Record

# A probe by the mirror holds a run's lock for an instant; a runner must not take that for another runner.
_LOCK_PATIENCE = 0.5


class Scan(NamedTuple):
    """What a folder of records holds: the good ones, sorted, and what is wrong with the others."""

    records: list[Record]
    problems: list[Problem]


def file_name(record: Record) -> str:
    """``{task}--{dataset}--{encoder}--{head}--s{seed}--{key[:12]}.json``, safe on every file system.

    Labels are shortened to 48 characters; the key keeps the name unique.
    """
    labels = (record.task.name, record.labels.dataset, record.labels.encoder, record.labels.head)
    # "--" separates the parts, and a leading dot would hide the file.
    safe = [re.sub(r"-{2,}", "-", re.sub(r"[^A-Za-z0-9._+-]+", "-", label))[:48].strip(".-") or "x" for label in labels]
    return "--".join([*safe, f"s{record.seed}", record.run_key[:12]]) + ".json"


def _order(record: Record) -> tuple[str, str, str, str, int, str]:
    labels = record.labels
    return (record.task.name, labels.dataset, labels.encoder, labels.head, record.seed, record.run_key)


def rank(record: Record) -> tuple[bool, str]:
    """Of two records of one run the finished one counts, then the later one."""
    return record.status == "finished", record.provenance.ended


class Store:
    """Results under one root: ``records/*.json`` and ``runs/<run_key[:16]>/``."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.records_dir = self.root / "records"
        self.runs_dir = self.root / "runs"

    def run_dir(self, run_key: str) -> Path:
        """Working folder of a run: event log, checkpoints, lock. Not created here."""
        return self.runs_dir / run_key[:16]

    def events(self, run_key: str) -> EventLog:
        """The event log of a run, which may not exist yet."""
        return EventLog(self.run_dir(run_key) / "events.jsonl")

    def is_about(self, error: BaseException) -> bool:
        """Whether an error is the machine's, about a file of these results: a full disk, a lack of permission."""
        return (
            isinstance(error, OSError)
            and isinstance(error.filename, str)
            and Path(os.path.abspath(error.filename)).is_relative_to(os.path.abspath(self.root))
        )

    @contextmanager
    def lock(self, run_key: str) -> Iterator[bool]:
        """True for the one process that may work on this run; it is let go when the process ends, however it ends."""
        with file_lock(self.run_dir(run_key) / "lock", wait=_LOCK_PATIENCE) as held:
            yield held is not None

    def is_locked(self, run_key: str) -> bool:
        """Whether a process works on this run now."""
        path = self.run_dir(run_key) / "lock"
        if not path.exists():
            return False
        with file_lock(path) as held:
            return held is None

    def paths(self) -> list[Path]:
        """Every file that should be a record, by name."""
        return sorted(self.records_dir.glob("[!.]*.json"))

    def scan(self) -> Scan:
        """Read every record; a file that is damaged, foreign or misnamed becomes a problem and hides no other."""
        with no_collection():
            return self._scan()

    def _scan(self) -> Scan:
        best: dict[str, Record] = {}
        problems: list[Problem] = []
        for path in self.paths():
            try:
                record = read_record(path)
            except InputError as error:
                problems.extend(error.problems)
                continue
            if not path.name.endswith(f"--{record.run_key[:12]}.json"):
                message = (
                    f"the name of this record must end in --{record.run_key[:12]}.json; use `suite import` to add it"
                )
                problems.append(Problem(message, str(path)))
                continue
            # A kill between the two steps of a renaming write leaves both files.
            known = best.get(record.run_key)
            if known is None or rank(record) > rank(known):
                best[record.run_key] = record
        return Scan(sorted(best.values(), key=_order), problems)

    def load(self) -> list[Record]:
        """Every record, sorted by task, labels and seed.

        Raises:
            InputError: any file is not a good record; carries a problem for each.
        """
        records, problems = self.scan()
        raise_all(problems)
        return records

    def get(self, run_key: str) -> Record | None:
        """The record of a run, or None.

        Raises:
            InputError: its file is damaged.
        """
        candidates = [read_record(path) for path in self._files_of(run_key)]
        return max((r for r in candidates if r.run_key == run_key), key=rank, default=None)

    def path_of(self, record: Record) -> Path:
        """Where :meth:`write` puts a record."""
        return self.records_dir / file_name(record)

    def write(self, record: Record, *, replace: bool = False) -> Path:
        """Store a record and return its path.

        A finished record is kept when ``record`` is not finished, unless ``replace``; the kept file's path is returned
        then. A file of the same run under older labels is removed once the new one is safe.
        """
        target = self.path_of(record)
        older: list[Path] = []
        for path in self._files_of(record.run_key):
            try:
                known = read_record(path)
            except InputError:
                continue  # damaged: of no use as a result, and left for the user to see unless it is the target
            if known.run_key != record.run_key:
                continue
            if known.status == "finished" and record.status != "finished" and not replace:
                return path
            older.append(path)
        atomic_write(target, record.to_json())
        for path in older:
            if path != target:
                path.unlink(missing_ok=True)
                sync_folder(path.parent)
        return target

    def find(self, text: str, scan: Scan | None = None) -> Record:
        """The record named by a run-key prefix of 4 or more hexadecimal digits, a file name, or a path.

        ``scan`` saves reading the folder again.

        Raises:
            InputError: no record or several match; the candidates are listed.
        """
        if os.path.isfile(text):  # unlike Path.is_file, false for a name too long to exist
            return read_record(Path(text))
        records, problems = scan or self.scan()
        name = text.removesuffix(".json")
        matches = [r for r in records if file_name(r) == f"{name}.json"]
        if not matches and re.fullmatch(r"[0-9a-f]{4,64}", text.lower()):
            matches = [r for r in records if r.run_key.startswith(text.lower())]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise InputError(f"{text!r} names {len(matches)} records; give more digits:{_listing(matches)}")
        if not records:
            raise InputError(*problems, f"no record matches {text!r}: {self.records_dir} holds none; run a task first")
        message = f"no record matches {text!r}; give 4 or more digits of a run key, or a file name:{_listing(records)}"
        raise InputError(*problems, message)

    def _files_of(self, run_key: str) -> list[Path]:
        return sorted(self.records_dir.glob(f"[!.]*--{run_key[:12]}.json"))


def _listing(records: Sequence[Record], limit: int = 10) -> str:
    lines = [f"\n  {r.run_key[:12]}  {r.name} ({r.status})" for r in records[:limit]]
    more = f"\n  and {len(records) - limit} more" if len(records) > limit else ""
    return "".join(lines) + more
