"""Running averages of the iterates: the one a run is judged by, and others kept beside it to compare starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from suite.spec.recipe import FromEpoch, NonMonotone, Recipe

NON_MONOTONE = "nt"


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


class Averages:
    """Every average a recipe asks for, by name: the epoch it starts at, or ``nt`` for the non-monotone trigger.

    ``main`` is the name of the one whose weights are the run's; the others are only scored.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], recipe: Recipe) -> None:
        self._parameters = list(parameters)
        self._starts: dict[str, int] = {}
        self._trigger: NonMonotone | None = None
        self.main: str | None = None
        rule = recipe.averaging
        if isinstance(rule, FromEpoch):
            self.main = str(rule.epoch)
            self._starts[self.main] = rule.epoch
        elif rule is not None:
            self.main, self._trigger = NON_MONOTONE, rule
        for tracked in recipe.track_averages:
            if isinstance(tracked, int):
                self._starts[str(tracked)] = tracked
            elif self._trigger is None:
                self._trigger = NonMonotone(trigger="non-monotone")
        self.active: dict[str, RunningAverage] = {}
        self._losses: list[float] = []  # of the plain iterate: what the non-monotone rule looks at

    @property
    def judged(self) -> RunningAverage | None:
        """The average whose weights are the run's, once it has started."""
        return self.active.get(self.main) if self.main is not None else None

    @property
    def needs_iterate(self) -> bool:
        """Whether the plain iterate must be scored: it is the run's, or the trigger still waits for it."""
        return self.judged is None or (self._trigger is not None and NON_MONOTONE not in self.active)

    @property
    def several(self) -> bool:
        """Whether there is more than one average to tell apart."""
        return len(self._starts) + (self._trigger is not None) > 1

    def begin_epoch(self, epoch: int) -> list[str]:
        """Start the averages that are due at ``epoch`` (from 1); returns their names."""
        return [self._begin(name) for name, first in self._starts.items() if epoch >= first and name not in self.active]

    def observe(self, loss: float) -> list[str]:
        """Show the trigger a validation loss of the plain iterate; returns the name of an average it started."""
        started: list[str] = []
        if self._trigger is not None and NON_MONOTONE not in self.active:
            if non_monotone_trigger(self._trigger, self._losses, loss):
                started.append(self._begin(NON_MONOTONE))
            self._losses.append(loss)
        return started

    def update(self) -> None:
        """Take in the parameters as they are after an optimiser step, in every average that has started."""
        for average in self.active.values():
            average.update()

    def _begin(self, name: str) -> str:
        self.active[name] = RunningAverage(self._parameters)
        return name

    def state_dict(self) -> dict[str, Any]:
        """Averages by name and the trigger's history, for a checkpoint."""
        return {"active": {name: a.state_dict() for name, a in self.active.items()}, "losses": list(self._losses)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self._losses = [float(loss) for loss in state["losses"]]
        for name, saved in state["active"].items():
            self._begin(name)
            self.active[name].load_state_dict(saved)
