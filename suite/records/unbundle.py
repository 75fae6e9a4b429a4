"""A bundle read and verified. Nothing is unpacked to disk and nothing in it is run: members are bytes, then JSON."""

from __future__ import annotations

import io
import json
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from suite.errors import InputError, Problem, raise_all
from suite.records.agreement import contradictions
from suite.records.bundle import (
    ENVIRONMENT,
    EVENTS,
    FORMAT,
    MANIFEST,
    MAX_MEMBERS,
    RECORD,
    SPEC,
    Item,
    Manifest,
    about,
    environment_of,
    folder,
    sha256,
)
from suite.records.events import parse_events
from suite.records.reading import parse_record, read_bytes, spec_key
from suite.records.shape import explained

_NAME = re.compile(r"manifest\.json|runs/[0-9a-f]{16}/(record\.json|spec\.json|environment\.json|events\.jsonl)")
_END = struct.Struct("<4s4H2LH")
_ZIP64 = b"PK\x06\x07"
_LONGEST_ENTRY = 256
# Whatever the library stumbles over in a damaged file.
_DAMAGED = (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, OverflowError, EOFError, OSError)
_DAMAGED = (*_DAMAGED, struct.error, zlib.error, LookupError, AssertionError, MemoryError)  # type: ignore[assignment]
_NOT_WHOLE = "not a whole zip file as `suite export` writes it; copy it or export it again"
_MOST = 5


def read_bundle(path: Path) -> list[Item]:
    """The runs in a bundle, each verified: digests, keys, spec and environment against the record, log against both.

    Raises:
        InputError: it cannot be read, or anything in it does not verify; nothing of such a bundle is returned.
    """
    where = str(path)
    members = _members(read_bytes(path, "bundle", ".zip"), where)
    manifest = _manifest(members, where)
    _check_files(members, manifest, where)
    folders = dict.fromkeys(name.rpartition("/")[0] for name in manifest.files)
    problems: list[Problem] = []
    items = []
    for place in folders:
        try:
            items.append(_item(members, place, where))
        except InputError as error:
            problems.extend(error.problems)
    if not problems and sorted(manifest.runs, key=str) != sorted((about(item.record) for item in items), key=str):
        problems.append(Problem("its runs are not those of the records in the bundle", where, MANIFEST))
    raise_all(problems)
    return items


def _members(data: bytes, where: str) -> dict[str, bytes]:
    """The members by name. Sizes and counts are bounded before anything is read."""
    # Looked at first: the library reads the whole directory, whatever its size.
    tail = data[-_END.size :]
    if (
        len(tail) < _END.size
        or tail[:4] != b"PK\x05\x06"
        or tail[-2:] != b"\0\0"
        or _ZIP64 in data[-_END.size - 20 :][:4]
    ):
        raise InputError(Problem(_NOT_WHOLE, where))
    _, _, _, _, count, size, _, _ = _END.unpack(tail)
    if count > MAX_MEMBERS or size > MAX_MEMBERS * _LONGEST_ENTRY:
        raise InputError(Problem(f"holds more than the {MAX_MEMBERS:,} members of the largest bundle", where))
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            raise_all(_entry_problems(entries, len(data), where))
            contents = {}
            for entry in entries:
                contents[entry.filename] = archive.read(entry)
                if len(contents[entry.filename]) != entry.file_size:
                    raise InputError(Problem(_NOT_WHOLE, where))
            return contents
    except _DAMAGED as error:
        raise InputError(Problem(_NOT_WHOLE, where)) from error


def _entry_problems(entries: list[zipfile.ZipInfo], size: int, where: str) -> list[Problem]:
    found = []
    seen = set()
    for entry in entries:
        name = entry.orig_filename
        said = None
        if _NAME.fullmatch(name) is None or entry.filename != name:
            said = "has a name that no bundle holds"
        elif name in seen:
            said = "stands twice"
        elif stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
            said = "is a link or another thing that is no file"
        elif entry.flag_bits & 0x1 or entry.compress_type != zipfile.ZIP_STORED:
            said = "is compressed or encrypted; a bundle's members are stored as they are"
        seen.add(name)
        if said:
            found.append(Problem(f"member {name[:100]!r} {said}", where))
    if sum(entry.file_size for entry in entries) > size:
        found.append(Problem("its members add up to more than the whole file", where))
    return found[:_MOST]


def _manifest(members: Mapping[str, bytes], where: str) -> Manifest:
    if MANIFEST not in members:
        raise InputError(Problem(f"no bundle: it has no {MANIFEST}", where))
    try:
        payload = _json(members[MANIFEST])
    except (ValueError, RecursionError) as error:
        raise InputError(Problem(f"not valid JSON: {error}", where, MANIFEST)) from error
    written = payload.get("format") if isinstance(payload, dict) else None
    if isinstance(written, int) and written != FORMAT:
        said = "written by a newer suite" if written > FORMAT else "of a kind this suite does not read"
        raise InputError(Problem(f"{said} (bundle format {written}, and this suite reads {FORMAT})", where))
    try:
        return Manifest.model_validate(payload)
    except ValidationError as error:
        raise InputError(*explained(error, where, MANIFEST)) from error


def _check_files(members: Mapping[str, bytes], manifest: Manifest, where: str) -> None:
    problems = []
    for name, entry in manifest.files.items():
        if name not in members:
            problems.append(Problem("is listed in the manifest and missing", where, name[:100]))
        elif len(members[name]) != entry.bytes or sha256(members[name]) != entry.sha256:
            problems.append(Problem("its sha256 is not the manifest's: damaged or altered", where, name))
    extra = sorted(members.keys() - manifest.files.keys() - {MANIFEST})
    problems += [Problem("is not listed in the manifest", where, name) for name in extra]
    if MANIFEST in manifest.files:
        problems.append(Problem("cannot list itself", where, MANIFEST))
    if not manifest.files:
        problems.append(Problem("holds no run", where))
    raise_all(problems[:_MOST])


def _item(members: Mapping[str, bytes], place: str, where: str) -> Item:
    missing = [name for name in (RECORD, SPEC, ENVIRONMENT) if f"{place}/{name}" not in members]
    raise_all([Problem("is missing", where, f"{place}/{name}") for name in missing])
    record = parse_record(members[f"{place}/{RECORD}"], f"{where}: {place}/{RECORD}")
    problems = []
    if folder(record.run_key) != place:
        problems.append(Problem(f"the record in it is of run {record.run_key[:16]}", where, place))
    spec = _loaded(members[f"{place}/{SPEC}"])
    key = _key(spec)
    if key != record.run_key:
        said = f"its sha256 is {key[:12]}" if key else "it is no JSON object of finite values"
        problems.append(
            Problem(
                f"is not the spec of the record: {said}, the run key {record.run_key[:12]}", where, f"{place}/{SPEC}"
            )
        )
    if _loaded(members[f"{place}/{ENVIRONMENT}"]) != environment_of(record):
        problems.append(Problem("is not the environment of the record", where, f"{place}/{ENVIRONMENT}"))
    events = members.get(f"{place}/{EVENTS}")
    if events is not None:
        lines = events.decode("utf-8", "replace").splitlines()
        said_of_log = contradictions(record, list(parse_events(lines)))
        problems += [
            Problem(f"does not agree with the record: {said}", where, f"{place}/{EVENTS}") for said in said_of_log
        ]
    raise_all(problems)
    return Item(record, events)


def _key(spec: Any) -> str:
    try:
        return spec_key(spec) if isinstance(spec, dict) else ""
    except (ValueError, RecursionError):
        return ""


def _loaded(content: bytes) -> Any:
    """The JSON value, or a value that equals nothing where there is none."""
    try:
        return _json(content)
    except (ValueError, RecursionError):
        return object()


def _json(content: bytes) -> Any:
    return json.loads(content.decode(), parse_constant=_no_constant)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")
