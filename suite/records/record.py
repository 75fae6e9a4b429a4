"""The durable result of one run: a schema-versioned JSON document."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from suite.spec.run_spec import Scope

SCHEMA: Literal[1] = 1

Status = Literal["finished", "failed", "diverged", "interrupted"]


# What a database and a floating-point number hold; a stranger's JSON may have thousands of digits.
Whole = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]


_Rows = list[list[float]]


def _rows_of(*widths: int) -> Callable[[_Rows], _Rows]:
    def checked(rows: _Rows) -> _Rows:
        found = {len(row) for row in rows}
        if len(found) > 1 or not found <= set(widths):
            raise ValueError(f"every row must have {' or every row '.join(str(width) for width in widths)} numbers")
        return rows

    return checked


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TaskRef(_Part):
    """Which task file the run belongs to, and how its results are presented."""

    name: str
    version: Whole
    title: str = ""
    paper: str | None = None
    protocol: str = ""


class LabelRef(_Part):
    """How the cell is called in tables (see :class:`suite.spec.run_spec.Labels`)."""

    dataset: str
    encoder: str
    head: str

    @property
    def method(self) -> str:
        """``encoder/head``."""
        return f"{self.encoder}/{self.head}"


class Model(_Part):
    """Sizes of the trained model; parameters tied between encoder and head are counted once."""

    parameters: Whole
    head_parameters: Whole = Field(description="parameters of the head alone, the tied output matrix not counted")
    kernel: str | None = Field(None, description="the form of the head's loss that training used")


class Costs(_Part):
    """What the run took. Absent means not measured; it is never guessed.

    Memory in MiB, energy in joules, time in seconds of a monotonic clock. ``gpu_peak_mib`` comes from NVML and
    ``gpu_peak_source`` says what it is: this process's share, or the device's use minus its idle baseline. Peaks are of
    the whole run, and ``stage_peaks_mib`` says how high the first of GPU, allocator and CPU that was measured had been
    by the end of each stage: what follows training may take more than training.
    """

    seconds: dict[str, float] = Field(description="by phase: setup, train, evaluate, log; and their total")
    seconds_per_epoch: float | None = Field(None, description="median training time of an epoch, the first left out")
    epochs_timed: Whole = 0
    tokens_per_second: float | None = None
    gpu_peak_mib: float | None = None
    gpu_peak_source: Literal["process", "device-minus-baseline", "none"] = "none"
    allocator_peak_mib: float | None = None
    allocator_reserved_mib: float | None = None
    cpu_peak_mib: float | None = None
    cpu_peak_source: Literal["run", "process-lifetime", "none"] = "none"
    stage_peaks_mib: dict[str, float] = Field(default_factory=dict, description="the peak by the end of each stage")
    joules_per_epoch: float | None = Field(None, description="median energy of a training epoch, the first left out")
    energy_joules: float | None = None
    energy_seconds: float | None = None
    exclusive: bool | None = Field(None, description="no other process was seen on the GPU; None when unknown")
    throttled: bool | None = Field(
        None, description="heat or the supply of power held the GPU's clocks down at some time; None when unknown"
    )
    packed: bool = Field(False, description="shared the GPU with other runs of one command: no cost figure counts")
    replayed: bool | None = Field(
        None, description="steps replayed from CUDA graphs, not launched one kernel at a time"
    )


class Environment(_Part):
    """Where the run happened. No host name, user or absolute path."""

    device: str = Field(description="GPU name, or the processor's for a CPU run")
    device_kind: Literal["cpu", "cuda"]
    python: str
    platform: str
    versions: dict[str, str]
    cpu_count: Whole
    threads: Whole
    driver: str | None = None
    cuda: str | None = None
    cudnn: str | None = None
    tf32_matmul: bool | None = None
    tf32_cudnn: bool | None = None


class Provenance(_Part):
    """Which code, which data, which command, when (UTC, ISO 8601).

    ``step_code`` is the sha256 of what a training step is made of: the same in two commits that differ elsewhere.
    """

    commit: str | None
    dirty: bool | None
    step_code: str | None = None
    command: str
    suite_version: str
    data: dict[str, str] = Field(description="sha256 of what was read, by file or split")
    started: str
    ended: str
    attempts: Whole = 1
    train_from: str | None = Field(None, description="run whose train stage this one did not repeat and goes on from")


class Record(_Part):
    """One run, complete: what was asked, what came out, what it cost, where it ran."""

    schema_version: Literal[1] = Field(SCHEMA, alias="schema")
    run_key: str = Field(pattern=r"^[0-9a-f]{64}$")
    status: Status
    scope: Scope
    task: TaskRef
    labels: LabelRef
    seed: Whole
    spec: dict[str, Any]
    model: Model | None = None
    metrics: dict[str, dict[str, dict[str, float]]] = Field(
        default_factory=dict, description="stage -> split -> metric, for example metrics['train']['test']['ppl']"
    )
    facts: dict[str, float] = Field(
        default_factory=dict, description="what is known of the data itself, such as the true floor"
    )
    curves: list[dict[str, float]] = Field(default_factory=list, description="one entry an evaluation, in order")
    spectra: dict[str, Annotated[_Rows, AfterValidator(_rows_of(2))]] = Field(
        default_factory=dict,
        description="'stage split' -> singular values of the log-probability matrix, pairs (index from 1, s / s_0), "
        "a few hundred at most",
    )
    functions: dict[str, Annotated[_Rows, AfterValidator(_rows_of(3, 4))]] = Field(
        default_factory=dict,
        description="stage -> the head's learned function g after it: rows (z, g(z), share of the logits seen at or "
        "below z, g(z) as built), z evenly spaced over the logits seen, some hundreds; older runs lack the last",
    )
    costs: Costs | None = None
    environment: Environment | None = None
    provenance: Provenance
    message: str | None = Field(None, description="why the run failed, diverged or stopped")

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)

    @property
    def name(self) -> str:
        """Short human name, the same as the spec's."""
        return f"{self.task.name} {self.labels.dataset} {self.labels.method} seed {self.seed}"

    @property
    def step_version(self) -> str | None:
        """Code of a training step and torch's version: times compare where it is equal; None where no code is known."""
        code = self.provenance.step_code or self.provenance.commit
        torch = self.environment.versions.get("torch") if self.environment else None
        return f"{code} with torch {torch}" if code else None

    @property
    def train_curve(self) -> list[dict[str, float]]:
        """The points of the train stage; a stage after it marks its own."""
        return [point for point in self.curves if not point.get("stage")]

    def to_json(self) -> str:
        """Readable in a diff: two-space indent, one curve point and one spectrum a line, a newline at the end.

        Spectra, functions, throttling, the step's code and the run that was gone on from stand in the records that
        have some, so that the others are as they were before these.
        """
        payload = self.model_dump(mode="json", by_alias=True)
        if payload["costs"] and payload["costs"]["throttled"] is None:
            del payload["costs"]["throttled"]
        for field in ("step_code", "train_from"):
            if payload["provenance"][field] is None:
                del payload["provenance"][field]
        points = payload.pop("curves")
        sampled = {field: payload.pop(field) for field in ("spectra", "functions")}
        text = json.dumps({**payload, "curves": []}, indent=2, ensure_ascii=False, allow_nan=False)
        if points:
            rows = ",\n".join("    " + json.dumps(point, ensure_ascii=False, allow_nan=False) for point in points)
            text = text.removesuffix('"curves": []\n}') + f'"curves": [\n{rows}\n  ]\n}}'
        for field, samples in sampled.items():
            if samples:
                rows = ",\n".join(
                    f"    {json.dumps(name, ensure_ascii=False)}: {json.dumps(values, allow_nan=False)}"
                    for name, values in samples.items()
                )
                text = text.removesuffix("\n}") + f',\n  "{field}": {{\n{rows}\n  }}\n}}'
        return text + "\n"
