"""The training loop: epochs of steps, evaluation in between, and a state that can be saved between any two steps."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from suite.errors import Diverged, Interrupted
from suite.kernels.devices import runs_triton
from suite.models.turns import TURNS
from suite.progress import duration
from suite.stages import RunContext
from suite.training.averages import Averages
from suite.training.checkpoint import random_state, restore_random_state
from suite.training.objectives import build_objective, steps_per_epoch
from suite.training.optimizers import schedule_factor
from suite.training.probe import LossProbe
from suite.training.seeds import derive_seed
from suite.training.step import EagerStep
from suite.training.validation import Validation

_PROGRESS_SECONDS = 1.0
# A GPU's counter of energy moves every 20 to 100 ms: that of a shorter epoch would be off by more than some 5 %.
_SHORTEST_COUNTED_S = 2.0


class Trainer:
    """Fits a model by a recipe; every part of its state can be checkpointed between any two steps.

    Args:
        context: the run.
        stop_after: given the validation losses so far, whether to end before the budget does.
    """

    def __init__(self, context: RunContext, stop_after: Callable[[list[float]], bool] = lambda _losses: False) -> None:
        self._context = context
        self._model = context.model
        self._recipe = recipe = context.recipe
        self._stop_after = stop_after
        device = context.device
        seed = context.spec.seed
        self.objective = build_objective(context.data, recipe, seed, device)
        self._epoch_nats = torch.zeros((), dtype=torch.float64, device=device)
        # Training's own stream: what initialisation, capture or an evaluation draws must not reach it.
        self._generator: torch.Generator | None = None
        if device.type == "cuda":
            self._generator = torch.Generator(device).manual_seed(derive_seed(seed, "training"))
        else:
            torch.manual_seed(derive_seed(seed, "training"))
        parameters = [p for p in self._model.parameters() if p.requires_grad]
        self._averages = Averages(parameters, recipe)
        self.validation = Validation(context, recipe, self.objective, self._averages)
        self._step_once = self._build_step()
        self._probe = LossProbe(self._epoch_nats)
        budget = recipe.budget
        by_epochs = budget.epochs * steps_per_epoch(self.objective, recipe)
        self._total_steps = min(by_epochs, budget.steps) if budget.steps else by_epochs
        self._epoch = 0  # epochs completed
        self._mid_epoch = False
        self._step = 0
        self._late_scale = 1.0
        self._epoch_items = 0
        self._epoch_seconds: list[float] = []
        self._epoch_joules: list[float] = []
        self._items_timed: list[int] = []
        self._this_epoch_seconds = self._this_epoch_joules = 0.0
        self._last_save = time.perf_counter()

    def _build_step(self) -> EagerStep:
        model, recipe = self._model, self._recipe
        if self._context.graphs and runs_triton(self._context.device):
            # Imported where it is used: Triton is there only with a GPU build of torch.
            from suite.training.graphs import GraphStep

            return GraphStep(model, self.objective, recipe, self._averages, self._epoch_nats, self._generator)
        return EagerStep(model, self.objective, recipe, self._averages, self._epoch_nats, self._generator)

    def fit(self) -> None:
        """Train until the budget is spent.

        Raises:
            Diverged: the loss is no longer finite.
            Interrupted: the context asked to stop; a checkpoint has been written.
        """
        while not (self._ended() or self._stop_after(self.validation.losses)):
            self._train_epoch()
            self._epoch += 1
            self._mid_epoch = False
            self._close_epoch()
            self._save_if_due()
        self.validation.write_best()

    def begin(self) -> None:
        """Go to the beginning of an epoch; with :meth:`advance`, for measurements of steps alone."""
        self._model.train()
        self.objective.begin_epoch()
        self.objective.prepare(self._model)

    def advance(self) -> bool:
        """Take the next step, without checkpoint or evaluation; False at the end of the epoch."""
        work = self.objective.next()
        if work is not None:
            self._step_once(work, self._factor(work.lr_scale))
        return work is not None

    def cost_figures(self) -> dict[str, Any]:
        """Steady-state speed: medians over epochs, the first left out because it warms up."""
        seconds, items, joules = self._epoch_seconds, self._items_timed, self._epoch_joules
        if len(seconds) > 1:
            seconds, items, joules = seconds[1:], items[1:], joules[1:]
        if not seconds or min(seconds) <= 0:
            return {}
        whole = not self._spent_early()
        counted = whole and min(seconds) >= _SHORTEST_COUNTED_S and all(each > 0 for each in joules)
        return {
            "replayed": self._step_once.replayed,
            "seconds_per_epoch": statistics.median(seconds) if whole else None,
            "joules_per_epoch": statistics.median(joules) if counted else None,
            "epochs_timed": len(seconds),
            "tokens_per_second": statistics.median(i / s for i, s in zip(items, seconds, strict=True)),
        }

    def _ended(self) -> bool:
        return self._epoch >= self._recipe.budget.epochs or self._spent()

    def _spent(self) -> bool:
        limit = self._recipe.budget.steps
        return limit is not None and self._step >= limit

    def _spent_early(self) -> bool:
        """Whether the step budget cut the only epoch short, so that its time is not an epoch's time."""
        return len(self._epoch_seconds) == 1 and self._items_timed[0] < 0.95 * self.objective.items_per_epoch

    def _train_epoch(self) -> None:
        if not self._mid_epoch:
            self.objective.begin_epoch()
            self._mid_epoch = True
            self._epoch_nats.zero_()
            self._epoch_items = 0
            self._this_epoch_seconds = self._this_epoch_joules = 0.0
            self._started(self._averages.begin_epoch(self._epoch + 1))
        clock, joules = self._context.clock, self._context.joules
        ended = False
        while not ended:
            before, drawn = clock.read("train"), joules()
            with clock("train"):
                ended = self._run_steps()
            self._this_epoch_joules += joules() - drawn
            self._this_epoch_seconds += clock.read("train") - before
            if not ended:
                # Outside the training clock: writing a checkpoint is not training.
                self._save_if_due()
        self._epoch_seconds.append(self._this_epoch_seconds)
        self._epoch_joules.append(self._this_epoch_joules)
        self._items_timed.append(self._epoch_items)

    def _run_steps(self) -> bool:
        """Take steps until the epoch ends (True) or a checkpoint or stop is due (False)."""
        self._model.train()
        self.objective.prepare(self._model)
        began = shown = time.perf_counter()
        while not self._spent():
            TURNS.rest()
            work = self.objective.next()
            if work is None:
                return True
            self._step_once(work, self._factor(work.lr_scale))
            self._step += 1
            self._epoch_items += work.items
            self._check(self._probe.read(self._epoch_items))
            now = time.perf_counter()
            if now - shown > _PROGRESS_SECONDS:
                shown = now
                self._report_progress(self._this_epoch_seconds + now - began)
            if self._save_due():
                return False
        return True

    def _factor(self, lr_scale: float) -> float:
        """Multiplier of every learning rate in the next step."""
        rule = self._recipe.averaging
        late = rule is not None and rule.late_learning_rate and self._averages.judged is not None
        used = self._late_scale if late else lr_scale
        self._late_scale = lr_scale
        return schedule_factor(self._recipe.schedule, self._step, self._total_steps) * used

    def _check(self, mean: float) -> float:
        if not math.isfinite(mean):
            raise Diverged(f"the training loss is not finite at step {self._step} (epoch {self._epoch + 1})")
        return mean

    def _started(self, names: list[str]) -> None:
        if not names:
            return
        self._step_once.settle()
        if self._averages.main in names:
            # torch.optim.ASGD starts from the undisturbed rate, then lags one step.
            self._late_scale = 1.0
        self._step_once.averages_changed()

    def _close_epoch(self) -> None:
        """Evaluate, keep the best weights, log the curve point, decide about averaging."""
        if self._epoch % self._recipe.evaluation.every_epochs and not self._ended():
            return
        point = self._training_point()
        with self._context.clock("evaluate"):
            self._started(self.validation.score(point))
        with self._context.clock("log"):
            self._context.curves.append(point)
            self._context.emit("epoch", stage="train", **point)
        self._report_epoch(point)

    def _training_point(self) -> dict[str, float]:
        nats = self._check(self._epoch_nats.item() / max(1, self._epoch_items))
        point: dict[str, float] = {
            "epoch": self._epoch,
            "step": self._step,
            "train_nll": nats,
            "averaged": int(self._averages.judged is not None),
            "lr": self._step_once.optimizer.param_groups[0]["base_lr"],
            "seconds": round(self._epoch_seconds[-1], 4),
        }
        self._step_once.settle()
        if self._step_once.skipped:
            point["skipped_steps"] = self._step_once.skipped
        if self.objective.primary == "ppl":
            point["train_ppl"] = math.exp(min(nats, 700.0))
        return point

    def _report_progress(self, seconds: float) -> None:
        mean = self._probe.latest
        rate = self._epoch_items / max(seconds, 1e-9)
        done = max(1e-9, self._step / self._total_steps)
        left = (self._context.clock.read("train")) * (1.0 - done) / done
        perplexity = f"  ppl {math.exp(min(mean, 700.0)):.2f}" if self.objective.primary == "ppl" else ""
        part = min(1.0, self._epoch_items / self.objective.items_per_epoch)
        self._context.progress.update(
            f"epoch {self._epoch + 1}/{self._recipe.budget.epochs} {part:4.0%}  loss {mean:.3f}{perplexity}  "
            f"{rate:,.0f} {self.objective.unit}/s  {duration(left)} left"
        )

    def _report_epoch(self, point: dict[str, float]) -> None:
        valid = f"valid_{self.objective.primary}"
        scores = "  ".join(f"{k.replace('_', ' ')} {point[k]:.3f}" for k in ("train_ppl", valid) if k in point)
        rate = self._items_timed[-1] / max(self._epoch_seconds[-1], 1e-9)
        averaged = "  averaged" if point["averaged"] else ""
        self._context.progress.update(
            f"epoch {self._epoch}/{self._recipe.budget.epochs}  {scores}  "
            f"{rate:,.0f} {self.objective.unit}/s{averaged}",
            final=True,
        )

    def _save_due(self) -> bool:
        waited = time.perf_counter() - self._last_save > self._context.checkpoint_seconds
        return waited or self._context.stop() is not None

    def _save_if_due(self) -> None:
        reason = self._context.stop()
        if reason is not None or self._save_due():
            with self._context.clock("log"):
                self.validation.write_best()
                self._context.save(self.state_dict())
            self._last_save = time.perf_counter()
        if reason is not None:
            raise Interrupted(reason)

    def state_dict(self) -> dict[str, Any]:
        """Everything the next step depends on, as tensors and plain values."""
        self._step_once.settle()
        return {
            "model": self._model.state_dict(),
            "optimizer": self._step_once.optimizer.state_dict(),
            "averages": self._averages.state_dict(),
            "objective": self.objective.state_dict(),
            "random": random_state(self._generator),
            "epoch": self._epoch,
            "mid_epoch": self._mid_epoch,
            "step": self._step,
            "late_scale": self._late_scale,
            "skipped": self._step_once.skipped,
            "epoch_nats": self._epoch_nats.clone(),
            "epoch_items": self._epoch_items,
            "epoch_seconds": list(self._epoch_seconds),
            "epoch_joules": list(self._epoch_joules),
            "items_timed": list(self._items_timed),
            "this_epoch_seconds": self._this_epoch_seconds,
            "this_epoch_joules": self._this_epoch_joules,
            "validation": self.validation.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self._model.load_state_dict(state["model"])
        self._step_once.optimizer.load_state_dict(state["optimizer"])
        self._averages.load_state_dict(state["averages"])
        self.objective.load_state_dict(state["objective"])
        self._epoch = int(state["epoch"])
        self._mid_epoch = bool(state["mid_epoch"])
        self._step = int(state["step"])
        self._late_scale = float(state["late_scale"])
        self._step_once.skipped = int(state["skipped"])
        self._epoch_nats.copy_(state["epoch_nats"])
        self._epoch_items = int(state["epoch_items"])
        self._epoch_seconds = list(state["epoch_seconds"])
        self._epoch_joules = list(state["epoch_joules"])
        self._items_timed = list(state["items_timed"])
        self._this_epoch_seconds = float(state["this_epoch_seconds"])
        self._this_epoch_joules = float(state["this_epoch_joules"])
        self.validation.load_state_dict(state["validation"])
        restore_random_state(state["random"], self._generator)
        self._step_once.averages_changed()
