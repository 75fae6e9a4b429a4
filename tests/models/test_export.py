"""Weights cut into shards and joined again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from tiny_tasks import Desk, one_record
from torch import Tensor

from suite.errors import InputError
from suite.models.export import export_weights, load_exported

KEY = "ab" * 32
KIB = 1 / 1024


def some_weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    tied = torch.randn(300, 7)
    return {
        "encoder.embedding": tied,
        "encoder.layers.0.weight": torch.randn(16, 3, 2).transpose(0, 1),
        "head.bias": torch.randn(300),
        "head.weight": tied,
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
        "count": torch.arange(5),
    }


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def test_float32_comes_back_bit_for_bit_and_float16_rounded_once(tmp_path: Path) -> None:
    weights = some_weights()
    for dtype, kind in (("float32", torch.float32), ("float16", torch.float16)):
        export_weights(weights, tmp_path / dtype, run_key=KEY, dtype=dtype, shard_mib=4 * KIB)  # type: ignore[arg-type]
        found = load_exported(tmp_path / dtype).weights
        assert found.keys() == weights.keys()
        for name, tensor in weights.items():
            expected = tensor.to(kind) if tensor.is_floating_point() else tensor
            assert torch.equal(found[name], expected)
            assert found[name].dtype == expected.dtype
        assert found["head.weight"].data_ptr() == found["encoder.embedding"].data_ptr(), "tied, and written once"


@given(
    shapes=st.lists(st.lists(st.integers(0, 40), max_size=3), min_size=1, max_size=8),
    kib=st.integers(16, 60),
    name=st.text('aé"\\\n.', max_size=20),
)
def test_every_shard_is_smaller_than_asked_for(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[list[int]], kib: int, name: str
) -> None:
    folder = tmp_path_factory.mktemp("export") / "out"
    weights = {f"{name}{i}": torch.randn(shape) for i, shape in enumerate(shapes)}
    shards = export_weights(weights, folder, run_key=KEY, dtype="float32", shard_mib=kib * KIB)
    assert len(files(folder)) == shards
    assert all(path.stat().st_size < kib * 1024 for path in files(folder))
    found = load_exported(folder).weights
    assert all(torch.equal(found[n], t) for n, t in weights.items())
    total = sum(t.numel() * 4 for t in weights.values())
    assert shards <= 2 * total / (kib * 1024) + 1 + len(shapes), "and not much emptier"


def test_the_index_says_how_to_join(tmp_path: Path) -> None:
    weights = some_weights()
    export_weights(weights, tmp_path / "out", run_key=KEY, dtype="float32", shard_mib=4 * KIB)
    index = json.loads((tmp_path / "out/index.json").read_text())
    assert (index["run_key"], index["dtype"]) == (KEY, "float32")
    for name, entry in index["tensors"].items():
        assert entry["shape"] == list(weights[name].shape)
        pieces = []
        for place in entry["shards"]:
            with safe_open(tmp_path / "out" / index["files"][place["shard"]]["file"], "pt") as shard:
                piece = shard.get_tensor(entry["stored_as"])
            if weights[name].dim():
                assert len(piece) == place["rows"][1] - place["rows"][0]
            pieces.append(piece)
        if len(pieces) > 1:
            assert [p["rows"][0] for p in entry["shards"][1:]] == [p["rows"][1] for p in entry["shards"][:-1]]
        assert torch.equal(torch.cat(pieces) if len(pieces) > 1 else pieces[0], weights[name])
    assert len(index["tensors"]["encoder.embedding"]["shards"]) > 1


def refused(folder: Path, **changed: Any) -> str:
    options: dict[str, Any] = {"run_key": KEY, "dtype": "float32", "shard_mib": 1.0, **changed}
    with pytest.raises(InputError) as error:
        export_weights(options.pop("weights", some_weights()), folder, **options)
    return str(error.value)


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    wide = {"w": torch.zeros(2, 1000)}
    message = "--shard-mib 0.00390625 is too small: one row of tensor w takes 0.00381 MiB; allow more"
    assert refused(out, weights=wide, shard_mib=4 * KIB) == message
    large = {"w": torch.tensor([1.0, 7e4])}
    assert refused(out, weights=large, dtype="float16") == (
        "tensor w has a number beyond the range of float16; export float32"
    )
    assert list(tmp_path.iterdir()) == []
    out.mkdir()
    (out / "mine").touch()
    assert refused(out) == f"--weights {out}: exists and is not an empty folder; name a new one"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_damage_is_found_and_named(tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_weights(some_weights(), out, run_key=KEY, dtype="float32", shard_mib=4 * KIB)
    first, second = files(out)[:2]
    content = bytearray(first.read_bytes())
    content[-1] ^= 1
    first.write_bytes(content)
    second.unlink()
    with pytest.raises(InputError) as error:
        load_exported(out)
    assert str(error.value).splitlines() == [
        f"{first}: is damaged: its sha256 is not the index's; copy it again",
        f"{second}: cannot be read: No such file or directory",
    ]
    with pytest.raises(
        InputError, match=r"index\.json: cannot be read: No such file or directory; is this an export\?\Z"
    ):
        load_exported(tmp_path / "elsewhere")
    index = out / "index.json"
    for text, said in (("{", "is not valid JSON: "), ("[]", "is not an index of format 1"), ("{}", "is not an index")):
        index.write_text(text)
        with pytest.raises(InputError) as error:
            load_exported(out)
        assert str(error.value).startswith(f"{index}: {said}")


def test_a_strangers_index_reads_no_other_file_and_gives_one_error(tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_weights(some_weights(), out, run_key=KEY, dtype="float32", shard_mib=1.0)
    index = out / "index.json"
    whole = json.loads(index.read_text())
    (entry,) = whole["files"]
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    sha = hashlib.sha256(b"secret").hexdigest()

    def said(changed: dict[str, Any]) -> str:
        index.write_text(json.dumps({**whole, **changed}))
        with pytest.raises(InputError) as error:
            load_exported(out)
        return str(error.value)

    where = f"{index}: files.0.file: is not what `suite export` writes: String should match pattern "
    for name in ("../secret", str(secret), "a/weights-00001-of-00001.safetensors"):
        assert said({"files": [{"file": name, "bytes": 6, "sha256": sha}]}).startswith(where)
    lost = f"{index}: files: is not what `suite export` writes: Input should be a valid list"
    assert said({"files": {"file": "x"}}) == lost
    first = next(iter(whole["tensors"]))
    moved = {**whole["tensors"][first], "shards": [{"shard": 7, "rows": [0, 1]}]}
    assert (
        said({"tensors": {first: moved}}) == f"{out}: tensor {first} is not where the index says; copy the export again"
    )
    shard = out / entry["file"]
    shard.write_bytes(b"secret")
    found = {"files": [{**entry, "bytes": 6, "sha256": sha}]}
    assert said(found) == f"{shard}: holds no tensors that can be read"
    assert said({}) == f"{shard}: is damaged: its size is not the index's; copy it again"


def test_the_verb_exports_a_finished_run(with_run: Desk) -> None:
    record = one_record(with_run.results)
    code, out, err = with_run.suite(
        "export", record.run_key[:8], "--weights", "w", "--dtype", "float16", "--shard-mib", "1"
    )
    assert (code, err) == (0, "")
    run = with_run.results / "runs" / record.run_key[:16] / "weights.pt"
    weights = torch.load(run, weights_only=True)
    assert out == f"{record.name}: {len(weights)} tensors in float16, 1 shard in w\n"
    run_key, dtype, found = load_exported(Path("w"))
    assert (run_key, dtype) == (record.run_key, "float16")
    assert all(torch.equal(found[name], tensor.half()) for name, tensor in weights.items())
    run.unlink()
    code, out, err = with_run.suite("export", record.run_key[:8], "--weights", "again")
    assert (code, out) == (2, "")
    assert err == (
        f"error: run {record.run_key[:12]} has no weights here: {run} is missing. Records travel without weights; "
        "export where the run was made\n"
    )
