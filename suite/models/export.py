"""Weights as sharded safetensors, each file under a given size, with an index that says how to join and verify them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from suite.errors import InputError, Problem, raise_all

INDEX = "index.json"
FORMAT = 1
_MOST_INDEX = 64 * 1024 * 1024
Dtype = Literal["float16", "float32"]
_DTYPES: Mapping[str, torch.dtype] = {"float16": torch.float16, "float32": torch.float32}
_MIB = 1024 * 1024
# safetensors writes the length of its header, then JSON of about a hundred bytes a tensor besides its name.
_HEADER, _HEADER_EACH = 512, 128


def export_weights(weights: Mapping[str, Tensor], folder: Path, *, run_key: str, dtype: Dtype, shard_mib: float) -> int:
    """Write ``weights`` into ``folder``, which must not exist or be empty; it appears whole or not at all.

    Floating-point tensors are cast to ``dtype``; a tensor larger than a shard is split by rows, its first dimension.
    A tensor under two names (a tied embedding) is written once.

    Returns:
        The number of shards.

    Raises:
        InputError: the folder holds something; a number does not fit ``dtype``; a single row is larger than a shard.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--weights {folder}: exists and is not an empty folder; name a new one")
    limit = int(shard_mib * _MIB)
    cast, same_as = _cast(weights, dtype)
    shards, placed = _pack(cast, limit)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        files = []
        for number, shard in enumerate(shards, 1):
            name = f"weights-{number:05d}-of-{len(shards):05d}.safetensors"
            content = save(shard)
            assert len(content) < limit
            _write(scratch / name, content)
            files.append({"file": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})
        tensors = {
            name: {
                "shape": list(weights[name].shape),
                "dtype": str(cast[same_as[name]].dtype).removeprefix("torch."),
                "stored_as": same_as[name],
                "shards": placed[same_as[name]],
            }
            for name in weights
        }
        index = {"format": FORMAT, "run_key": run_key, "dtype": dtype, "files": files, "tensors": tensors}
        _write(scratch / INDEX, (json.dumps(index, indent=2) + "\n").encode())
        if folder.exists():
            folder.rmdir()
        os.rename(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return len(shards)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _cast(weights: Mapping[str, Tensor], dtype: Dtype) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors in ``dtype`` on the CPU, each once, and under which name each is among them."""
    cast: dict[str, Tensor] = {}
    same_as: dict[str, str] = {}
    first: dict[tuple[int, tuple[int, ...], tuple[int, ...]], str] = {}
    problems = []
    for name, tensor in weights.items():
        # Tied tensors share memory, which loading and saving preserve.
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
        same_as[name] = first.setdefault(key, name) if tensor.numel() else name
        if same_as[name] != name:
            continue
        value = tensor.detach().cpu()
        if value.is_floating_point():
            finite = torch.isfinite(value).all()
            value = value.to(_DTYPES[dtype])
            if finite and not torch.isfinite(value).all():
                problems.append(Problem(f"tensor {name} has a number beyond the range of {dtype}; export float32"))
        cast[name] = value.contiguous()
    if problems:
        raise InputError(*problems)
    return cast, same_as


def _pack(cast: Mapping[str, Tensor], limit: int) -> tuple[list[dict[str, Tensor]], dict[str, list[dict[str, Any]]]]:
    """Shards in order, tensors filling one after the other, and where the rows of each tensor went."""
    shards: list[dict[str, Tensor]] = [{}]
    placed: dict[str, list[dict[str, Any]]] = {name: [] for name in cast}
    room = limit - _HEADER

    def put(name: str, piece: Tensor, start: int) -> None:
        nonlocal room
        shards[-1][name] = piece.clone()
        room -= _cost(name, piece.numel() * piece.element_size())
        placed[name].append({"shard": len(shards) - 1, "rows": [start, start + (len(piece) if piece.dim() else 1)]})

    for name, tensor in cast.items():
        size = tensor.numel() * tensor.element_size()
        if _cost(name, size) >= room and shards[-1] and _cost(name, size) < limit - _HEADER:
            shards.append({})
            room = limit - _HEADER
        if _cost(name, size) < room:
            put(name, tensor, 0)
            continue
        row = size // len(tensor) if tensor.dim() and len(tensor) else size
        if _cost(name, row) >= limit - _HEADER:
            what = f"one row of tensor {name} takes {row / _MIB:.3g} MiB"
            raise InputError(f"--shard-mib {limit / _MIB:g} is too small: {what}; allow more")
        start = 0
        while start < len(tensor):
            rows = max(0, room - 1 - _cost(name, 0)) // row
            if rows == 0:
                shards.append({})
                room = limit - _HEADER
                continue
            put(name, tensor[start : start + rows], start)
            start += rows
    return shards, placed


def _cost(name: str, size: int) -> int:
    # JSON escapes and UTF-8 lengthen a name at most sixfold.
    return size + _HEADER_EACH + 6 * len(name)


class Exported(NamedTuple):
    """What an export holds: the run it is of, the type of its floating-point tensors, and its state dict."""

    run_key: str
    dtype: Dtype
    weights: dict[str, Tensor]


def load_exported(folder: Path) -> Exported:
    """What :func:`export_weights` wrote, joined and verified; floating-point tensors as exported.

    Raises:
        InputError: anything is missing, damaged or contradicts the index; every problem is named.
    """
    index = _read_index(folder)
    shards = _read_shards(folder, index)
    stored: dict[str, Tensor] = {}
    problems: list[Problem] = []
    for name, entry in index.tensors.items():
        source = entry.stored_as
        try:
            if source not in stored:
                pieces = [shards[place.shard][source] for place in entry.shards]
                stored[source] = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        except (LookupError, RuntimeError):
            problems.append(Problem(f"tensor {name} is not where the index says; copy the export again", str(folder)))
            continue
        found = stored[source]
        if list(found.shape) != entry.shape or str(found.dtype) != f"torch.{entry.dtype}":
            what = f"tensor {name} is {found.dtype} {list(found.shape)}, not {entry.dtype} {entry.shape}"
            problems.append(Problem(what, str(folder)))
    raise_all(problems)
    weights = {name: stored[entry.stored_as] for name, entry in index.tensors.items()}
    return Exported(index.run_key, index.dtype, weights)


def _read_shards(folder: Path, index: _Index) -> list[dict[str, Tensor]]:
    problems: list[Problem] = []
    shards: list[dict[str, Tensor]] = []
    for entry in index.files:
        path = folder / entry.file
        try:
            if path.stat().st_size != entry.bytes:
                problems.append(Problem("is damaged: its size is not the index's; copy it again", str(path)))
                continue
            content = path.read_bytes()
        except OSError as error:
            problems.append(Problem(f"cannot be read: {error.strerror}", str(path)))
            continue
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            problems.append(Problem("is damaged: its sha256 is not the index's; copy it again", str(path)))
            continue
        try:
            shards.append(load(content))
        except (SafetensorError, ValueError, KeyError):  # KeyError: a type of number that torch has not
            problems.append(Problem("holds no tensors that can be read", str(path)))
    raise_all(problems)
    return shards


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _File(_Strict):
    # A name in the folder itself, of the kind that an export writes.
    file: Annotated[str, Field(pattern=r"^weights-\d{5,}-of-\d{5,}\.safetensors$")]
    bytes: int
    sha256: str


class _Place(_Strict):
    shard: Annotated[int, Field(ge=0)]
    rows: tuple[int, int]


class _Tensor(_Strict):
    shape: list[int]
    dtype: str
    stored_as: str
    shards: Annotated[list[_Place], Field(min_length=1)]


class _Index(_Strict):
    format: Literal[1]
    run_key: str
    dtype: Dtype
    files: list[_File]
    tensors: dict[str, _Tensor]


def _read_index(folder: Path) -> _Index:
    path = folder / INDEX
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_INDEX + 1)
    except OSError as error:
        raise InputError(Problem(f"cannot be read: {error.strerror}; is this an export?", str(path))) from None
    if len(content) > _MOST_INDEX:
        raise InputError(Problem(f"larger than {_MOST_INDEX // _MIB} MiB, so not an index", str(path)))
    try:
        index = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(Problem(f"is not valid JSON: {error}", str(path))) from None
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise InputError(Problem(f"is not an index of format {FORMAT}", str(path)))
    try:
        return _Index.model_validate(index)
    except ValidationError as error:
        detail = error.errors()[0]
        place = ".".join(map(str, detail["loc"]))[:200]
        raise InputError(Problem(f"is not what `suite export` writes: {detail['msg']}", str(path), place)) from None
