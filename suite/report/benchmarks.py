"""Rows of ``results/benchmarks/*.json`` that say what a head costs on a dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from suite.errors import InputError, Problem


def load_benchmarks(folder: Path) -> list[Mapping[str, Any]]:
    """The rows with a ``head`` and a ``dataset``, each with what its file says of all of them and ``file``, its name.

    Other rows (kernels timed by shape) speak of no training step and are left out.

    Raises:
        InputError: a file is no JSON object with a list of rows.
    """
    found: list[Mapping[str, Any]] = []
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(Problem(f"cannot be read as JSON: {error}", str(path))) from None
        if not isinstance(content, dict) or not isinstance(content.get("rows"), list):
            raise InputError(Problem('expected an object with a list "rows"', str(path)))
        shared = {key: value for key, value in content.items() if isinstance(value, str)}
        for row in content["rows"]:
            if isinstance(row, dict) and "head" in row and "dataset" in row:
                found.append({**shared, **row, "file": path.name})
    return found
