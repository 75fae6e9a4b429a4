"""Optimisers, learning-rate schedules, and the running averages of NT-ASGD and ET-ASGD."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from suite.models.language_model import LanguageModel
from suite.spec.recipe import AdamW, NonMonotone, Recipe, Schedule


def build_optimizer(model: LanguageModel, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser; a pointwise function's parameters are a group of their own where it has its own rate.

    Every group keeps its undisturbed rate in ``base_lr``; :func:`set_learning_rate` scales from there.
    """
    separate = model.pointwise_parameters() if recipe.pointwise_lr is not None else []
    apart = {id(p) for p in separate}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if p.requires_grad and id(p) not in apart]}
    ]
    if separate:
        groups.append({"params": separate, "lr": recipe.pointwise_lr})
    chosen = recipe.optimizer
    built: torch.optim.Optimizer
    if isinstance(chosen, AdamW):
        betas = (chosen.beta1, chosen.beta2)
        built = torch.optim.AdamW(groups, lr=chosen.lr, betas=betas, weight_decay=chosen.weight_decay)
    else:
        built = torch.optim.SGD(groups, lr=chosen.lr, weight_decay=chosen.weight_decay)
    for group in built.param_groups:
        group["base_lr"] = group["lr"]
    return built


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to its base rate times ``factor``."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def schedule_factor(schedule: Schedule, step: int, total_steps: int) -> float:
    """Multiplier of the learning rate at ``step`` (from 0) of ``total_steps``."""
    warmup = min(1.0, (step + 1) / schedule.warmup_steps) if schedule.warmup_steps else 1.0
    if schedule.name == "constant" or step < schedule.warmup_steps:
        return warmup
    span = max(1, total_steps - 1 - schedule.warmup_steps)
    progress = min(1.0, (step - schedule.warmup_steps) / span)
    low = schedule.final_fraction
    return low + (1.0 - low) * 0.5 * (1.0 + math.cos(math.pi * progress))


class RunningAverage:
    """Mean of the iterates, exactly as torch.optim.ASGD(lambd=0, t0=0) keeps it.

    After updates p_1, p_2, ..., p_n the average is the mean of p_2 ... p_n: torch's weight is 1 for the first two
    steps. With lambd = 0 the iterates themselves are those of plain SGD.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = list(parameters)
        self.values: list[Tensor] = [p.detach().clone() for p in self._parameters]
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters as they are after an optimiser step."""
        weight = 1.0 / max(1, self.updates)
        self.updates += 1
        current = [p.detach() for p in self._parameters]
        torch._foreach_lerp_(self.values, current, weight)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Hold the averages in the model for the block, and put the iterates back after it."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for parameter, value in zip(self._parameters, self.values, strict=True):
            held = parameter.detach().clone()
            parameter.copy_(value)
            value.copy_(held)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and a count, for a checkpoint."""
        return {"values": self.values, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore in place."""
        for value, saved in zip(self.values, state["values"], strict=True):
            value.copy_(saved)
        self.updates = int(state["updates"])


def non_monotone_trigger(rule: NonMonotone, earlier: Sequence[float], latest: float) -> bool:
    """Whether NT-ASGD starts to average: validation is above its best of ``patience`` evaluations ago.

    Args:
        rule: the recipe's rule.
        earlier: validation losses before this one, in order.
        latest: this evaluation's loss.
    """
    return len(earlier) > rule.patience and latest > min(earlier[: -rule.patience])
