"""Scoring the model as training goes on: what the run is judged by, what is tracked beside it, the best weights."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from suite.data.base import Split
from suite.models.arithmetic import arithmetic, of_evaluation
from suite.spec.recipe import Recipe
from suite.stages import RunContext
from suite.training.averages import Averages
from suite.training.checkpoint import save_atomically
from suite.training.objectives import Objective

SCORED: tuple[Split, ...] = ("valid", "test")


class Validation:
    """Scores the judged weights (the plain iterate, or its average once that has started) and the tracked ones.

    Attributes:
        losses: of the judged weights, one an evaluation, in order.
    """

    def __init__(self, context: RunContext, recipe: Recipe, objective: Objective, averages: Averages) -> None:
        self._context = context
        self._objective = objective
        self._averages = averages
        self._arithmetic = of_evaluation(recipe.precision)
        self._track_every = recipe.evaluation.track_every_epochs
        self.losses: list[float] = []
        self._best = math.inf
        self._best_weights: dict[str, Tensor] | None = None  # those not yet in the file

    def score(self, point: dict[str, float]) -> list[str]:
        """Add validation scores to a curve point; returns the names of averages that this made start.

        ``valid_*`` is of the judged weights; ``valid_*_raw`` of the plain iterate, where it is another; and
        ``valid_*@NAME`` of a tracked average.
        """
        averages = self._averages
        judged = averages.judged
        tracking = averages.several and point["epoch"] % self._track_every == 0
        # Taken first: an average that these very scores start has nothing of its own to show yet.
        tracked = {name: average for name, average in averages.active.items() if tracking and name != averages.main}
        started: list[str] = []
        if judged is not None:
            with judged.swapped_in():
                self._judge(self.score_only(point))
        if averages.needs_iterate or tracking:
            loss = self.score_only(point, "" if judged is None else "_raw")
            if judged is None:
                self._judge(loss)
            started = averages.observe(loss)
        for name, average in tracked.items():
            with average.swapped_in():
                self.score_only(point, f"@{name}")
        return started

    def final(self) -> dict[Split, dict[str, float]]:
        """Scores of the judged weights at their best, which the model holds now, with the recipe's variants."""
        return {split: self._evaluate(split, final=True) for split in SCORED}

    def tracked(self) -> dict[Split, dict[str, float]]:
        """Scores ``metric@NAME`` of every average, and ``metric_raw`` of the iterate, as training leaves them.

        Empty where there is one average at most, which :meth:`final` is about.
        """
        found: dict[Split, dict[str, float]] = {split: {} for split in SCORED}
        if not self._averages.several:
            return found
        for split in SCORED:
            found[split] |= self._named(split, "_raw")
            for name, average in self._averages.active.items():
                with average.swapped_in():
                    found[split] |= self._named(split, f"@{name}")
        return found

    def write_best(self) -> None:
        """Put the best weights so far into the run's folder, unless they are there."""
        if self._best_weights is not None:
            save_atomically(self._best_weights, self._context.weights_path)
            self._best_weights = None

    def _evaluate(self, split: Split, *, final: bool = False) -> dict[str, float]:
        with arithmetic(self._arithmetic, self._arithmetic):
            return self._objective.evaluate(self._context.model, split, final=final)

    def _named(self, split: Split, suffix: str) -> dict[str, float]:
        return {f"{metric}{suffix}": value for metric, value in self._evaluate(split).items() if metric != "tokens"}

    def score_only(self, point: dict[str, float], suffix: str = "") -> float:
        """Validation loss of the weights in the model; its scores go into ``point``, and nothing is decided."""
        scores = self._evaluate("valid")
        point |= {f"valid_{name}{suffix}": value for name, value in scores.items() if name != "tokens"}
        return scores.get("nll", scores.get("kl", math.inf))

    def _judge(self, loss: float) -> None:
        self.losses.append(loss)
        if loss < self._best:
            self._best = loss
            state = self._context.model.state_dict()
            self._best_weights = {name: value.detach().clone() for name, value in state.items()}

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint; the best weights are in their file by then."""
        return {"losses": list(self.losses), "best": self._best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.losses = [float(loss) for loss in state["losses"]]
        self._best = float(state["best"])
