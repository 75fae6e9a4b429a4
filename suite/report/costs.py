"""The tables of what heads and training steps cost on a GPU, from the files of the GPU benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tabulate import tabulate

from suite.errors import InputError, Problem

HEADS, TRAINING = Path("benchmarks") / "heads.json", Path("benchmarks") / "training.json"
_ARITHMETIC = {"float32": "float32", "tf32": "TF32", "bfloat16": "bfloat16", "float16": "float16"}
# What a page for people shows of the forms: ours, and the peers it stands beside.
_BRIEF = (
    "materialised, as published",
    "materialised, torch.compile",
    "torch cross_entropy",
    "cut-cross-entropy",
    "one pass",
    "one pass, Sigsoftmax",
    "one pass, Plif",
)


def costs_markdown(results: Path, brief: bool = False) -> str:
    """The tables of every benchmark that is there: of the head's loss by shape, and of whole training steps.

    ``brief`` leaves out the forms of the loss that are there to explain others. Empty without any benchmark.

    Raises:
        InputError: a file is not such a benchmark.
    """
    parts = []
    if (results / HEADS).exists():
        parts.append(heads_markdown(results / HEADS, brief))
    if (results / TRAINING).exists():
        parts.append(training_markdown(results / TRAINING))
    return "\n\n".join(parts)


def heads_markdown(path: Path, brief: bool = False) -> str:
    """What a head's loss costs, a block for every shape.

    Args:
        path: ``heads.json``; rows with ``shape``, sizes N, K, d, V, ``form``, ``dtype``, and ``ms`` and ``peak_mib``
            or, where the form could not run, ``failed``.
        brief: fewer forms.

    Raises:
        InputError: the file is not such a file.
    """
    rows, where = _read(path, "heads", "make bench-gpu")
    try:
        shown = [row for row in rows if not brief or row["form"] in _BRIEF]
        shapes = dict.fromkeys((row["shape"], row["N"], row["K"], row["d"], row["V"]) for row in shown)
        blocks = [_block(shape, [row for row in shown if row["shape"] == shape[0]]) for shape in shapes]
    except (KeyError, TypeError, ValueError) as error:
        raise _wrong(path, "heads", "make bench-gpu", error) from None
    note = (
        f"Forward and backward of the head's loss, medians {where}; memory is the allocator's peak above the inputs. "
        "Forms of one shape were measured in turn, in one process."
    )
    return "\n\n".join([note, *blocks])


def training_markdown(path: Path) -> str:
    """What a whole training step costs at full size.

    Args:
        path: ``training.json``; rows with ``case``, ``precision``, ``ms_per_step``, ``seconds_per_epoch``,
            ``validation_seconds`` and, unless packed, ``gpu_peak_mib``; or ``failed``.

    Raises:
        InputError: the file is not such a file.
    """
    rows, where = _read(path, "training", "make bench-train")
    try:
        cells = [_training_row(row) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise _wrong(path, "training", "make bench-train", error) from None
    table = tabulate(
        cells,
        headers=("training at full size", "arithmetic", "ms a step", "s/epoch", "validation s", "GPU peak MiB"),
        tablefmt="pipe",
        colalign=("left", "left", "right", "right", "right", "right"),
        disable_numparse=True,
    )
    note = f"Whole training steps, alone on the GPU unless packed, {where}; the peak is NVML's, of the process."
    return f"{note}\n\n{table}"


def _training_row(row: dict[str, Any]) -> tuple[str, ...]:
    if "failed" in row:
        return row["case"], "", "does not run", "", "", ""
    arithmetic = "/".join(_ARITHMETIC.get(part, part) for part in row["precision"].split("/"))
    peak = f"{row['gpu_peak_mib']:,.0f}" if "gpu_peak_mib" in row else "-"
    times = (f"{row[name]:.2f}" for name in ("ms_per_step", "seconds_per_epoch", "validation_seconds"))
    return row["case"], arithmetic, *times, peak


def _read(path: Path, what: str, command: str) -> tuple[list[dict[str, Any]], str]:
    """The rows of a benchmark, and where and with what it was run."""
    try:
        measured = json.loads(path.read_text(encoding="utf-8"))
        rows: list[dict[str, Any]] = measured["rows"]
        where = f"on one {measured['device']} with torch {measured['torch']}"
        commit = measured.get("commit")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _wrong(path, what, command, error) from None
    return rows, where + (f" at commit {commit[:7]}" if commit else "")


def _wrong(path: Path, what: str, command: str, error: Exception) -> InputError:
    reason = f"cannot be read as a benchmark of {what} ({type(error).__name__}: {error}); run {command} again"
    return InputError(Problem(reason, str(path)))


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
