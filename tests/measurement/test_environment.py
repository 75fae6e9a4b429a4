"""Where a run happened, and what must not be told of it."""

from __future__ import annotations

import getpass
import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from fake_gpu import CUDA, FakeGpu

from suite.measurement import environment as module
from suite.measurement.environment import Revision, command_line, environment, revision
from suite.measurement.nvml import Nvml


def test_a_cpu_run_tells_machine_and_versions() -> None:
    found = environment(torch.device("cpu"), None)
    assert found.device_kind == "cpu"
    assert found.device
    assert found.threads == torch.get_num_threads()
    assert {"torch", "numpy"} <= found.versions.keys()
    assert (found.driver, found.cuda, found.cudnn, found.tf32_matmul, found.tf32_cudnn) == (None,) * 5


def test_a_gpu_run_tells_the_driver_and_the_precision(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA Made-up")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    found = environment(CUDA, Nvml.open(CUDA))
    assert (found.device, found.device_kind, found.driver) == ("NVIDIA Made-up", "cuda", gpu.version)
    assert found.cudnn == "91002"
    assert isinstance(found.tf32_matmul, bool)


def test_no_host_no_user_no_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "secret-host")
    monkeypatch.setenv("USER", "secret-user")
    text = environment(torch.device("cpu"), None).model_dump_json()
    assert "secret" not in text
    private = [os.uname().nodename, str(Path.home()), str(Path.cwd()), f'"{getpass.getuser()}"']
    assert [word for word in private if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text)] == []


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["run", "demo", "--only", "head=mos"], "suite run demo --only head=mos"),
        (["run", "tasks/demo.yaml"], "suite run tasks/demo.yaml"),
        (["run", "/home/me/tasks/demo.yaml", "--data-dir", "/data/ptb"], "suite run demo.yaml --data-dir ptb"),
        (["run", "demo", "--data-dir=/home/me/data", "--seed=1"], "suite run demo --data-dir=data --seed=1"),
        (["run", "my task.yaml", "--only", "head=a b"], "suite run 'my task.yaml' --only 'head=a b'"),
    ],
)
def test_the_command_without_the_folders_of_this_machine(arguments: list[str], shown: str) -> None:
    assert command_line(arguments) == shown


Git = Callable[..., str]


def fresh() -> Revision:
    """What a new process would find: the answer is kept for the life of one."""
    revision.cache_clear()
    return revision()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Git]:
    """A repository that looks like the suite's own, and git in it."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("SUITE_COMMIT", raising=False)
    source = tmp_path / "suite" / "measurement" / "environment.py"
    source.parent.mkdir(parents=True)
    source.write_text("code\n")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "LEADERBOARD.md").write_text("old\n")
    monkeypatch.setattr(module, "__file__", str(source))

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    yield git
    # What was found there is of no process after this.
    revision.cache_clear()


def test_a_checkout_tells_its_commit_and_changes_to_code_alone(checkout: Git, tmp_path: Path) -> None:
    checkout("init")
    checkout("add", ".")
    checkout("commit", "-m", "first")
    head = checkout("rev-parse", "HEAD")
    assert fresh()[:2] == (head, False)
    (tmp_path / "results" / "LEADERBOARD.md").write_text("new\n")
    (tmp_path / "scratch.txt").write_text("untracked\n")
    assert fresh()[:2] == (head, False), "results written by runs are no change of the code"
    (tmp_path / "suite" / "measurement" / "environment.py").write_text("other code\n")
    assert fresh()[:2] == (head, True)


def test_a_change_of_what_a_step_is_made_of_is_another_code_and_any_other_change_is_not(
    checkout: Git, tmp_path: Path
) -> None:
    package = tmp_path / "suite"
    assert fresh().step_code is None, "of no sources, as in an archive, nothing is known"
    (package / "attempt.py").write_text("x = 1\n")
    before = fresh().step_code
    assert before is not None
    others = ("report/table.py", "evaluation/rank.py", "cli.py", "models/notes.md", "data/corpora.py")
    for name in others:
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text("changed\n")
    (package / "models" / ".#editing.py").symlink_to("nowhere")
    assert fresh().step_code == before
    seen = {before}
    for name in ("kernels/lstm.cu", "models/heads/mixture.py", "training/loop.py", "data/batching.py", "stages.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("x = 1\n")
        seen.add(str(fresh().step_code))
    (package / "kernels" / "lstm.cu").rename(package / "kernels" / "lstm_a.cu")
    seen.add(str(fresh().step_code))
    assert len(seen) == 7
    (package / "training" / "lost.py").symlink_to("nowhere")
    assert fresh().step_code is None


def test_outside_a_checkout_the_commit_is_what_the_environment_says(
    checkout: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fresh()[:2] == (None, None)
    monkeypatch.setenv("SUITE_COMMIT", "abc123")
    assert fresh()[:2] == ("abc123", None)


def test_a_copy_inside_anothers_checkout_does_not_claim_its_commit(
    checkout: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout("init")
    checkout("add", ".")
    checkout("commit", "-m", "first")
    installed = tmp_path / "venv" / "suite" / "measurement" / "environment.py"
    monkeypatch.setattr(module, "__file__", str(installed))
    assert fresh()[:2] == (None, None)


def test_without_git_there_is_no_commit(checkout: Git, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout("init")
    monkeypatch.setenv("PATH", "")
    assert fresh()[:2] == (None, None)
