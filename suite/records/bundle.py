"""A bundle: some runs in one zip file, to be handed on and verified where they arrive.

``manifest.json`` has the SHA-256 of every other member. A run is the folder ``runs/<first 16 digits of its key>`` with
``record.json``, ``spec.json``, ``environment.json`` and, where there is one, ``events.jsonl``. The same runs give the
same bytes on every machine: sorted names, one fixed time, nothing compressed (releases of zlib differ).
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

import suite
from suite.errors import InputError
from suite.records.reading import MAX_BYTES
from suite.records.record import SCHEMA, Record

FORMAT = 1
MANIFEST = "manifest.json"
RECORD, SPEC, ENVIRONMENT, EVENTS = "record.json", "spec.json", "environment.json", "events.jsonl"
MAX_MEMBERS = 8192
_EARLIEST = (1980, 1, 1, 0, 0, 0)


class Item(NamedTuple):
    """A run in a bundle: its record and, where it has one, its event log."""

    record: Record
    events: bytes | None


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Member(_Part):
    """A file of the bundle."""

    bytes: int
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Run(_Part):
    """A run of the bundle, as a reader of the manifest wants to know it."""

    run_key: str
    name: str
    status: str
    commit: str | None
    suite_version: str


class Manifest(_Part):
    """What a bundle holds; ``record_schema`` is that of its records, ``suite_version`` that of who wrote the bundle."""

    format: int
    record_schema: int = Field(alias="schema")
    suite_version: str
    runs: list[Run]
    files: dict[str, Member]


def folder(run_key: str) -> str:
    """Where a run's files lie in a bundle."""
    return f"runs/{run_key[:16]}"


def about(record: Record) -> Run:
    """A record's entry in the manifest."""
    origin = record.provenance
    return Run(
        run_key=record.run_key,
        name=record.name,
        status=record.status,
        commit=origin.commit,
        suite_version=origin.suite_version,
    )


def environment_of(record: Record) -> Any:
    """What ``environment.json`` says: the record's environment, or null."""
    return record.environment.model_dump(mode="json") if record.environment else None


def write_bundle(items: Sequence[Item]) -> bytes:
    """A bundle of some runs, each once, whatever their order.

    Raises:
        InputError: it would be larger than what an import takes.
    """
    runs = {item.record.run_key: item for item in items}
    ordered = [runs[key] for key in sorted(runs)]
    files: dict[str, bytes] = {}
    for record, events in ordered:
        place = folder(record.run_key)
        files[f"{place}/{RECORD}"] = record.to_json().encode()
        files[f"{place}/{SPEC}"] = _json(record.spec)
        files[f"{place}/{ENVIRONMENT}"] = _json(environment_of(record))
        if events is not None:
            files[f"{place}/{EVENTS}"] = events
    manifest = Manifest(
        format=FORMAT,
        schema=SCHEMA,
        suite_version=suite.__version__,
        runs=[about(item.record) for item in ordered],
        files={name: Member(bytes=len(content), sha256=sha256(content)) for name, content in sorted(files.items())},
    )
    content = _zip({MANIFEST: _json(manifest.model_dump(by_alias=True)), **files})
    if len(content) > MAX_BYTES or len(files) >= MAX_MEMBERS:
        count = f"{len(ordered)} run{'s' * (len(ordered) != 1)}"
        raise InputError(
            f"a bundle of {count} would be larger than the {MAX_BYTES >> 20} MiB and {MAX_MEMBERS:,} files that an "
            "import takes; export fewer at once"
        )
    return content


def sha256(content: bytes) -> str:
    """The digest that a manifest gives of a member."""
    return hashlib.sha256(content).hexdigest()


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _zip(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, _EARLIEST)
            info.create_system = 3  # Unix, wherever it is written
            info.external_attr = 0o644 << 16
            archive.writestr(info, files[name])
    return buffer.getvalue()
