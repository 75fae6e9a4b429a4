"""Where and from what a run was made: machine, versions, code, command. No host name, user or absolute path."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from suite.measurement.nvml import Nvml
from suite.records.record import Environment

_PACKAGES = ("torch", "numpy", "mlflow", "pandas", "triton")
# Where a training step's time comes from, in the package: its batches, what computes on them, and what reads the clock
# and the meters meanwhile. Reading corpora, evaluating and reporting are not among it.
_STEP = (
    "attempt.py", "stages.py", "data/batching.py", "data/streamed.py", "kernels/*.py", "kernels/*.cu",
    "measurement/clock.py", "measurement/energy.py", "measurement/meters.py", "models/**/*.py", "training/*.py",
)  # fmt: skip


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def environment(device: torch.device, nvml: Nvml | None) -> Environment:
    """Describe the machine as it is set up now; call after the precision flags are set."""
    cuda = device.type == "cuda"
    cudnn = torch.backends.cudnn.version() if cuda else None  # type: ignore[no-untyped-call]
    return Environment(
        device=torch.cuda.get_device_name(device) if cuda else _processor(),
        device_kind="cuda" if cuda else "cpu",
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        versions=_versions(),
        cpu_count=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        driver=nvml.driver() if nvml else None,
        cuda=torch.version.cuda if cuda else None,
        cudnn=str(cudnn) if cudnn is not None else None,
        tf32_matmul=torch.backends.cuda.matmul.allow_tf32 if cuda else None,
        tf32_cudnn=torch.backends.cudnn.allow_tf32 if cuda else None,
    )


def _git(*arguments: str) -> str | None:
    root = Path(__file__).resolve().parents[2]
    # Only the suite's own checkout: an installed copy inside another project's tree must not claim that commit.
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


class Revision(NamedTuple):
    """Which code runs: its commit, whether it differs from that, and a digest of what a training step is made of."""

    commit: str | None
    dirty: bool | None
    step_code: str | None


@functools.cache
def revision() -> Revision:
    """The suite's; results written by runs do not count as changes.

    Asked once a process: what is edited later is not what runs.
    """
    head = _git("rev-parse", "HEAD")
    if head is None:
        # A checkout shipped without its history names its commit in the environment.
        return Revision(os.environ.get("SUITE_COMMIT"), None, _step_code())
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results")
    return Revision(head.strip(), bool(changes.strip()) if changes is not None else None, _step_code())


def _step_code() -> str | None:
    """sha256 over names and bytes of the sources; None where they cannot be read, as in an archive."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    try:
        # A name with a dot before it is an editor's.
        sources = {path for part in _STEP for path in package.glob(part) if not path.name.startswith(".")}
        for path in sorted(sources):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(package).as_posix()} {len(content)}\n".encode() + content)
    except OSError:
        return None
    return digest.hexdigest() if sources else None


def command_line(arguments: Sequence[str]) -> str:
    """The command as it can be typed again; absolute paths keep their last part only, also behind ``--option=``."""
    return shlex.join(["suite", *map(_without_folder, arguments)])


def _without_folder(argument: str) -> str:
    option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return option + equals + (Path(value).name if os.path.isabs(value) else value)
