"""Epoch after epoch: neither memory nor open files grow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nursery import Nursery, make_desk
from tallies import Tally, times

from suite.records.store import Store

PLUGIN = '''\
import os
from pathlib import Path
from suite import register
from suite.models.heads.pointwise import Pointwise


@register("pointwise", "watched")
class Watched(Pointwise):
    """g(z) = z; notes this process's memory in use and open files, every hundredth evaluation."""

    calls = 0

    def forward(self, z):
        """Elementwise."""
        if not self.training:
            Watched.calls += 1
            if Watched.calls % 100 == 0:
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                with Path("watched.txt").open("a") as file:
                    file.write(f"{pages * 4} {len(os.listdir('/proc/self/fd'))}\\n")
        return z
'''
KIB_AN_EPOCH = 2.0  # an epoch's curve point is part of the result, and stays


def test_a_day_of_epochs(nursery: Nursery, tmp_path: Path, tally: Callable[[str, str], Tally]) -> None:
    row = tally("a day of epochs", "every epoch of a small run is a try; memory and open files after the first quarter")
    epochs = times(400, 20000)  # a day has 20,000 epochs of four seconds
    desk = make_desk(tmp_path)
    (desk / "watched.py").write_text(PLUGIN)
    text = (desk / "tasks/tiny.yaml").read_text().replace("train_tokens: 400", "train_tokens: 60")
    text = text.replace("stages: [train, {name: finetune, epochs: 1}, dynamic-evaluation]\n", "")
    text = text.replace("{name: softmax, dimension: 3}", "{name: softmax, dimension: 3, pointwise: watched}")
    text = text.replace("epochs: 2}", f"epochs: {epochs}}}").replace("lr: 5", "lr: 0.01")
    (desk / "tasks/tiny.yaml").write_text("plugins: [../watched.py]\n" + text)
    command = [
        "run",
        "tiny",
        "--only",
        "head=watched",
        "--seed",
        "1",
        "--device",
        "cpu",
        "--threads",
        "1",
        "--no-mlflow",
    ]
    ending = nursery.run(desk, [*command, "--checkpoint-seconds", "1"])
    assert ending.status == 0, ending
    (record,) = Store(desk / "results").load()
    assert len(record.curves) == epochs
    seen = [tuple(map(int, line.split())) for line in (desk / "watched.txt").read_text().splitlines()]
    settled = seen[len(seen) // 4 :]
    grown = settled[-1][0] - settled[0][0]
    files = {count for _, count in settled}
    row.tried += epochs
    row.lost += not (grown < KIB_AN_EPOCH * epochs + 4096 and max(files) - min(files) <= 1)
    assert row.lost == 0, (grown, files, seen[:: max(1, len(seen) // 20)])
