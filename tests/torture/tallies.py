"""How often a fault was injected and what it cost, kept for the table of promises."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

TORTURE = os.environ.get("SUITE_TORTURE") == "1"
"""Whether ``make torture`` runs: as often as the promises say, instead of a few times."""

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "results/torture.json"


def confined(sockets: Path) -> dict[str, str]:
    """An environment in which every Python, children too, can reach this machine alone.

    What else it tries is refused and written to ``sockets``, a line each.
    """
    sockets.write_text("")
    path = os.pathsep.join([str(Path(__file__).with_name("alone")), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "SUITE_SOCKETS": str(sockets)}


@dataclass
class Tally:
    """One fault of the table: how it is injected, how often it was, and what was lost by it."""

    fault: str
    how: str
    tried: int = 0
    lost: int = 0


def times(fast: int, full: int) -> int:
    """``full`` under ``make torture``, ``fast`` in the tests of every change."""
    return full if TORTURE else fast


def keep(tally: Tally) -> None:
    """Replaces the row of this fault in ``results/torture.json``."""
    rows = json.loads(KEPT.read_text())["rows"] if KEPT.is_file() else []
    others = [row for row in rows if row["fault"] != tally.fault]
    rows = sorted([*others, asdict(tally)], key=lambda row: str(row["fault"]))
    KEPT.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
