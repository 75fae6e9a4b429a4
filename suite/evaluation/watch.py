"""What a long evaluation owes its run: a line of progress, checkpoints in time, and a clean stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from suite.data.base import TextData
from suite.errors import InputError, Interrupted
from suite.stages import RunContext

_PROGRESS_SECONDS = 1.0


class Watch:
    """Says when to save and when to show; :meth:`pause` does the saving, outside the evaluation's clock."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._saved = self._shown = time.perf_counter()

    def due(self) -> bool:
        """Whether a checkpoint or a stop is due."""
        late = time.perf_counter() - self._saved > self._context.checkpoint_seconds
        return late or self._context.stop() is not None

    def pause(self, state: dict[str, Any]) -> None:
        """Save ``state``.

        Raises:
            Interrupted: the context asks to stop; the checkpoint has been written.
        """
        with self._context.clock("log"):
            self._context.save(state)
        self._saved = time.perf_counter()
        reason = self._context.stop()
        if reason is not None:
            raise Interrupted(reason)

    def show(self, line: Callable[[], str]) -> None:
        """Show ``line()`` when the last one is a second old; only then may it wait for the device."""
        now = time.perf_counter()
        if now - self._shown > _PROGRESS_SECONDS:
            self._shown = now
            self._context.progress.update(line())


def text_of(context: RunContext, stage: str) -> TextData:
    """The run's text.

    Raises:
        InputError: the dataset is none.
    """
    if not isinstance(context.data, TextData):
        raise InputError(f"stage {stage} needs a text dataset")
    return context.data
