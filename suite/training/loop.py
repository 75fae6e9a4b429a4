"""The training loop: eager, the oracle every faster form is compared with."""

from __future__ import annotations

import math
import statistics
import time
from typing import Any

import torch
from torch import nn

from suite.errors import Diverged, Interrupted
from suite.progress import duration
from suite.spec.recipe import FromEpoch, NonMonotone
from suite.stages import RunContext
from suite.training.checkpoint import random_state, restore_random_state, save_atomically
from suite.training.objectives import build_objective, steps_per_epoch
from suite.training.optimizers import (
    RunningAverage,
    build_optimizer,
    non_monotone_trigger,
    schedule_factor,
    set_learning_rate,
)
from suite.training.seeds import derive_seed

# How often the running loss is read back from a GPU; each read waits for the device.
_CUDA_READ_STEPS = 50
_PROGRESS_SECONDS = 1.0


class Trainer:
    """Fits a model by the recipe; every part of its state can be checkpointed between any two steps."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._model = context.model
        self._recipe = context.recipe
        seed = context.spec.seed
        self.objective = build_objective(context.data, context.recipe, seed, context.device)
        self._optimizer = build_optimizer(self._model, context.recipe)
        self._parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        self._average: RunningAverage | None = None
        budget = context.recipe.budget
        by_epochs = budget.epochs * steps_per_epoch(self.objective, context.recipe)
        self._total_steps = min(by_epochs, budget.steps) if budget.steps else by_epochs
        self._epoch = 0  # epochs completed
        self._mid_epoch = False
        self._step = 0
        self._late_scale = 1.0
        self._epoch_nats = torch.zeros((), dtype=torch.float64, device=context.device)
        self._epoch_items = 0
        self._epoch_seconds: list[float] = []
        self._items_timed: list[int] = []
        self._this_epoch_seconds = 0.0
        self._losses: list[float] = []  # validation history that the non-monotone rule looks at
        self._best = math.inf
        self._last_save = time.perf_counter()
        # Training's own stream: what initialisation or a smoke evaluation drew before must not reach it.
        torch.manual_seed(derive_seed(seed, "training"))

    def fit(self) -> None:
        """Train until the budget is spent.

        Raises:
            Diverged: the loss is no longer finite.
            Interrupted: the context asked to stop; a checkpoint has been written.
        """
        while self._epoch < self._recipe.budget.epochs and not self._spent():
            self._train_epoch()
            self._epoch += 1
            self._mid_epoch = False
            self._close_epoch()
            self._save_if_due()

    def cost_figures(self) -> dict[str, Any]:
        """Steady-state speed: medians over epochs, the first left out because it warms up."""
        seconds, items = self._epoch_seconds, self._items_timed
        if len(seconds) > 1:
            seconds, items = seconds[1:], items[1:]
        if not seconds or min(seconds) <= 0:
            return {}
        return {
            "seconds_per_epoch": statistics.median(seconds) if not self._spent_early() else None,
            "epochs_timed": len(seconds),
            "tokens_per_second": statistics.median(i / s for i, s in zip(items, seconds, strict=True)),
        }

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
            self._this_epoch_seconds = 0.0
            self._start_average_if_due()
        clock = self._context.clock
        ended = False
        while not ended:
            before = clock.read("train")
            with clock("train"):
                ended = self._run_steps()
            self._this_epoch_seconds += clock.read("train") - before
            if not ended:
                # Outside the training clock: writing a checkpoint is not training.
                self._save_if_due()
        self._epoch_seconds.append(self._this_epoch_seconds)
        self._items_timed.append(self._epoch_items)

    def _run_steps(self) -> bool:
        """Take steps until the epoch ends (True) or a checkpoint or stop is due (False)."""
        self._model.train()
        began = shown = time.perf_counter()
        while not self._spent():
            work = self.objective.next()
            if work is None:
                return True
            self._optimizer.zero_grad(set_to_none=True)
            for loss, nats in self.objective.losses(self._model, work):
                torch.autograd.backward(loss)
                self._epoch_nats += nats
            self._update(work.lr_scale)
            self._step += 1
            self._epoch_items += work.items
            if self._context.device.type == "cpu" or self._step % _CUDA_READ_STEPS == 0:
                self._mean_nats()
            now = time.perf_counter()
            if now - shown > _PROGRESS_SECONDS:
                shown = now
                self._report_progress(self._this_epoch_seconds + now - began)
            if self._save_due():
                return False
        return True

    def _update(self, lr_scale: float) -> None:
        recipe = self._recipe
        if recipe.clip is not None:
            nn.utils.clip_grad_norm_(self._parameters, recipe.clip)
        late = self._average is not None and recipe.averaging is not None and recipe.averaging.late_learning_rate
        factor = schedule_factor(recipe.schedule, self._step, self._total_steps)
        set_learning_rate(self._optimizer, factor * (self._late_scale if late else lr_scale))
        self._late_scale = lr_scale
        self._optimizer.step()
        if self._average is not None:
            self._average.update()

    def _mean_nats(self) -> float:
        """Mean training loss of the epoch so far, nats an item; waits for the device."""
        mean = self._epoch_nats.item() / max(1, self._epoch_items)
        if not math.isfinite(mean):
            raise Diverged(f"the training loss is not finite at step {self._step} (epoch {self._epoch + 1})")
        return mean

    def _start_average_if_due(self) -> None:
        rule = self._recipe.averaging
        if isinstance(rule, FromEpoch) and self._average is None and self._epoch + 1 >= rule.epoch:
            self._begin_average()

    def _begin_average(self) -> None:
        self._average = RunningAverage(self._parameters)
        # torch.optim.ASGD starts from the undisturbed rate, then lags one step.
        self._late_scale = 1.0

    def _close_epoch(self) -> None:
        """Evaluate, keep the best weights, log the curve point, decide about averaging."""
        final = self._epoch >= self._recipe.budget.epochs or self._spent()
        if self._epoch % self._recipe.evaluation.every_epochs and not final:
            return
        point = self._training_point()
        with self._context.clock("evaluate"):
            if self._average is not None:
                with self._average.swapped_in():
                    valid = self._evaluate_and_keep(point)
            else:
                valid = self._evaluate_and_keep(point)
        rule = self._recipe.averaging
        if isinstance(rule, NonMonotone) and self._average is None:
            if non_monotone_trigger(rule, self._losses, valid):
                self._begin_average()
            self._losses.append(valid)
        with self._context.clock("log"):
            self._context.curves.append(point)
            self._context.emit("epoch", stage="train", **point)
        self._report_epoch(point)

    def _training_point(self) -> dict[str, float]:
        nats = self._mean_nats()
        point: dict[str, float] = {
            "epoch": self._epoch,
            "step": self._step,
            "train_nll": nats,
            "averaged": int(self._average is not None),
            "lr": self._optimizer.param_groups[0]["base_lr"],
            "seconds": round(self._epoch_seconds[-1], 4),
        }
        if self.objective.primary == "ppl":
            point["train_ppl"] = math.exp(min(nats, 700.0))
        return point

    def _evaluate_and_keep(self, point: dict[str, float]) -> float:
        scores = self.objective.evaluate(self._model, "valid")
        point |= {f"valid_{name}": value for name, value in scores.items() if name != "tokens"}
        loss = scores.get("nll", scores.get("kl", math.inf))
        if loss < self._best:
            self._best = loss
            save_atomically(self._model.state_dict(), self._context.weights_path)
        return loss

    def _report_progress(self, seconds: float) -> None:
        mean = self._mean_nats()
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
                self._context.save(self.state_dict())
            self._last_save = time.perf_counter()
        if reason is not None:
            raise Interrupted(reason)

    def state_dict(self) -> dict[str, Any]:
        """Everything the next step depends on, as tensors and plain values."""
        return {
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "average": self._average.state_dict() if self._average is not None else None,
            "objective": self.objective.state_dict(),
            "random": random_state(self._context.device),
            "epoch": self._epoch,
            "mid_epoch": self._mid_epoch,
            "step": self._step,
            "late_scale": self._late_scale,
            "epoch_nats": self._epoch_nats.clone(),
            "epoch_items": self._epoch_items,
            "epoch_seconds": list(self._epoch_seconds),
            "items_timed": list(self._items_timed),
            "this_epoch_seconds": self._this_epoch_seconds,
            "losses": list(self._losses),
            "best": self._best,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        if state["average"] is not None:
            self._average = RunningAverage(self._parameters)
            self._average.load_state_dict(state["average"])
        self.objective.load_state_dict(state["objective"])
        self._epoch = int(state["epoch"])
        self._mid_epoch = bool(state["mid_epoch"])
        self._step = int(state["step"])
        self._late_scale = float(state["late_scale"])
        self._epoch_nats.copy_(state["epoch_nats"])
        self._epoch_items = int(state["epoch_items"])
        self._epoch_seconds = list(state["epoch_seconds"])
        self._items_timed = list(state["items_timed"])
        self._this_epoch_seconds = float(state["this_epoch_seconds"])
        self._losses = list(state["losses"])
        self._best = float(state["best"])
        restore_random_state(state["random"], self._context.device)
