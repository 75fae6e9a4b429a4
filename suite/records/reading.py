"""Record files read and checked: whole, of a schema this suite knows, and bearing the key of their own spec."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from suite.errors import InputError, Problem, raise_all
from suite.records.record import SCHEMA, Record
from suite.records.shape import explained, problems_of_spec
from suite.spec.run_spec import canonical_json

MAX_BYTES = 64 * 1024 * 1024


def spec_key(spec: dict[str, Any]) -> str:
    """The run key of a recorded spec: sha256 of its canonical JSON. ValueError when it is no finite, valid JSON."""
    return hashlib.sha256(canonical_json(spec).encode()).hexdigest()


def read_bytes(path: Path, what: str = "record", suffix: str = ".json") -> bytes:
    """The content of a regular file of at most 64 MiB; ``what`` it should be, and how its name ends, for messages.

    Raises:
        InputError: missing, unreadable, not a regular file, or too large.
    """
    try:
        # A named pipe would block an ordinary open for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise InputError(Problem(f"not a regular file; give a {what}'s {suffix} file", str(path)))
            # Whole where it is small enough; a buffer would take three times as long for thousands of files.
            data = file.readall() if status.st_size <= MAX_BYTES else None
    except OSError as error:
        raise InputError(Problem(f"cannot be read: {error.strerror}", str(path))) from error
    if data is None or len(data) > MAX_BYTES:
        raise InputError(Problem(f"larger than {MAX_BYTES >> 20} MiB, so not a {what}", str(path)))
    return data


def parse_record(data: bytes, where: str) -> Record:
    """The record in ``data``; ``where`` names its file in messages.

    Raises:
        InputError: every problem found: broken JSON with its line and column, a newer schema, missing, unknown or
            mistyped fields, a run key that is not the sha256 of the recorded spec.
    """
    try:
        record = Record.model_validate_json(data)
    except ValidationError as error:
        raise InputError(*_explain(data, where, error)) from error
    return verified(record, where)


def verified(record: Record, where: str) -> Record:
    """The record, if its run key is that of its spec and its spec one that this suite can read.

    Raises:
        InputError: what is wrong with them; ``where`` names the file.
    """
    try:
        key = spec_key(record.spec)
    except (ValueError, RecursionError) as error:
        raise InputError(Problem(f"not valid JSON values: {error}", where, "spec")) from error
    if key != record.run_key:
        message = (
            f"is {record.run_key[:12]}... but the recorded spec has key {key[:12]}...: "
            "the file was altered after its run; restore it or remove it"
        )
        raise InputError(Problem(message, where, "run_key"))
    raise_all(problems_of_spec(record, where))
    return record


def read_record(path: Path) -> Record:
    """The record in a file.

    Raises:
        InputError: see :func:`read_bytes` and :func:`parse_record`.
    """
    return parse_record(read_bytes(path), str(path))


def _explain(data: bytes, where: str, error: ValidationError) -> list[Problem]:
    try:
        payload = json.loads(data.decode())
    except json.JSONDecodeError as broken:
        problem = f"not whole JSON ({broken.msg}): the file is truncated or damaged; restore it or remove it"
        return [Problem(problem, f"{where}:{broken.lineno}:{broken.colno}")]
    except (ValueError, RecursionError):
        return [Problem("not a JSON text in UTF-8; restore it or remove it", where)]
    if not isinstance(payload, dict):
        return [Problem(f"a record is a JSON object, not {type(payload).__name__}", where)]
    schema = payload.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        return [Problem(f"written by a newer suite (schema {schema}); update the suite", where)]
    if isinstance(schema, int) and schema < SCHEMA:
        return [Problem(f"of schema {schema}, which this suite no longer reads (it reads {SCHEMA})", where)]
    if schema is None:
        return [Problem('not a record: it has no "schema" field', where)]
    return explained(error, where)
