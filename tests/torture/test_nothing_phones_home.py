"""The main job, its mirror and its report open no socket to anywhere but this machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from served_ui import listening, read, served, write
from tallies import TORTURE, Tally, confined, times
from tiny_tasks import ONE, TINY

pytestmark = pytest.mark.timeout(180)


def alone(folder: Path, *command: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """A Python command in ``folder`` that can reach this machine alone, and what else it tried to reach."""
    environment = {**confined(folder / "sockets"), "XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    # The suite itself must see to the last.
    for name in ("MLFLOW_TRACKING_URI", "SUITE_DATA", "MLFLOW_DISABLE_TELEMETRY"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return done, (folder / "sockets").read_text().splitlines()


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
    run = ("run", *ONE, "--device", "cpu", "--threads", "1")
    commands = (run, ("report", "--write"), ("sync",), ("report", "--figures"))
    for command in commands[: times(1, len(commands))]:
        done, tried = alone(tmp_path, "-m", "suite", *command)
        assert done.returncode == 0, done.stderr
        assert "mirror" not in done.stderr, done.stderr
        row.tried += 1
        row.lost += tried != []
        assert tried == []
    assert row.lost == 0


@pytest.mark.skipif(not TORTURE, reason="tests/records/test_ui_served.py asks its server each kind once")
def test_no_page_elsewhere_gets_an_answer_of_the_ui(tmp_path: Path, tally: Callable[[str, str], Tally]) -> None:
    row = tally("a page elsewhere that asks the UI", "foreign Host to read, foreign Origin to write; lost: answered")
    (tmp_path / "results").mkdir()
    with served(tmp_path / "results") as ui:
        assert listening(ui.port) == {"127.0.0.1"}
        foreign = ("evil.example", f"evil.example:{ui.port}", "127.0.0.1.evil.example", "169.254.169.254", "0.0.0.0")
        foreign = (*foreign, f"0.0.0.0:{ui.port}", f"192.168.0.1:{ui.port}")
        for host in foreign * 10:
            row.tried += 1
            row.lost += read(ui.port, "/api/2.0/mlflow/experiments/get?experiment_id=1", host)[0] != 403
        for origin in ("http://evil.example", "https://127.0.0.1.evil.example", "null", "file://") * 10:
            row.tried += 1
            name = f"{origin} {row.tried}"
            row.lost += write(ui.port, "/api/2.0/mlflow/experiments/create", {"name": name}, origin) != 403
        assert (tmp_path / "results/sockets").read_text() == ""
    assert row.lost == 0
