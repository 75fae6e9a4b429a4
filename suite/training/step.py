"""One optimiser step, eager: the oracle of every faster form, and what a CPU runs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from suite.models.arithmetic import arithmetic
from suite.models.dropout import drawing_from
from suite.models.language_model import LanguageModel
from suite.spec.recipe import Recipe
from suite.training.averages import Averages
from suite.training.objectives import Objective, Work
from suite.training.optimizers import build_optimizer, set_learning_rate


class EagerStep:
    """Forward, backward, clipping, update and averaging of one step, launched from Python.

    Args:
        model: in training mode whenever a step runs.
        objective: gives the losses.
        recipe: how to optimise.
        averages: kept after each update.
        nats: float64 scalar on the device; each step adds its nats.
        generator: where masks are drawn from; None for torch's own.
    """

    replayed = False
    capturable = False  # whether the optimiser keeps its state where a CUDA graph can read it

    def __init__(
        self,
        model: LanguageModel,
        objective: Objective,
        recipe: Recipe,
        averages: Averages,
        nats: Tensor,
        generator: torch.Generator | None,
    ) -> None:
        self.model, self.objective, self.recipe = model, objective, recipe
        self.averages, self.nats, self.generator = averages, nats, generator
        self.optimizer = build_optimizer(model, recipe, self.capturable)
        self.parameters: list[nn.Parameter] = [p for group in self.optimizer.param_groups for p in group["params"]]
        # A float16 backward pass would lose small gradients to zero.
        self.scale = recipe.precision.loss_scale if recipe.precision.recurrence == "float16" else 1.0
        model.head.loss_factor = self.scale
        self.skipped = 0  # steps left out because a gradient was not finite, at the last settling

    def __call__(self, work: Work, factor: float) -> None:
        """Take the step; ``factor`` scales every learning rate."""
        self.objective.stage(work)
        with arithmetic(self.recipe.precision.recurrence, self.recipe.precision.head):
            self.differentiate(work.length)
            with record_function("update"):
                self._update(factor)

    def differentiate(self, length: int) -> None:
        """Gradients of the staged step's loss, times the loss scale, into ``grad``."""
        self.optimizer.zero_grad(set_to_none=True)
        with drawing_from(self.generator):
            for loss, nats in self.objective.losses(self.model, length):
                with record_function("backward"):
                    torch.autograd.backward(loss * self.scale if self.scale != 1.0 else loss)
                self.nats += nats

    def _update(self, factor: float) -> None:
        if self.scale != 1.0:
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            torch._foreach_div_(gradients, self.scale)
            if not all(norm.isfinite() for norm in torch._foreach_norm(gradients)):
                self.skipped += 1
                return
        if self.recipe.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip)
        set_learning_rate(self.optimizer, factor)
        self.optimizer.step()
        self.averages.update()

    def averages_changed(self) -> None:
        """To be called when an average has started."""

    def settle(self) -> None:
        """Bring what the host is told of averages and skipped steps up to date; waits for the device."""
