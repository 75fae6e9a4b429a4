"""Optimisers and learning-rate schedules."""

from __future__ import annotations

import math
from typing import Any

import torch

from suite.models.language_model import LanguageModel
from suite.spec.recipe import AdamW, Recipe, Schedule


def build_optimizer(model: LanguageModel, recipe: Recipe, capturable: bool = False) -> torch.optim.Optimizer:
    """The recipe's optimiser; a pointwise function's parameters are a group of their own where it has its own rate.

    Every group keeps its undisturbed rate in ``base_lr``; :func:`set_learning_rate` scales from there. ``capturable``
    keeps rates and counts on the GPU, where a CUDA graph can read them.
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
        built = torch.optim.AdamW(
            groups, lr=chosen.lr, betas=betas, weight_decay=chosen.weight_decay, capturable=capturable
        )
    else:
        built = torch.optim.SGD(groups, lr=chosen.lr, weight_decay=chosen.weight_decay)
    for group in built.param_groups:
        group["base_lr"] = group["lr"]
        if capturable:
            group["lr"] = torch.full((), group["lr"], device=group["params"][0].device)
    return built


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to its base rate times ``factor``; a rate that lives on a GPU is set there."""
    for group in optimizer.param_groups:
        rate = group["base_lr"] * factor
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def schedule_factor(schedule: Schedule, step: int, total_steps: int) -> float:
    """Multiplier of the learning rate at ``step`` (from 0) of ``total_steps``."""
    warmup = min(1.0, (step + 1) / schedule.warmup_steps) if schedule.warmup_steps else 1.0
    if schedule.name == "constant" or step < schedule.warmup_steps:
        return warmup
    span = max(1, total_steps - 1 - schedule.warmup_steps)
    progress = min(1.0, (step - schedule.warmup_steps) / span)
    low = schedule.final_fraction
    return low + (1.0 - low) * 0.5 * (1.0 + math.cos(math.pi * progress))
