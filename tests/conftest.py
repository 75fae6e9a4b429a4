"""What every test shares."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before anything imports Triton, as parts of torch do: then its kernels run on a CPU, by its interpreter, where it is
# installed. make test-gpu says otherwise.
os.environ.setdefault("TRITON_INTERPRET", "1")

import torch
from hypothesis import settings
from tiny_tasks import ONE, TINY, Desk

# The tensors of the tests are small: more threads only wait for each other.
torch.set_num_threads(1)

# A change is judged by the same examples every time; at a developer's desk each run looks for new ones.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("desk", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "desk")


@pytest.fixture
def compiled_triton() -> None:
    """Skips where Triton's interpreter, which a process has or has not, stands in for its compiler."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("Triton is interpreted in this process: make test-gpu")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    """An empty working directory with one tiny task."""
    for name in ("SUITE_DATA", "SUITE_RESULTS", "MLFLOW_TRACKING_URI", "COLUMNS", "PYTHONUNBUFFERED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folder = tmp_path / "desk"
    folder.mkdir()
    monkeypatch.chdir(folder)
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield Desk(folder, capsys)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with one finished run of the tiny task, made once."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "tasks").mkdir()
    (folder / "tasks/tiny.yaml").write_text(TINY)
    command = [sys.executable, "-W", "error", "-m", "suite", "run", *ONE, "--device", "cpu", "--threads", "1"]
    done = subprocess.run([*command, "--no-mlflow"], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "\x1b" not in done.stdout, "a file or a pipe gets plain lines"
    assert "\r" not in done.stdout
    return folder / "results"


@pytest.fixture
def with_run(desk: Desk, finished: Path) -> Desk:
    shutil.copytree(finished, desk.results)
    return desk
