"""The finetune stage: averaged SGD from the best weights so far (Merity et al. 2018, section 5, their finetune.py)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from suite.errors import InputError
from suite.evaluation.functions import keep_function
from suite.models.weights import load_weights
from suite.spec.recipe import NonMonotone, Recipe, Sgd
from suite.spec.types import NonNegativeInt, PositiveFloat, PositiveInt
from suite.stages import Measurements, RunContext
from suite.training.averages import non_monotone_trigger
from suite.training.checkpoint import save_atomically
from suite.training.loop import Trainer
from suite.training.seeds import derive_seed


class Finetune:
    """Go on from the best weights with averaged SGD from the first step, and keep the best average.

    The recipe is the train stage's, save for the options below. Training ends with the budget, or once validation is
    above its best of ``patience`` evaluations ago. Where no average beats the weights it began with, these stay. The
    recipe's ``late_learning_rate`` applies here, too: it is how ``torch.optim.ASGD`` scales its steps.

    Args:
        lr: learning rate; the recipe's when absent. The MoS authors take 25 (PTB, training 20) and 20 (WikiText-2, 15).
        epochs: at most.
        patience: evaluations that may pass without a new best.
        max_excess: bound on random lengths, bptt + max_excess, where it differs from the recipe's: 10 in the AWD-LSTM
            code.
    """

    name = "finetune"
    trains = True

    def __init__(
        self,
        *,
        lr: PositiveFloat | None = None,
        epochs: PositiveInt = 1000,
        patience: PositiveInt = 5,
        max_excess: NonNegativeInt | None = None,
    ) -> None:
        self._lr = lr
        self._epochs = epochs
        self._rule = NonMonotone(trigger="non-monotone", patience=patience)
        self._max_excess = max_excess

    def recipe(self, recipe: Recipe) -> Recipe:
        """The recipe of this stage, given the run's.

        Raises:
            InputError: the run does not train with SGD, or has no random lengths to bound.
        """
        if not isinstance(recipe.optimizer, Sgd):
            raise InputError(
                f"stage {self.name} is averaged SGD, and the recipe's optimizer is {recipe.optimizer.name}"
            )
        plain = recipe.model_dump()
        if self._max_excess is not None:
            if recipe.random_length is None:
                raise InputError(f"stage {self.name}: max_excess bounds random lengths, and the recipe has none")
            plain["random_length"]["max_excess"] = self._max_excess
        late = recipe.averaging is not None and recipe.averaging.late_learning_rate
        plain |= {
            "averaging": {"trigger": "epoch", "epoch": 1, "late_learning_rate": late},
            "track_averages": [],
            "schedule": {"name": "constant"},
            "budget": {"epochs": self._epochs},
        }
        plain["optimizer"]["lr"] = self._lr or recipe.optimizer.lr
        return Recipe.model_validate(plain)

    def run(self, context: RunContext, state: dict[str, Any] | None) -> Measurements:
        """See :class:`suite.stages.Stage`."""
        recipe = self.recipe(context.recipe)
        with context.clock("setup"):
            phase = _Phase(context, recipe)
            trainer = Trainer(phase.inner, stop_after=self._ended)
        if state is None:
            with context.clock("evaluate"):
                phase.begin(trainer.validation.score_only({}))
        else:
            with context.clock("setup"):
                phase.start = float(state["start"])
                trainer.load_state_dict(state["trainer"])
        trainer.fit()
        improved = min(trainer.validation.losses, default=math.inf) < phase.start
        if improved:
            # Were the run killed after the copy below and begun anew, it would start from its own result.
            with context.clock("log"):
                phase.save(trainer.state_dict())
        with context.clock("evaluate"):
            best = phase.inner.weights_path if improved else context.weights_path
            weights = load_weights(context.model, best, context.device)
            keep_function(context, self.name)
            measured: Measurements = dict(trainer.validation.final().items())
        if improved:
            with context.clock("log"):
                save_atomically(weights, context.weights_path)
        return measured

    def _ended(self, losses: list[float]) -> bool:
        return bool(losses) and non_monotone_trigger(self._rule, losses[:-1], losses[-1])


class _Phase:
    """The run as the trainer sees it while it finetunes: other recipe, random streams and folder; epochs go on.

    Curve points continue the epochs and steps of the training before and carry ``stage``, the stage's place in the
    spec from 0; training's own points have none.
    """

    def __init__(self, context: RunContext, recipe: Recipe) -> None:
        self._context = context
        self.start = math.inf
        names = [stage.name for stage in context.spec.stages]
        self._stage = names.index(Finetune.name) if Finetune.name in names else 1
        trained = [point for point in context.curves if point.get("stage", 0) < self._stage]
        self._epochs = trained[-1]["epoch"] if trained else 0
        self._steps = trained[-1]["step"] if trained else 0
        self._points: list[dict[str, float]] = []
        self.inner = replace(
            context,
            spec=replace(context.spec, seed=derive_seed(context.spec.seed, "finetune")),
            recipe=recipe,
            folder=context.folder / "finetune",
            curves=self._points,
            extras={},
            emit=self._emit,
            save=self.save,
        )

    def begin(self, loss: float) -> None:
        """The weights at hand, and the validation loss to beat."""
        self.start = loss
        # Where training kept no weights, these are the best so far.
        if not self._context.weights_path.exists():
            save_atomically(self._context.model.state_dict(), self._context.weights_path)

    def save(self, state: dict[str, Any] | None) -> None:
        """Write a checkpoint of the stage around the trainer's own state."""
        self._context.save({"start": self.start, "trainer": state})

    def _emit(self, kind: str, **fields: Any) -> None:
        if kind == "epoch":
            point = self._points.pop()
            point["epoch"] += self._epochs
            point["step"] += self._steps
            point["stage"] = self._stage
            self._context.curves.append(point)
            fields = {**point, "stage": Finetune.name}
        self._context.emit(kind, **fields)
