"""The tables of what heads and training steps cost on a GPU, from the files of the GPU benchmarks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from suite.errors import InputError, Problem

HEADS, TRAINING, RECURRENCE, STAGES = (
    Path("benchmarks") / f"{name}.json" for name in ("heads", "training", "recurrence", "stages")
)
_ARITHMETIC = {"float32": "float32", "tf32": "TF32", "bfloat16": "bfloat16", "float16": "float16"}
# What a page for people shows of the forms: ours, and the peers it stands beside.
BRIEF = (
    "materialised, as published",
    "materialised, torch.compile",
    "torch cross_entropy",
    "cut-cross-entropy",
    "one pass",
    "one pass, Sigsoftmax",
    "one pass, Plif",
)


def costs_markdown(results: Path, brief: bool = False) -> str:
    """The tables of every benchmark that is there: head's loss by shape, training steps, stages, recurrences.

    ``brief`` leaves out what is there to explain the rest. Empty without any benchmark.

    Raises:
        InputError: a file is not such a benchmark.
    """
    parts = []
    if (results / HEADS).exists():
        parts.append(heads_markdown(results / HEADS, brief))
    for file, table in ((TRAINING, training_markdown), (STAGES, stages_markdown), (RECURRENCE, recurrence_markdown)):
        if (results / file).exists() and not (brief and file == RECURRENCE):
            parts.append(table(results / file))
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
    rows, where = read_benchmark(path, "heads", "make bench-gpu")
    try:
        shown = [row for row in rows if not brief or row["form"] in BRIEF]
        shapes = dict.fromkeys((row["shape"], row["N"], row["K"], row["d"], row["V"]) for row in shown)
        blocks = [_block(shape, [row for row in shown if row["shape"] == shape[0]]) for shape in shapes]
    except (KeyError, TypeError, ValueError) as error:
        raise wrong_benchmark(path, "heads", "make bench-gpu", error) from None
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
    rows, where = read_benchmark(path, "training", "make bench-train")
    try:
        cells = [_training_row(row) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise wrong_benchmark(path, "training", "make bench-train", error) from None
    headers = ("training at full size", "arithmetic", "ms a step", "s/epoch", "validation s", "GPU peak MiB")
    note = f"Whole training steps, alone on the GPU unless packed, {where}; the peak is NVML's, of the process."
    return f"{note}\n\n{_table(cells, headers, 2)}"


def stages_markdown(path: Path) -> str:
    """Seconds of the stages that follow training, at full size.

    Args:
        path: ``stages.json``; rows with ``stage``, ``seconds``, ``allocator_peak_mib``.

    Raises:
        InputError: the file is not such a file.
    """
    rows, where = read_benchmark(path, "stages", "tests/bench/stages_gpu.py")
    try:
        cells = [(_named(row, "stage"), f"{row['seconds']:.1f}", f"{row['allocator_peak_mib']:,.0f}") for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise wrong_benchmark(path, "stages", "tests/bench/stages_gpu.py", error) from None
    headers = ("stage, MoS-15 and the test set of Penn Treebank", "s", "allocator's peak MiB")
    return f"Stages after training, {where}.\n\n{_table(cells, headers, 1)}"


def recurrence_markdown(path: Path) -> str:
    """Milliseconds of AWD-LSTM's recurrent layers by cuDNN and by the suite's kernels.

    Args:
        path: ``recurrence.json``; rows with ``stack``, ``products``, ``cudnn``, ``own``, ``own, half of the GPU``.

    Raises:
        InputError: the file is not such a file.
    """
    rows, where = read_benchmark(path, "recurrences", "tests/bench/recurrence_gpu.py --out")
    columns = ("cudnn", "own", "own, half of the GPU")
    try:
        cells = [
            (_named(row, "stack"), arithmetic_title(row["products"]), *(f"{row[name]:.2f}" for name in columns))
            for row in rows
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise wrong_benchmark(path, "recurrences", "tests/bench/recurrence_gpu.py --out", error) from None
    note = (
        "Recurrent layers of AWD-LSTM on Penn Treebank, 70 time steps, weight drop and gradients included: awd is "
        f"400, 1150, 1150, 400 in batches of 20, mos 280, 960, 960, 620 in batches of 12; medians {where}."
    )
    headers = ("layers", "arithmetic", "cuDNN ms", "the suite's kernels ms", "on half of the GPU ms")
    return f"{note}\n\n{_table(cells, headers, 2)}"


def _table(cells: Sequence[tuple[str, ...]], headers: tuple[str, ...], words: int) -> str:
    """A pipe table, its first ``words`` columns to the left."""
    align = ["left"] * words + ["right"] * (len(headers) - words)
    return tabulate(cells, headers=headers, tablefmt="pipe", colalign=align, disable_numparse=True)


def _named(row: dict[str, Any], key: str) -> str:
    """What a row is of, and at which commit where that is not the file's."""
    return f"{row[key]} (at commit {row['commit'][:7]})" if "commit" in row else str(row[key])


def arithmetic_title(name: str) -> str:
    """``TF32`` for ``tf32``; of a pair, both."""
    return "/".join(_ARITHMETIC.get(part, part) for part in name.split("/"))


def _training_row(row: dict[str, Any]) -> tuple[str, ...]:
    case = _named(row, "case")
    if "failed" in row:
        return case, "", "does not run", "", "", ""
    peak = f"{row['gpu_peak_mib']:,.0f}" if "gpu_peak_mib" in row else "-"
    times = (f"{row[name]:.2f}" for name in ("ms_per_step", "seconds_per_epoch", "validation_seconds"))
    return case, arithmetic_title(row["precision"]), *times, peak


def read_benchmark(path: Path, what: str, command: str) -> tuple[list[dict[str, Any]], str]:
    """The rows of a benchmark, and where and with what it was run.

    Args:
        path: a file of ``benchmarks`` in the results folder.
        what: what it measures, in the plural, and ``command`` makes it anew; for the error.
        command: see above.

    Raises:
        InputError: the file is not such a benchmark.
    """
    try:
        measured = json.loads(path.read_text(encoding="utf-8"))
        rows: list[dict[str, Any]] = measured["rows"]
        where = f"on one {measured['device']} with torch {measured['torch']}"
        commit = measured.get("commit")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise wrong_benchmark(path, what, command, error) from None
    return rows, where + (f" at commit {commit[:7]}" if commit else "")


def wrong_benchmark(path: Path, what: str, command: str, error: Exception) -> InputError:
    """The error that says what is wrong with a benchmark's file and which command makes it anew."""
    reason = f"cannot be read as a benchmark of {what} ({type(error).__name__}: {error}); run {command} again"
    return InputError(Problem(reason, str(path)))


def _block(shape: tuple[str, int, int, int, int], rows: list[dict[str, Any]]) -> str:
    _, tokens, experts, size, words = shape
    title = f"**N = {tokens:,}, K = {experts}, d = {size}, V = {words:,}**"
    commits = {row["commit"] for row in rows if "commit" in row}
    title += "".join(f", at commit {commit[:7]}" for commit in sorted(commits))
    cells = [(row["form"], arithmetic_title(row["dtype"]), *_cost(row)) for row in rows]
    return f"{title}\n\n{_table(cells, ('form', 'arithmetic', 'ms', 'MiB'), 2)}"


def _cost(row: dict[str, Any]) -> tuple[str, str]:
    if "failed" in row:
        return "does not run", "-"
    milliseconds = float(row["ms"])
    return f"{milliseconds:.2f}" if milliseconds < 10 else f"{milliseconds:,.1f}", f"{float(row['peak_mib']):,.0f}"
