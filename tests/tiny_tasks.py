"""Task files whose cells take a fraction of a second, and the `suite` command on them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from suite.cli import main
from suite.records.record import Record
from suite.records.store import Store

DATASET = "{name: hidden-markov, vocabulary: 20, states: 6, train_tokens: 900, valid_tokens: 200, test_tokens: 200}"

TINY = f"""\
title: Small enough to be run many times
version: 1
protocol: test
dataset: {DATASET}
encoder: {{name: lstm, embedding: 6, hidden: [8], tied: false}}
heads:
  - {{name: softmax, dimension: 3}}
  - {{name: mos, experts: 2, dimension: 3, latent_dropout: 0.2}}
seeds: [1, 2]
recipe:
  batch_size: 4
  bptt: 20
  optimizer: {{name: sgd, lr: 5}}
  clip: 0.25
  budget: {{epochs: 2}}
"""

ONE = ("tiny", "--only", "head=softmax", "--seed", "1")  # one cell of it

# The example of a user's own output function: a dozen lines.
CUBIC = '''\
import torch
from suite import register
from suite.models.heads.pointwise import Pointwise
from suite.spec.types import NonNegativeFloat


@register("pointwise", "cubic")
class Cubic(Pointwise):
    """g(z) = z + a z^3, with one learnable a."""

    def __init__(self, *, start: NonNegativeFloat = 0.01):
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor(start))

    def forward(self, z):
        """Elementwise."""
        return z + self.a.clamp(min=0) * z**3
'''


class Desk:
    """A working directory with ``tasks/`` in it, apart from every folder and setting of this machine's user."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self.results = Path("results")
        self._capsys = capsys
        self.write("tasks/tiny.yaml", TINY)

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def suite(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, output and errors of the command, called within this process."""
        self._capsys.readouterr()
        code = main(arguments)
        out, err = self._capsys.readouterr()
        return code, out, err

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """``suite run`` of tasks on the CPU, without MLflow."""
        return self.suite("run", *arguments, "--device", "cpu", "--no-mlflow")

    def process(self, *arguments: str) -> subprocess.Popen[str]:
        """The command as a process of its own."""
        command = [sys.executable, "-W", "error", "-m", "suite", *arguments]
        return subprocess.Popen(
            command, cwd=self.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
        )

    def plan(self, *arguments: str) -> list[list[str]]:
        """The columns of each row that ``suite plan --all`` prints."""
        code, out, err = self.suite("plan", "--all", *arguments)
        assert (code, err) == (0, "")
        return [re.split(r" {2,}", line.strip()) for line in out.splitlines()[2:] if line.startswith("tiny")]


def one_record(results: Path) -> Record:
    """The only record of a results folder."""
    (record,) = Store(results).load()
    return record


def outcome(record: Record) -> object:
    """What must not depend on interruptions: everything but times, costs and provenance."""
    curves = [{k: v for k, v in point.items() if k != "seconds"} for point in record.curves]
    return record.status, record.metrics, curves
