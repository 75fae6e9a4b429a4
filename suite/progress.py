"""How far a command is: one line rewritten in place in a terminal, plain lines at intervals elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

_PLAIN_INTERVAL_S = 30.0


class Progress:
    """Shows a run's progress on a stream."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._open = False
        self._shown = time.monotonic()

    def named(self, name: str) -> Progress:
        """The same stream for one of several runs at once: plain lines, each with ``name`` before it."""
        return _Named(self, name)

    def say(self, line: str) -> None:
        """A line that stays."""
        self._clear()
        print(line, file=self._stream, flush=True)
        self._shown = time.monotonic()

    def update(self, line: str, *, final: bool = False) -> None:
        """Progress of the run at hand; ``final`` keeps the line."""
        if final:
            self.say("  " + line)
        elif self._live:
            width = shutil.get_terminal_size().columns - 1
            self._clear()
            self._stream.write(("  " + line)[:width])
            self._stream.flush()
            self._open = True
        elif time.monotonic() - self._shown > _PLAIN_INTERVAL_S:
            self.say("  " + line)

    def _clear(self) -> None:
        if self._open:
            self._stream.write("\r\x1b[2K")
            self._open = False


class _Named(Progress):
    def __init__(self, whole: Progress, name: str) -> None:
        super().__init__(whole._stream)
        self._live = False
        self._name = name

    def say(self, line: str) -> None:
        super().say(f"{self._name}  {line.strip()}")


def duration(seconds: float) -> str:
    """``45s``, ``3m20s``, ``2h05m``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
