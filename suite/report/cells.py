"""Cells: runs of one experiment up to a stage, which differ in their seed alone; their results and their costs."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

from suite.records.metrics import PRIMARY_METRICS
from suite.records.published import Published
from suite.records.record import Record
from suite.report import formatting
from suite.report.compare import Summary, summarize

# Protocols whose runs are for the clock, or for a comparison of arithmetic or of ways to train.
_FOR_THE_CLOCK = ("cost", "speed-*")
_NOT_OF_QUALITY = (*_FOR_THE_CLOCK, "precision", "optimizer-*")
# Of what a peak of memory is, the best first; _LATER: of a run that went on after the stage, and may have taken more.
_PEAKS = ("NVML, process", "NVML, device", "allocator", "CPU", "CPU, whole process")
_LATER = ", later stages too"
TRAINING = "train"  # the stage that every run begins with

Results = Mapping[str, Mapping[str, Mapping[str, float]]]


class SectionKey(NamedTuple):
    """Rows that may be compared with each other."""

    dataset: str
    protocol: str
    stage: str

    @property
    def for_the_clock(self) -> bool:
        """Whether the runs are for time and memory alone."""
        return any(fnmatchcase(self.protocol, one) for one in _FOR_THE_CLOCK)

    def scored_by(self, metric: str) -> str:
        """What a table of the section is about, in words: a metric, or the clock alone."""
        return "for the clock" if self.for_the_clock else formatting.metric_title(metric)

    @property
    def of_quality(self) -> bool:
        """Whether what the runs learn says what a head is good for, and not what something else does to it."""
        return not any(fnmatchcase(self.protocol, one) for one in _NOT_OF_QUALITY)

    @property
    def of_heads(self) -> bool:
        """Whether the runs set heads against each other, by what they learn or by what they cost."""
        return self.of_quality or self.for_the_clock


@dataclass(frozen=True, slots=True)
class CellCosts:
    """Costs of a cell on one device, over runs that had the machine alone; None where nothing was measured.

    ``seconds_per_epoch`` and ``joules_per_epoch`` are medians over runs, ``peak_mib`` their maximum and ``peak_source``
    says of what. ``allocated_mib`` is the highest peak of the GPU's allocator, of runs that went no further than the
    stage: without what it keeps reserved and what the device's context takes. ``exclusive`` is False when no run could
    tell whether it was alone. ``other_devices`` counts the cell's devices besides ``device``, and ``records`` are the
    runs that counted.
    """

    device: str | None = None
    other_devices: int = 0
    seconds_per_epoch: float | None = None
    joules_per_epoch: float | None = None
    peak_mib: float | None = None
    peak_source: str = ""
    allocated_mib: float | None = None
    exclusive: bool = False
    records: tuple[Record, ...] = ()

    @property
    def own_peak_mib(self) -> float | None:
        """The peak, unless it may be that of a later stage."""
        return None if self.peak_source.endswith(_LATER) else self.peak_mib


@dataclass(frozen=True, slots=True)
class Cell:
    """Finished full runs that did the same up to a stage, seeds apart.

    Runs of several tasks where these differ only in what comes after the stage: a train stage that was run again to be
    finetuned is the same experiment. ``difference`` tells the cell from others of its name; ``unfinished`` are the runs
    of the same specs that failed, diverged or were interrupted.
    """

    key: SectionKey
    method: str
    records: tuple[Record, ...]
    difference: tuple[str, ...] = ()
    unfinished: tuple[Record, ...] = ()

    def summary(self, split: str, metric: str) -> Summary:
        """The metric over seeds."""
        return summarize(self.values(split, metric))

    def values(self, split: str, metric: str) -> list[float]:
        """One value a seed that has it, in the order of seeds; the mean where a seed was run more than once."""
        return self.values_by(lambda record: results(record)[self.key.stage].get(split, {}).get(metric))

    def values_by(self, value_of: Callable[[Record], float | None]) -> list[float]:
        """The same of what ``value_of`` finds in a record."""
        found: dict[int, list[float]] = defaultdict(list)
        for record in self.records:
            value = value_of(record)
            if value is not None:
                found[record.seed].append(value)
        return [statistics.fmean(same) for same in found.values()]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Each once."""
        return tuple(dict.fromkeys(record.seed for record in self.records))

    @property
    def parameters(self) -> int | None:
        """Parameters of the model, tied ones once."""
        return next((record.model.parameters for record in self.records if record.model), None)

    def answers(self, number: Published, method: str = "") -> bool:
        """Whether a run of it, or one under the label ``method``, has the recipe of the number."""
        return any(number.answered_by(record.task.name, method or self.method) for record in self.records)

    @property
    def encoder(self) -> str:
        """The encoder's label."""
        return self.records[0].labels.encoder

    @property
    def head(self) -> str:
        """The head's label."""
        return self.records[0].labels.head

    @property
    def precision(self) -> str:
        """``float32``, or recurrence and head where they differ."""
        return precision(self.records[0])


def precision(record: Record) -> str:
    """Arithmetic of recurrence and head, from the spec, once where they agree; a CPU knows no TF32."""
    said = record.spec.get("recipe", {}).get("precision", {})
    if record.environment is not None and record.environment.device_kind == "cpu":
        said = {half: "float32" if kind == "tf32" else kind for half, kind in said.items()}
    return "/".join(dict.fromkeys(str(said[half]) for half in ("recurrence", "head") if half in said))


def results(record: Record) -> Results:
    """Metrics by the stage they describe, split and name.

    A stage that only measures (rank, modes) describes the model that the stage before it left, so its metrics join
    that stage's. A run with no stage that has a primary metric keeps its stages as they are.
    """
    order = [str(stage["name"]) for stage in record.spec.get("stages", ())]
    order += [stage for stage in record.metrics if stage not in order]
    joined: dict[str, dict[str, dict[str, float]]] = {}
    owner: str | None = None
    for stage in order:
        metrics = record.metrics.get(stage)
        if not metrics:
            continue
        if owner is None or _is_scored(metrics):
            owner = stage
        splits = joined.setdefault(owner, {})
        for split, values in metrics.items():
            splits.setdefault(split, {}).update(values)
    return joined


def _is_scored(metrics: Mapping[str, Mapping[str, float]]) -> bool:
    return any(metric in values for values in metrics.values() for metric in PRIMARY_METRICS)


def section_keys(record: Record) -> list[SectionKey]:
    """The sections a record has a result for."""
    return [SectionKey(record.labels.dataset, record.task.protocol, stage) for stage in results(record)]


def measured(records: Sequence[Record]) -> tuple[str | None, list[Record], bool]:
    """The device that speaks for some runs, those of its runs whose costs count, and whether these were surely alone.

    Packed runs and runs that shared the machine are left out. Times on two devices are not one number, so the device
    with most measured runs speaks for all.
    """
    devices = Counter(record.environment.device for record in records if record.environment)
    alone = [record for record in records if had_machine(record)]
    known = [record for record in alone if record.costs and record.costs.exclusive]
    counts = Counter(record.environment.device for record in known or alone if record.environment)
    ranking = counts or devices
    device = min(ranking, key=lambda name: (-ranking[name], name), default=None)
    here = [r for r in known or alone if (r.environment.device if r.environment else None) == device]
    return device, here, bool(known)


def costs(records: Sequence[Record], stage: str | None = None) -> CellCosts:
    """What the cell's runs took, by those that :func:`measured` counts.

    The peak of memory is of the whole run or, with a ``stage``, of the run until its end. A record that does not know
    that gives the whole run's, and ``peak_source`` says so unless nothing followed the stage.
    """
    device, counted, sure = measured(records)
    others = len({record.environment.device for record in records if record.environment}) - 1
    took = [record.costs for record in counted if record.costs]
    peaks: dict[str, list[float]] = defaultdict(list)
    for source, peak in filter(None, (_peak(record, stage) for record in counted)):
        peaks[source].append(peak)
    source = next((name for later in ("", _LATER) for kind in _PEAKS if (name := kind + later) in peaks), "")
    return CellCosts(
        device=device,
        other_devices=max(0, others),
        seconds_per_epoch=_median(one.seconds_per_epoch for one in took),
        joules_per_epoch=_median(one.joules_per_epoch for one in took),
        peak_mib=max(peaks[source]) if source else None,
        peak_source=source,
        allocated_mib=max(filter(None, (_allocated(record, stage) for record in counted)), default=None),
        exclusive=sure,
        records=tuple(counted),
    )


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _peak(record: Record, stage: str | None) -> tuple[str, float] | None:
    """Of what the peak of a run is, in words, and the peak; None where none was measured."""
    costs = record.costs
    if costs is None:
        return None
    found = (
        costs.gpu_peak_mib if costs.gpu_peak_source == "process" else None,
        costs.gpu_peak_mib if costs.gpu_peak_source == "device-minus-baseline" else None,
        costs.allocator_peak_mib,
        costs.cpu_peak_mib if costs.cpu_peak_source == "run" else None,
        costs.cpu_peak_mib if costs.cpu_peak_source == "process-lifetime" else None,
    )
    kind, peak = next(((k, value) for k, value in zip(_PEAKS, found, strict=True) if value is not None), ("", 0.0))
    if not kind:
        return None
    if stage in costs.stage_peaks_mib:
        return kind, costs.stage_peaks_mib[stage]
    return kind + (_LATER if _followed(record, stage) else ""), peak


def _allocated(record: Record, stage: str | None) -> float | None:
    return record.costs.allocator_peak_mib if record.costs and not _followed(record, stage) else None


def _followed(record: Record, stage: str | None) -> bool:
    return stage in [one["name"] for one in record.spec.get("stages", ())][:-1]


def had_machine(record: Record) -> bool:
    """Whether the costs of a run count: measured, not packed, no other process seen on the device, no slowdown."""
    costs = record.costs
    return costs is not None and not costs.packed and costs.exclusive is not False and not costs.throttled
