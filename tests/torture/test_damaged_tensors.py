"""A flipped or lost bit in a checkpoint or in weights is found before a number of it is used."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from tallies import Tally, times
from tiny_tasks import Desk, one_record

from suite.errors import RunFailed
from suite.models.weights import load_tensors, load_weights
from suite.training.checkpoint import CheckpointFile

CPU = torch.device("cpu")


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    return type(one) is type(other) and one == other


def damages(random: Random, raw: bytes) -> bytes:
    at = random.randrange(len(raw))
    kind = random.randrange(4)
    if kind == 0:
        return raw[:at]
    if kind == 1:
        return raw[:at] + bytes(min(4096, len(raw) - at)) + raw[at + 4096 :]
    return raw[:at] + bytes([raw[at] ^ (1 << random.randrange(8))]) + raw[at + 1 :]


def test_a_damaged_checkpoint_is_never_taken_for_a_whole_one(
    tmp_path: Path, tally: Callable[[str, str], Tally]
) -> None:
    how = "cut, bits flipped, a page of zeros; lost: its numbers used, or not the one before, or nothing said"
    row = tally("a damaged checkpoint", how)
    saved = CheckpointFile(tmp_path, "a" * 64)
    values = {"step": 1, "weights": {"w": torch.randn(60, 40), "b": torch.zeros(3)}, "state": torch.get_rng_state()}
    before = {**values, "step": 0}
    saved.save(before)
    saved.save(values)
    raw = saved.path.read_bytes()
    for number in range(times(60, 2000)):
        saved.path.write_bytes(damages(Random(number), raw))
        said: list[str] = []
        found = saved.load(said.append)
        assert found is not None
        kept = {name: found[name] for name in values}
        row.tried += 1
        # Bytes between the members carry nothing: then it is whole, and not called damaged.
        whole = same(kept, values) and said == []
        fell_back = same(kept, before) and len(said) == 1 and said[0].startswith("checkpoint.pt is damaged (")
        row.lost += not (whole or fell_back)
    assert row.lost == 0


def test_a_flipped_bit_among_the_numbers_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"w": torch.full((100,), 0.5)}, path)
    raw = path.read_bytes()
    number = torch.full((1,), 0.5).numpy().tobytes()
    at = raw.index(number * 100) + 4 * 50
    path.write_bytes(raw[: at + 2] + bytes([raw[at + 2] ^ 1]) + raw[at + 3 :])
    assert torch.load(path, weights_only=True)["w"][50] != 0.5, "torch alone takes it for whole"
    with pytest.raises(RunFailed) as caught:
        load_tensors(path, CPU)
    assert re.fullmatch(r"weights\.pt is damaged \(the checksum of weights/data/\d does not fit\)", str(caught.value))


def test_weights_of_another_model_are_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    model = torch.nn.Linear(3, 2)
    for weights, said in (
        (torch.nn.Linear(4, 2).state_dict(), "weight is [2, 4] there and [2, 3] here"),
        ({"weight": torch.zeros(2, 3)}, "bias is nothing there and [2] here"),
        ({**model.state_dict(), "extra": torch.zeros(1)}, "extra is [1] there and nothing here"),
    ):
        torch.save(weights, path)
        with pytest.raises(RunFailed) as caught:
            load_weights(model, path, CPU)
        assert str(caught.value) == (
            f"weights.pt holds the weights of another model: {said}; run it again with --rerun"
        )
    torch.save([1], path)
    with pytest.raises(RunFailed) as caught:
        load_weights(model, path, CPU)
    assert str(caught.value) == "weights.pt holds no weights"


def test_damaged_weights_of_a_run_are_one_error(with_run: Desk) -> None:
    record = one_record(with_run.results)
    path = with_run.results / "runs" / record.run_key[:16] / "weights.pt"
    path.write_bytes(path.read_bytes()[:1000])
    code, out, err = with_run.suite("export", record.run_key[:8], "--weights", "w")
    assert (code, out) == (2, "")
    assert err == (
        f"error: run {record.run_key[:12]} has no weights that can be exported: "
        "weights.pt is damaged (File is not a zip file)\n"
    )
