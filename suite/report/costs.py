"""The table of what a head's loss costs on a GPU, made of the file that ``make bench-gpu`` writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tabulate import tabulate

from suite.errors import InputError, Problem

FILE = Path("benchmarks") / "heads.json"
_ARITHMETIC = {"float32": "float32", "tf32": "TF32", "bfloat16": "bfloat16", "float16": "float16"}


def markdown(path: Path) -> str:
    """The table as Markdown, a block for every shape.

    Args:
        path: ``heads.json``; rows with ``shape``, sizes N, K, d, V, ``form``, ``dtype``, and ``ms`` and ``peak_mib``
            or, where the form could not run, ``failed``.

    Raises:
        InputError: the file is not such a file.
    """
    try:
        measured = json.loads(path.read_text(encoding="utf-8"))
        rows: list[dict[str, Any]] = measured["rows"]
        device, torch_version = measured["device"], measured["torch"]
        shapes = dict.fromkeys((row["shape"], row["N"], row["K"], row["d"], row["V"]) for row in rows)
        blocks = [_block(shape, [row for row in rows if row["shape"] == shape[0]]) for shape in shapes]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"cannot be read as a benchmark of heads ({type(error).__name__}: {error}); run make bench-gpu again"
        raise InputError(Problem(reason, str(path))) from None
    note = (
        f"Forward and backward of the loss, medians on one {device} with torch {torch_version}; memory is the "
        "allocator's peak above the inputs. Forms of one shape were measured in turn, in one process."
    )
    return "\n\n".join([note, *blocks])


def _block(shape: tuple[str, int, int, int, int], rows: list[dict[str, Any]]) -> str:
    _, tokens, experts, size, words = shape
    title = f"**N = {tokens:,}, K = {experts}, d = {size}, V = {words:,}**"
    table = tabulate(
        [(row["form"], _ARITHMETIC.get(row["dtype"], row["dtype"]), *_cost(row)) for row in rows],
        headers=("form", "arithmetic", "ms", "MiB"),
        tablefmt="pipe",
        colalign=("left", "left", "right", "right"),
        disable_numparse=True,
    )
    return f"{title}\n\n{table}"


def _cost(row: dict[str, Any]) -> tuple[str, str]:
    if "failed" in row:
        return "does not run", "-"
    milliseconds = float(row["ms"])
    return f"{milliseconds:.2f}" if milliseconds < 10 else f"{milliseconds:,.1f}", f"{float(row['peak_mib']):,.0f}"
