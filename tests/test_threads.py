"""How many CPU threads a command takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from suite.verbs.common import set_threads


@pytest.fixture(autouse=True)
def eight() -> Iterator[None]:
    """Torch's own choice is eight."""
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("files", "threads"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "250000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "6400000 100000\n"}, 8),
        ({"cpu.max": "what is this\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
    ],
)
def test_no_more_threads_than_the_container_may_use(tmp_path: Path, files: dict[str, str], threads: int) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    set_threads(None, tmp_path)
    assert torch.get_num_threads() == threads


def test_what_is_asked_for_is_taken(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    set_threads(3, tmp_path)
    assert torch.get_num_threads() == 3
