"""One attempt at one cell: from its last checkpoint, or from the beginning, to a record."""

from __future__ import annotations

import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import suite
from suite.data.base import DataAccess, Dataset, DistributionData, TextData, known_facts
from suite.errors import Diverged, InputError, Interrupted, RunFailed, first_line
from suite.measurement.clock import PhaseClock
from suite.measurement.environment import command_line, environment, revision
from suite.measurement.meters import Meters
from suite.models.arithmetic import arithmetic, of_evaluation
from suite.models.language_model import LanguageModel, build_model
from suite.models.streams import STREAMS
from suite.models.weights import load_weights
from suite.progress import Progress
from suite.records.files import naming, remove_leftovers
from suite.records.record import Costs, Environment, LabelRef, Model, Provenance, Record, Status, TaskRef
from suite.records.store import Store
from suite.spec import components
from suite.spec.recipe import Recipe
from suite.spec.run_spec import RunSpec
from suite.stages import Measurements, RunContext, Stage
from suite.trained import Trained
from suite.training.checkpoint import CheckpointFile, save_atomically
from suite.training.profiling import Profile, profile_steps
from suite.training.seeds import derive_seed, set_determinism

# Initial weights come from torch's global generator, which packed runs share.
_BUILDING = threading.Lock()


@dataclass
class RunOptions:
    """How a command runs its cells; nothing here changes what a cell computes.

    ``graphs`` off launches every kernel from Python; ``packed`` says that other runs share the device; ``trained`` is a
    train stage of another run that trained alike, which is not repeated.
    """

    store: Store
    device: torch.device
    access: DataAccess
    progress: Progress
    arguments: Sequence[str] = ()
    rerun: bool = False
    checkpoint_seconds: float = 30.0
    stop: Callable[[], str | None] = lambda: None
    graphs: bool = True
    packed: bool = False
    trained: Trained | None = None


class Attempt:
    """One attempt at one cell: from its last checkpoint, or from the beginning, to a record."""

    def __init__(self, spec: RunSpec, options: RunOptions, loaded: tuple[Dataset, TextData | DistributionData]) -> None:
        self._spec = spec
        self._options = options
        self._dataset, self._data = loaded
        self._folder = options.store.run_dir(spec.run_key)
        # Attempts hold the run's lock: what lies here was left by one that was killed.
        remove_leftovers(self._folder)
        self._checkpoint = CheckpointFile(self._folder, spec.run_key)
        self._events = options.store.events(spec.run_key)
        saved = self._checkpoint.load(lambda line: options.progress.say("  " + line)) or {}
        # A rerun begins afresh, but goes on where it was itself interrupted.
        if options.rerun and not saved.get("rerun"):
            self._start_over()
            saved = {}
        self._rerun = options.rerun or bool(saved.get("rerun"))
        self._stage_index = int(saved.get("stage", 0))
        self._stage_state: dict[str, Any] | None = saved.get("stage_state")
        self._metrics: dict[str, Measurements] = saved.get("metrics", {})
        self._curves: list[dict[str, float]] = saved.get("curves", [])
        self._extras: dict[str, Any] = saved.get("extras", {})
        self._spectra: dict[str, list[list[float]]] = saved.get("spectra", {})
        self._functions: dict[str, list[list[float]]] = saved.get("functions", {})
        self._attempts = int(saved.get("attempts", 0)) + 1
        self._started: str = saved.get("started", _now())
        self._train_from: str | None = saved.get("train_from")
        self._given = None if saved else options.trained
        if self._given is not None:
            self._begin_trained(self._given)
        self._clock = PhaseClock(options.device, saved.get("seconds"))
        # Now, and not when the run ends: the code that runs is the code that was loaded.
        self._revision = revision()
        self._meters = Meters(options.device, saved.get("costs"))
        self._model: LanguageModel | None = None
        self._stream: torch.cuda.Stream | None = None

    def run(self) -> Record:
        """Walk the stages. Every way a run can end gives a record; only wrong input is raised."""
        try:
            self._meters.start()
            with self.own_stream(), warnings.catch_warnings():
                # Weight drop gives cuDNN a fresh recurrent matrix every step; its advice to flatten cannot be followed.
                warnings.filterwarnings(
                    "ignore", "RNN module weights are not part of single contiguous chunk of memory"
                )
                self._walk()
        except InputError:
            raise
        except Interrupted as stop:
            return self._record("interrupted", str(stop))
        except Diverged as error:
            return self._record("diverged", str(error))
        except RunFailed as error:
            return self._record("failed", str(error))
        except torch.cuda.OutOfMemoryError as error:
            return self._record("failed", self._out_of_memory(error))
        except Exception as error:
            if self._options.store.is_about(error):
                raise  # the machine's fault and not the cell's; what is on the disk stays as it is
            write_error_log(self._folder)
            return self._record("failed", f"{type(error).__name__}: {first_line(error)}")
        finally:
            self._meters.stop()
        return self._record("finished", None)

    def profile(self, steps: int, folder: Path) -> Profile:
        """Where the time of this cell's training step goes; trains a little and keeps nothing."""
        with self.own_stream():
            return profile_steps(self.prepare(), steps, folder)

    @contextmanager
    def own_stream(self) -> Iterator[None]:
        """On a GPU, a stream of the run's own: the default one cannot be captured, and packed runs overlap."""
        if self._options.device.type != "cuda":
            yield
            return
        stream = self._stream = self._stream or STREAMS.lend(self, self._options.device)
        stream.wait_stream(torch.cuda.default_stream(self._options.device))
        with torch.cuda.stream(stream):
            yield
            stream.synchronize()

    def _start_over(self) -> None:
        self._checkpoint.remove()
        self._events.path.unlink(missing_ok=True)

    def _begin_trained(self, given: Trained) -> None:
        if dict(given.data) != dict(self._data.digests):
            raise InputError(f"--train-from: run {given.run_key[:12]} read other data than lies here")
        self._stage_index, self._train_from = 1, given.run_key
        self._curves.extend(given.curves)

    def prepare(self) -> RunContext:
        """The model, built, and the run around it."""
        spec, options = self._spec, self._options
        recipe = Recipe.model_validate(dict(spec.recipe))
        with self._clock("setup"):
            set_determinism(recipe, options.device)
            with _BUILDING:
                torch.manual_seed(derive_seed(spec.seed, "initialisation"))
                sizes = self._dataset.vocabulary_size, self._dataset.contexts
                self._model = build_model(spec, *sizes, self._data.frequencies)
            self._model.to(options.device)
            self._model.encoder.crowded = options.packed
            context = self._context(recipe, self._model)
            if self._given is not None:
                self._folder.mkdir(parents=True, exist_ok=True)
                save_atomically(dict(self._given.weights), context.weights_path)
            if self._stage_index > 0 and context.weights_path.exists():
                load_weights(self._model, context.weights_path, options.device)
        return context

    def _walk(self) -> None:
        spec, context = self._spec, self.prepare()
        self._announce(context.model)
        for index in range(self._stage_index, len(spec.stages)):
            stage: Stage = components.create("stage", spec.stages[index])
            state, self._stage_state = self._stage_state, None
            self._metrics[stage.name] = self._measured(stage, context, state)
            self._meters.mark(stage.name)
            self._stage_index = index + 1
            with self._clock("log"):
                context.save(None)

    def _measured(self, stage: Stage, context: RunContext, state: dict[str, Any] | None) -> Measurements:
        if getattr(stage, "trains", False):
            return stage.run(context, state)
        kind = of_evaluation(context.recipe.precision)
        with arithmetic(kind, kind):
            return stage.run(context, state)

    def _context(self, recipe: Recipe, model: LanguageModel) -> RunContext:
        options = self._options
        return RunContext(
            spec=self._spec,
            recipe=recipe,
            data=self._data,
            device=options.device,
            model=model,
            folder=self._folder,
            clock=self._clock,
            joules=self._meters.joules,
            emit=self._events.append,
            progress=options.progress,
            stop=options.stop,
            save=self._save,
            checkpoint_seconds=options.checkpoint_seconds,
            graphs=options.graphs,
            curves=self._curves,
            extras=self._extras,
            spectra=self._spectra,
            functions=self._functions,
        )

    def _save(self, stage_state: dict[str, Any] | None) -> None:
        self._checkpoint.save(
            {
                "stage": self._stage_index,
                "stage_state": stage_state,
                "metrics": self._metrics,
                "curves": self._curves,
                "extras": self._extras,
                "spectra": self._spectra,
                "functions": self._functions,
                "attempts": self._attempts,
                "rerun": self._rerun,
                "started": self._started,
                "train_from": self._train_from,
                "seconds": self._clock.snapshot(),
                "costs": self._meters.read(),
            }
        )

    def _out_of_memory(self, error: BaseException) -> str:
        lower = "batch_size, micro_batch or --pack" if self._options.packed else "batch_size or micro_batch"
        # Of torch's advice the part that says how much was asked for and how much there is.
        asked = ". ".join(first_line(error).split(". ")[:3]).rstrip(".")
        return f"out of GPU memory: lower {lower} ({asked})"

    def _announce(self, model: LanguageModel) -> None:
        spec = self._spec
        self._folder.mkdir(parents=True, exist_ok=True)
        self._events.append(
            "start",
            attempt=self._attempts,
            run_key=spec.run_key,
            spec=spec.identity,
            task=self._task().model_dump(),
            labels=self._labels().model_dump(),
            seed=spec.seed,
            scope=spec.scope,
            parameters=model.parameter_count(),
            data=dict(self._data.digests),
            environment=self._environment().model_dump(),
            packed=self._options.packed,
            # A run whose machine is lost leaves this log alone.
            provenance={
                **self._revision._asdict(),
                "command": command_line(self._options.arguments),
                "suite_version": suite.__version__,
                "train_from": self._train_from,
            },
        )
        resumed = f", resumed (attempt {self._attempts})" if self._attempts > 1 else ""
        self._options.progress.say(f"  {model.parameter_count():,} parameters{resumed}")

    def _costs(self, seconds: dict[str, float]) -> Costs:
        if self._options.packed:
            # Beside other runs, time and memory say nothing of this one.
            return Costs(seconds=seconds, packed=True, replayed=self._extras.get("replayed"))
        return Costs(seconds=seconds, **{**self._meters.read(), **self._extras})

    def _environment(self) -> Environment:
        """Where the run happens, with the arithmetic flags it trains under."""
        precision = self._spec.recipe["precision"]
        with arithmetic(precision["recurrence"], precision["head"]):
            return environment(self._options.device, self._meters.nvml)

    def _task(self) -> TaskRef:
        spec = self._spec
        return TaskRef(name=spec.task, version=spec.version, title=spec.title, paper=spec.paper, protocol=spec.protocol)

    def _labels(self) -> LabelRef:
        labels = self._spec.labels
        return LabelRef(dataset=labels.dataset, encoder=labels.encoder, head=labels.head)

    def _record(self, status: Status, message: str | None) -> Record:
        spec, model = self._spec, self._model
        seconds = {phase: round(value, 3) for phase, value in self._clock.snapshot().items()}
        seconds["total"] = round(sum(seconds.values()), 3)
        return Record(
            run_key=spec.run_key,
            status=status,
            scope=spec.scope,
            task=self._task(),
            labels=self._labels(),
            seed=spec.seed,
            spec=spec.identity,
            model=_model(model) if model else None,
            metrics=self._metrics,
            facts=known_facts(self._data),
            curves=self._curves,
            spectra=self._spectra,
            functions=self._functions,
            costs=self._costs(seconds),
            environment=self._environment(),
            provenance=Provenance(
                **self._revision._asdict(),
                command=command_line(self._options.arguments),
                suite_version=suite.__version__,
                data=dict(self._data.digests),
                started=self._started,
                ended=_now(),
                attempts=self._attempts,
                train_from=self._train_from,
            ),
            message=message,
        )


def _model(model: LanguageModel) -> Model:
    return Model(
        parameters=model.parameter_count(),
        head_parameters=model.head_parameter_count(),
        kernel=model.head.kernel_used,
    )


def write_error_log(folder: Path) -> Path:
    """Keep the traceback of the exception at hand in ``error.log`` of a run's folder; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "error.log"
    with naming(path):
        path.write_text(traceback.format_exc(), encoding="utf-8")
    return path


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")
