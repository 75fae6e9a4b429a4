"""A train stage that another run has done: what a cell that trains alike begins with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from suite.errors import InputError, Problem
from suite.models.export import load_exported
from suite.records.fields import leaves
from suite.records.record import Record
from suite.records.store import Store
from suite.spec import components
from suite.spec.run_spec import RunSpec

_ALIKE = ("dataset", "encoder", "head", "recipe", "seed", "scope")


@dataclass(frozen=True)
class Trained:
    """The end of a run's train stage.

    Attributes:
        run_key: the run.
        data: digests of what it read.
        curves: its points while it trained.
        weights: those that its train stage kept, in float32.
    """

    run_key: str
    data: Mapping[str, str]
    curves: list[dict[str, float]]
    weights: Mapping[str, Tensor]


def trained(spec: RunSpec, store: Store, folder: Path) -> Trained:
    """What `suite export RUN --weights FOLDER` wrote, for ``spec``, with the run's record out of ``store``.

    Raises:
        InputError: the export is damaged or rounded, its run has no record here or did not finish its train stage, its
            weights are those of a later stage, or it trained otherwise than ``spec`` asks for.
    """
    found = load_exported(folder)
    if found.dtype != "float32":
        raise _wrong(folder, f"the weights were exported in {found.dtype}; export them in float32")
    record = store.get(found.run_key)
    short = found.run_key[:12]
    if record is None:
        raise _wrong(folder, f"run {short}, which left these weights, has no record in {store.root}; import it first")
    if "train" not in record.metrics:
        raise _wrong(folder, f"run {short} did not finish its train stage")
    later = [str(stage["name"]) for stage in record.spec["stages"][1:]]
    changed = [name for name in later if name in record.metrics and _trains(name)]
    if changed:
        raise _wrong(folder, f"run {short} went on to {changed[-1]}, and the weights are those that it left")
    odd = _difference(record, spec)
    if odd:
        raise _wrong(folder, f"run {short} trained otherwise than {spec.task} does: {odd}")
    return Trained(found.run_key, record.provenance.data, record.train_curve, found.weights)


def _wrong(folder: Path, message: str) -> InputError:
    return InputError(Problem(f"--train-from: {message}", str(folder)))


def _trains(stage: str) -> bool:
    return bool(getattr(components.load("stage", stage), "trains", False))


def _difference(record: Record, spec: RunSpec) -> str:
    """The first key in which the two runs train differently, with both values; empty where they train alike."""
    plugins: Mapping[str, str] = record.spec.get("plugins", {})
    theirs: dict[str, Any] = {name: record.spec.get(name) for name in _ALIKE} | {"stage": record.spec["stages"][0]}
    ours: dict[str, Any] = {name: spec.identity[name] for name in _ALIKE} | {"stage": spec.stages[0].as_dict()}
    # A plugin that a later stage brings changes nothing of the training.
    theirs["plugins"] = plugins
    ours["plugins"] = {name: spec.plugins.get(name) for name in plugins}
    here, there = dict(leaves(ours)), dict(leaves(theirs))
    for key in sorted(here.keys() | there.keys()):
        if here.get(key) != there.get(key):
            return f"{key} is {there.get(key, 'absent')} there and {here.get(key, 'absent')} here"
    return ""
