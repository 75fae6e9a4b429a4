"""Mutated task files, records, bundles and logs by the thousand: one clear error each, soon, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tallies import Tally, times

ROOT = Path(__file__).parents[2]
MOST_MIB = 500
# A process of its own for so many, so that the memory of one does not hide in that of all.
BATCH = 2_500

HOW = {
    "tasks": "structure, text and bytes changed at random; read and expanded; lost: an exception, 2 s, 500 MB",
    "records": "changed likewise, the key computed anew; through show, query, compare, report, figures, export, mirror",
    "bundles": "members changed and hashed anew, names that lead elsewhere, bytes changed; imported; lost: as above",
    "logs": "events and bytes changed; imported and mirrored; lost: as above",
}


# How many in the tests of every change, and in those of the promises.
COUNTS = {"tasks": (150, 20_000), "records": (150, 20_000), "bundles": (50, 5_000), "logs": (100, 5_000)}
NAMES = {"tasks": "task files", "records": "records", "bundles": "bundles", "logs": "event logs"}


@pytest.mark.parametrize("kind", COUNTS)
def test_no_mutation_is_answered_with_anything_but_the_suites_own_error(
    kind: str, tmp_path: Path, tally: Callable[[str, str], Tally]
) -> None:
    row = tally(f"mutated {NAMES[kind]}", HOW[kind])
    wanted = times(*COUNTS[kind])
    finds: list[str] = []
    for first in range(0, wanted, BATCH):
        folder = tmp_path / str(first)
        folder.mkdir()
        count = min(BATCH, wanted - first)
        command = [sys.executable, "-W", "error", str(Path(__file__).with_name("fuzzing.py")), kind, str(first)]
        done = subprocess.run(
            [*command, str(count), str(folder)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr[-2000:]
        outcome = json.loads(done.stdout.splitlines()[-1])
        row.tried += outcome["tried"]
        row.lost += len(outcome["finds"])
        finds += outcome["finds"]
        assert outcome["peak_mib"] < MOST_MIB
    assert finds[:20] == []
    assert row.tried == wanted
