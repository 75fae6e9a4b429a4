"""The verb that hands on runs: as a bundle, or the weights of one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from suite.errors import InputError, RunFailed
from suite.records.agreement import contradictions
from suite.records.bundle import Item, sha256, write_bundle
from suite.records.events import parse_events
from suite.records.files import atomic_write
from suite.records.record import Record
from suite.records.selection import Results
from suite.records.store import Store


def export(options: argparse.Namespace, _arguments: Sequence[str]) -> int:
    """``suite export``."""
    if options.out is None and options.weights is None:
        raise InputError("name what to write: --out FILE.zip for a bundle of the runs, --weights DIR for one's weights")
    if options.weights is None and (options.dtype or options.shard_mib):
        raise InputError("--dtype and --shard-mib are about weights; name a folder for them with --weights DIR")
    store, results = Store(options.results), Results(options.results)
    records = {record.run_key: record for text in options.runs for record in results.named(text)}
    if options.weights is not None and len(records) != 1:
        raise InputError(f"--weights takes one run, and these are {len(records)}; name one")
    if options.out is not None:
        _bundle(store, list(records.values()), options.out)
    if options.weights is not None:
        _weights(store, next(iter(records.values())), options)
    return 0


def _bundle(store: Store, records: Sequence[Record], out: Path) -> None:
    if out.suffix != ".zip":
        raise InputError(f"--out {out}: the name of a bundle ends in .zip; weights go into a folder, --weights DIR")
    items = [_item(store, record) for record in records]
    content = write_bundle(items)
    logs = sum(item.events is not None for item in items)
    said = f"{len(items)} run{'s' * (len(items) != 1)}, {logs} with the event log, {len(content) / 1024:,.0f} KiB"
    if out.exists():
        if not out.is_file() or out.read_bytes() != content:
            raise InputError(f"--out {out}: exists and is another file; name a new one")
        print(f"{out} is there already, with these very bytes: {said}")
    else:
        atomic_write(out, content)
        print(f"{out}: {said}")
    print(f"sha256 {sha256(content)}")


def _item(store: Store, record: Record) -> Item:
    """The record and its log; a log of another attempt (one at work now, for one) stays here."""
    path = store.events(record.run_key).path
    if not path.is_file():
        return Item(record, None)
    content = path.read_bytes()
    said = contradictions(record, list(parse_events(content.decode("utf-8", "replace").splitlines())))
    if said:
        print(f"{record.name}: its event log is left out, it does not agree with the record: {said[0]}")
    return Item(record, None if said else content)


def _weights(store: Store, record: Record, options: argparse.Namespace) -> None:
    path = store.run_dir(record.run_key) / "weights.pt"
    if not path.is_file():
        raise InputError(
            f"run {record.run_key[:12]} has no weights here: {path} is missing. Records travel without weights; "
            "export where the run was made"
        )
    # A bundle is made without tensors, in a moment.
    import torch

    from suite.models.export import Dtype, export_weights
    from suite.models.weights import load_tensors

    try:
        weights = load_tensors(path, torch.device("cpu"))
    except RunFailed as error:
        raise InputError(f"run {record.run_key[:12]} has no weights that can be exported: {error}") from None
    dtype: Dtype = options.dtype or "float32"
    shards = export_weights(
        weights, options.weights, run_key=record.run_key, dtype=dtype, shard_mib=options.shard_mib or 16.0
    )
    count = f"{len(weights)} tensors in {dtype}, {shards} shard{'s' * (shards != 1)}"
    print(f"{record.name}: {count} in {options.weights}")
