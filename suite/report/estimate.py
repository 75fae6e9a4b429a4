"""How long a run may take, from the records of runs like it and from ``results/benchmarks/training.json``."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from suite.records.record import Record
from suite.report.cells import had_machine
from suite.report.costs import TRAINING, read_benchmark, wrong_benchmark
from suite.spec.run_spec import canonical_json

# The time of an epoch of MoS-15 is within 30 % in these three (training.json), and five times that in float32.
_REDUCED = ("bfloat16", "float16", "tf32")
# A network for every logit costs ten times what the others do (plif-synthetic); those are within 15 % of the softmax
# (ptb-short-60, training.json).
_DEAR_FUNCTION = "monotonic-network"
# Beyond, the bound that more experts give says nothing.
_MOST_SCALED = 2.0
# From the cheapest: of as many experts, one to the left never takes longer.
_HEADS = ("softmax", "moc", "mos")


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds that a run may take.

    ``rough`` where only a run of other arithmetic or function, a packed one or a single epoch tells them; ``at_most``
    where they are a bound.
    """

    seconds: float
    rough: bool = False
    at_most: bool = False

    @property
    def marks(self) -> str:
        """``~`` if rough, ``≤`` if at most."""
        return "~" * self.rough + "≤" * self.at_most


@dataclass(frozen=True, slots=True)
class Figure:
    """Seconds that a run was measured to take: for an epoch, a validation, its setting up.

    ``doubt`` is 0 where it had the machine, 1 where it shared it, 2 where one epoch alone was timed, which also
    compiles kernels and captures graphs.
    """

    identity: Mapping[str, Any]
    epoch: float
    validation: float | None
    setup: float | None
    doubt: int
    started: str
    key: str = ""


class Estimator:
    """Tells the time of a run by its like.

    The rule: a finished run that differs in the seed alone tells the total (those of the newest version of a training
    step; the median). Else a run takes its epochs, those of finetuning included, at the time of an epoch of the likest
    run, newest first; a validation each time it validates, at what evaluating took that run by validation (so stages
    that only measure count as far as that run had them); and that run's setting up. A run is like another of the same
    dataset, batch, time steps and

    - the same encoder sizes, head and arithmetic of recurrence and head; else
    - another of the reduced arithmetics, or another function on the logits but the monotonic network: rough; else
    - larger encoder sizes or more experts, or half the experts and more, by which it is scaled: at most. So are
      micro-batches, of which none takes longer than the whole batch.

    With finetuning, which may stop sooner, it is at most; by a packed run, at most and rough. A time of one epoch
    counts where there is no other. Nothing is scaled between datasets, batch sizes or to larger encoders. Times are
    those of the machines of these runs.
    """

    def __init__(self, records: Iterable[Record], benchmarks: Iterable[Figure] = ()) -> None:
        self._totals: dict[str, list[Record]] = defaultdict(list)
        self._figures: dict[str, list[Figure]] = defaultdict(list)
        figures = list(benchmarks)
        for record in records:
            if record.costs is not None and record.status == "finished" and "total" in record.costs.seconds:
                self._totals[_but_seed(record.spec)].append(record)
            figure = _figure(record)
            figures += [figure] if figure else []
        for figure in figures:
            self._figures[_family(figure.identity)].append(figure)

    def estimate(
        self, identity: Mapping[str, Any], done: Record | None = None, without: Container[str] = ()
    ) -> Estimate | None:
        """What a run may take, or None where no run tells.

        Args:
            identity: the run's, as of its spec.
            done: the record of this run, which goes on from a checkpoint; what it has behind it is taken off.
            without: run keys whose records are not asked.
        """
        found = self._same(identity, without) or self._alike(identity, without)
        if found is None or done is None:
            return found
        return replace(found, seconds=found.seconds * (1 - min(1.0, epochs_done(done) / _all_epochs(identity))))

    def _same(self, identity: Mapping[str, Any], without: Container[str]) -> Estimate | None:
        runs = [record for record in self._totals.get(_but_seed(identity), ()) if record.run_key not in without]
        if not runs:
            return None
        packed = all(record.costs and record.costs.packed for record in runs)
        runs = [record for record in runs if packed or not (record.costs and record.costs.packed)]
        version = max(runs, key=lambda record: record.provenance.started).step_version
        totals = [r.costs.seconds["total"] for r in runs if r.costs and r.step_version == version]
        return Estimate(statistics.median(totals), rough=packed, at_most=packed)

    def _alike(self, identity: Mapping[str, Any], without: Container[str]) -> Estimate | None:
        recipe = identity["recipe"]
        if recipe["budget"].get("steps") is not None:
            return None
        ranked = []
        for figure in self._figures.get(_family(identity), ()):
            likeness = None if figure.key in without else _likeness(identity, figure.identity)
            if likeness is not None:
                ranked.append((likeness.order(figure), figure, likeness))
        if not ranked:
            return None
        # Of equals the newest.
        ranked.sort(key=lambda item: item[1].started, reverse=True)
        ranked.sort(key=lambda item: item[0])
        _, best, likeness = ranked[0]
        # A record that was made of an event log knows neither; the next like it tells.
        setup = next((figure.setup for _, figure, _ in ranked if figure.setup is not None), 0.0)
        validation = next((f.validation * like.factor for _, f, like in ranked if f.validation is not None), 0.0)
        epochs = _all_epochs(identity)
        validations = epochs / recipe.get("evaluation", {}).get("every_epochs", 1)
        seconds = setup + epochs * best.epoch * likeness.factor + validations * validation
        return Estimate(
            seconds,
            rough=likeness.rough or best.doubt > 0,
            at_most=likeness.bound or best.doubt == 1 or epochs > recipe["budget"]["epochs"],
        )


@dataclass(frozen=True, slots=True)
class _Likeness:
    """How one run's time tells that of another: by ``factor``, roughly or as a bound."""

    factor: float
    arithmetic: bool
    function: bool
    bound: bool

    @property
    def rough(self) -> bool:
        return self.arithmetic or self.function

    def order(self, figure: Figure) -> tuple[bool | float, ...]:
        """The smaller the better; what speaks loudest comes first."""
        lowest = figure.epoch * self.factor if self.bound else 0.0
        return figure.doubt == 2, self.bound, self.arithmetic, self.function, figure.doubt, lowest


def _likeness(wanted: Mapping[str, Any], known: Mapping[str, Any]) -> _Likeness | None:
    arithmetic, function = _arithmetic(wanted), _function(wanted)
    other_arithmetic, other_function = arithmetic != _arithmetic(known), function != _function(known)
    if other_arithmetic and not all(kind in _REDUCED for kind in (*arithmetic, *_arithmetic(known))):
        return None
    if other_function and _DEAR_FUNCTION in (function, _function(known)):
        return None
    micro = _micro_batches(wanted) / _micro_batches(known)
    experts = _experts(wanted["head"], known["head"])
    sizes, known_sizes = _sizes(wanted["encoder"]), _sizes(known["encoder"])
    if micro < 1 or experts is None or not _no_larger(sizes, known_sizes):
        return None
    same = sizes == known_sizes and _mixture(wanted["head"]) == _mixture(known["head"]) and micro == 1
    return _Likeness(micro * experts, other_arithmetic, other_function, not same)


def _family(identity: Mapping[str, Any]) -> str:
    """What no time is carried beyond."""
    recipe, encoder = identity["recipe"], identity["encoder"]
    bounds = recipe.get("batch_size"), recipe.get("bptt"), identity["head"].get("dimension")
    return canonical_json([identity["dataset"], encoder["name"], *bounds])


def _arithmetic(identity: Mapping[str, Any]) -> tuple[str, ...]:
    # That of evaluation came later, and changes no epoch.
    said = identity["recipe"].get("precision", {})
    return tuple(str(said.get(half)) for half in ("recurrence", "head"))


def _function(identity: Mapping[str, Any]) -> str:
    return str((identity["head"].get("pointwise") or {}).get("name", "identity"))


def _mixture(head: Mapping[str, Any]) -> tuple[str, int]:
    return str(head["name"]), int(head.get("experts") or 1)


def _experts(wanted: Mapping[str, Any], known: Mapping[str, Any]) -> float | None:
    """How often the known head's time holds the wanted one's at most, or None where nobody can say."""
    (name, experts), (known_name, known_experts) = _mixture(wanted), _mixture(known)
    if name != known_name and not (name in _HEADS and known_name in _HEADS):
        return None
    if name != known_name and _HEADS.index(name) > _HEADS.index(known_name):
        # A softmax takes as long as a mixture of one.
        known_experts = 1
    scale = max(1.0, experts / known_experts)
    return scale if scale <= _MOST_SCALED else None


def _micro_batches(identity: Mapping[str, Any]) -> int:
    recipe = identity["recipe"]
    return -(-recipe["batch_size"] // recipe["micro_batch"]) if recipe.get("micro_batch") else 1


def _sizes(encoder: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in encoder.items() if "drop" not in name}


def _no_larger(sizes: Mapping[str, Any], than: Mapping[str, Any]) -> bool:
    """Whether no size is larger, and all that is no size is the same."""
    return sizes.keys() == than.keys() and all(_within(value, than[name]) for name, value in sizes.items())


def _within(value: Any, bound: Any) -> bool:
    if isinstance(value, list) and isinstance(bound, list):
        return len(value) == len(bound) and all(map(_within, value, bound))
    if isinstance(value, bool) or not isinstance(value, int) or not isinstance(bound, int):
        return bool(value == bound)
    return value <= bound


def _all_epochs(identity: Mapping[str, Any]) -> int:
    """Epochs of training and, at most, of finetuning."""
    stages = identity.get("stages", ())
    return int(identity["recipe"]["budget"]["epochs"]) + sum(int(stage.get("epochs", 0)) for stage in stages)


def epochs_done(record: Record) -> float:
    """Epochs that a run has behind it: those of a stage after training count on from there."""
    return max((point.get("epoch", 0.0) for point in record.curves), default=0.0)


def _but_seed(identity: Mapping[str, Any]) -> str:
    return canonical_json({key: value for key, value in identity.items() if key != "seed"})


def _figure(record: Record) -> Figure | None:
    """What a record tells of an epoch, or None: a packed run's is its training time by its epochs."""
    costs = record.costs
    if costs is None:
        return None
    epoch, doubt = costs.seconds_per_epoch, 2 if costs.epochs_timed <= 1 else 0 if had_machine(record) else 1
    if costs.packed:
        done = epochs_done(record)
        epoch, doubt = (costs.seconds.get("train", 0.0) / done if done else None), 1
    if not epoch:
        return None
    validations = sum(name.startswith(("valid_nll", "valid_kl")) for point in record.curves for name in point)
    evaluation = costs.seconds.get("evaluate")
    return Figure(
        identity=record.spec,
        epoch=epoch,
        validation=evaluation / validations if validations and evaluation is not None else None,
        setup=costs.seconds.get("setup"),
        doubt=doubt,
        started=record.provenance.started,
        key=record.run_key,
    )


def benchmark_figures(results: Path, cell: Callable[[str, str], Mapping[str, Any] | None]) -> list[Figure]:
    """What full-size training steps took, timed by ``make bench-train``; packed ones and ones that failed tell nothing.

    Args:
        results: the folder that ``benchmarks/training.json`` lies in, if any.
        cell: the identity of the first cell of a task with a head, by their names, if there is one.

    Raises:
        InputError: the file is no such benchmark.
    """
    path = results / TRAINING
    if not path.exists():
        return []
    rows, _ = read_benchmark(path, "training", "make bench-train")
    try:
        return [figure for row in rows if "failed" not in row and (figure := _timed(row, cell))]
    except (KeyError, TypeError, ValueError) as error:
        raise wrong_benchmark(path, "training", "make bench-train", error) from None


def _timed(row: Mapping[str, Any], cell: Callable[[str, str], Mapping[str, Any] | None]) -> Figure | None:
    identity = cell(row["task"], row.get("head", "")) if row["packed"] == 1 else None
    if identity is None:
        return None
    recurrence, _, head = str(row["precision"]).partition("/")
    # As the benchmark runs it: in its own arithmetic, and without micro-batches.
    recipe = {**identity["recipe"], "precision": {"recurrence": recurrence, "head": head or recurrence}}
    return Figure(
        identity={**identity, "recipe": {**recipe, "micro_batch": None}},
        epoch=float(row["seconds_per_epoch"]),
        validation=float(row["validation_seconds"]),
        setup=None,
        doubt=0,
        started=row.get("recorded", ""),
    )
