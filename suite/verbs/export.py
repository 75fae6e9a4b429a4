"""The verb that hands on a run's weights: export."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch

from suite.errors import InputError
from suite.models.export import export_weights
from suite.records.store import Store


def export(options: argparse.Namespace, _arguments: Sequence[str]) -> int:
    """``suite export``."""
    store = Store(options.results)
    record = store.find(options.run)
    path = store.run_dir(record.run_key) / "weights.pt"
    if not path.is_file():
        raise InputError(
            f"run {record.run_key[:12]} has no weights here: {path} is missing. Records travel without weights; "
            "export where the run was made"
        )
    weights = torch.load(path, map_location="cpu", weights_only=True)
    shards = export_weights(
        weights, options.out, run_key=record.run_key, dtype=options.dtype, shard_mib=options.shard_mib
    )
    count = f"{len(weights)} tensors in {options.dtype}, {shards} shard{'s' * (shards != 1)}"
    print(f"{record.name}: {count} in {options.out}")
    return 0
