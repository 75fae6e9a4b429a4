"""Streams that are lent: one user each, and no more of them than there are users at a time."""

from __future__ import annotations

import gc

import pytest
import torch
from tiny_tasks import TINY, Desk

from suite.models.streams import Streams
from suite.records.store import Store


class User:
    pass


def test_a_stream_is_lent_again_once_its_user_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: ("stream", next(numbers), device))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    numbers = iter(range(9))
    streams, here = Streams(), torch.device("cuda", 1)
    first, second = User(), User()
    assert streams.lend(first, here) == ("stream", 0, here)
    assert streams.lend(second, here) == ("stream", 1, here), "nobody shares one"
    del first
    gc.collect()
    third, fourth, elsewhere = User(), User(), User()
    assert streams.lend(elsewhere, torch.device("cuda", 0)) == ("stream", 2, torch.device("cuda", 0))
    assert streams.lend(third, torch.device("cuda")) == ("stream", 0, here), "the device at hand is this one"
    assert streams.lend(fourth, here) == ("stream", 3, here)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.usefixtures("compiled_triton")
def test_a_run_does_not_count_the_memory_of_those_before_it(desk: Desk) -> None:
    desk.write("tasks/tiny.yaml", TINY.replace("seeds: [1, 2]", "seeds: [1, 2, 3, 4]"))
    assert desk.suite("run", "tiny", "--only", "head=softmax", "--device", "cuda", "--no-mlflow")[0] == 0
    runs = [record.costs for record in Store(desk.results).load()]
    peaks = [costs.allocator_peak_mib for costs in runs if costs and costs.allocator_peak_mib]
    assert len(peaks) == 4
    assert max(peaks) - min(peaks) < 4, "a workspace is 8 MiB or more"
