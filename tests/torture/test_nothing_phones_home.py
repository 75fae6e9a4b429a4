"""The main job, its mirror and its report open no socket to anywhere but this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tallies import ALONE, Tally, times
from tiny_tasks import ONE, TINY

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(180)


def alone(folder: Path, *command: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """A Python command in ``folder`` that can reach this machine alone, and what else it tried to reach."""
    sockets = folder / "sockets"
    sockets.write_text("")
    outside = {key: value for key, value in os.environ.items() if key not in ("MLFLOW_TRACKING_URI", "SUITE_DATA")}
    outside.pop("MLFLOW_DISABLE_TELEMETRY", None)  # the suite itself must see to it
    environment = {
        **outside,
        "PYTHONPATH": f"{ALONE}{os.pathsep}{ROOT}",
        "SUITE_SOCKETS": str(sockets),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return done, sockets.read_text().splitlines()


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)",
        "import urllib.request; urllib.request.urlopen('http://example.invalid/')",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
        "import socket; socket.create_server(('0.0.0.0', 0))",
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import socket; "
        'socket.create_server(("", 0))\'], check=True)',
    ],
)
def test_whatever_calls_out_is_seen(tmp_path: Path, code: str) -> None:
    done, tried = alone(tmp_path, "-c", code)
    assert done.returncode != 0
    assert len(tried) == 1


def test_the_main_job_reaches_nothing_but_this_machine(tmp_path: Path, tally: Callable[[str, str], Tally]) -> None:
    row = tally("a network that is not to be used", "run, sync, report, figures with every socket but loopback refused")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/tiny.yaml").write_text(TINY)
    commands = (("run", *ONE, "--device", "cpu", "--threads", "1"), ("report", "--write"), ("sync",), ("report", "--figures"))
    for command in commands[: times(2, len(commands))]:
        done, tried = alone(tmp_path, "-m", "suite", *command)
        assert done.returncode == 0, done.stderr
        assert "mirror" not in done.stderr, done.stderr
        row.tried += 1
        row.lost += tried != []
        assert tried == []
    assert row.lost == 0
