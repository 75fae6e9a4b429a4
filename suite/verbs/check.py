"""``suite check``: the gate."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from suite.errors import InputError, Problem, did_you_mean, raise_all
from suite.gate.baseline import Baseline, Learned, learn, read, write
from suite.gate.findings import Finding, Verdict, compare
from suite.gate.measuring import Bench, here
from suite.gate.table import render
from suite.progress import Progress
from suite.spec.plan import TASKS, expand
from suite.spec.run_spec import RunSpec
from suite.spec.task import load_task

GATE_TASKS = TASKS / "ci"
GATE_BASELINES = Path("baselines/ci")


def check(options: argparse.Namespace, _arguments: Sequence[str]) -> int:
    """``suite check``; 1 where a number moved."""
    reason = _reason(options)
    tasks = {path.stem: expand(load_task(path)) for path in _chosen(options.names)}
    baselines = {} if options.update else _baselines(tasks)
    findings: list[Finding] = []
    learned: dict[str, Learned] = {}
    now = here(reason)
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(Path(scratch), Progress(sys.stderr))
        for name, specs in tasks.items():
            path = GATE_BASELINES / f"{name}.yaml"
            if options.update:
                earlier = _earlier(path)
                baseline = learn(bench.measure(specs, {}), now, earlier)
                write(path, baseline)
                print(
                    f"{path}: learned {_count(len(baseline.cells), 'cell')} over {len(baseline.seeds)} seeds: {reason}"
                )
                continue
            baseline = baselines[name]
            measured = bench.measure(specs, {cell.cell: cell.step_time.at_most for cell in baseline.cells})
            learned[name] = baseline.learned[0]
            findings += compare(name, baseline, measured, now)
    if findings:
        print(render(findings, learned, markdown=options.format == "markdown"), end="")
    return 1 if any(finding.verdict is Verdict.MOVED for finding in findings) else 0


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _reason(options: argparse.Namespace) -> str:
    given = " ".join((options.reason or "").split())
    if options.update and not given:
        raise InputError("--update needs --reason TEXT: why the numbers may change; it is kept in the baseline")
    if options.reason is not None and not options.update:
        raise InputError("--reason is kept with new baselines, and goes with --update")
    return given


def _chosen(names: Sequence[str]) -> list[Path]:
    """The task files of the gate that are named, or all."""
    known = {path.stem: path for path in sorted(GATE_TASKS.glob("*.yaml"))}
    if not known:
        raise InputError(Problem("no task files here; run the gate where the checkout is", str(GATE_TASKS)))
    raise_all([Problem(f"no task {n!r} in {GATE_TASKS}.{did_you_mean(n, known)}") for n in names if n not in known])
    return [known[name] for name in dict.fromkeys(names or known)]


def _baselines(tasks: dict[str, list[RunSpec]]) -> dict[str, Baseline]:
    """The baselines of tasks, with the problems of all files at once."""
    found: dict[str, Baseline] = {}
    problems: list[Problem] = []
    for name, specs in tasks.items():
        try:
            found[name] = read(GATE_BASELINES / f"{name}.yaml", _seeds(specs))
        except InputError as error:
            problems += error.problems
    raise_all(problems)
    return found


def _seeds(specs: Sequence[RunSpec]) -> list[int]:
    return list(dict.fromkeys(spec.seed for spec in specs))


def _earlier(path: Path) -> list[Learned]:
    """What a baseline that is to be replaced was learned for; nothing where there is none."""
    return list(read(path).learned) if path.exists() else []
