"""Checkpoints: written whole or not at all, the one before kept, read without executing anything."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from suite.errors import RunFailed
from suite.models.weights import load_tensors
from suite.records.files import replacing

FORMAT = 3


def save_atomically(payload: Any, path: Path) -> None:
    """torch.save in one step: a kill leaves the old file or the new one.

    Raises:
        OSError: it cannot be written; ``filename`` says what, which is as it was.
    """
    with replacing(path) as file:
        torch.save(payload, file)


class CheckpointFile:
    """``checkpoint.pt`` of one run, and ``checkpoint.previous.pt``, the one before."""

    def __init__(self, folder: Path, run_key: str) -> None:
        self.path = folder / "checkpoint.pt"
        self.previous = folder / "checkpoint.previous.pt"
        # There only after a kill between the two renames, and then it is whole.
        self._next = folder / "checkpoint.next.pt"
        self._newest_first = (self._next, self.path, self.previous)
        self._run_key = run_key

    def save(self, payload: dict[str, Any]) -> None:
        """Write ``payload``; the last checkpoint becomes the previous one."""
        save_atomically({"format": FORMAT, "run_key": self._run_key, **payload}, self._next)
        if self.path.exists():
            os.replace(self.path, self.previous)
        os.replace(self._next, self.path)

    def load(self, say: Callable[[str], None]) -> dict[str, Any] | None:
        """The newest checkpoint that can be read and belongs to this run, or None to start from the beginning."""
        for path in self._newest_first:
            if not path.exists():
                continue
            try:
                payload = load_tensors(path, torch.device("cpu"))
                if payload["format"] == FORMAT and payload["run_key"] == self._run_key:
                    found: dict[str, Any] = payload
                    return found
                say(f"{path.name} belongs to another run or suite version: not used")
            except RunFailed as error:
                say(f"{error}: trying the one before")
            except (TypeError, LookupError):
                say(f"{path.name} is no checkpoint: trying the one before")
        return None

    def exists(self) -> bool:
        """Whether there is any, good or not."""
        return any(path.exists() for path in self._newest_first)

    def remove(self) -> None:
        """Delete both: the run is finished and its record is safe."""
        for path in self._newest_first:
            path.unlink(missing_ok=True)


def random_state(generator: torch.Generator | None) -> dict[str, torch.Tensor]:
    """State of a run's own generator, or of torch's where it has none, for a checkpoint."""
    return {"state": torch.get_rng_state() if generator is None else generator.get_state()}


def restore_random_state(state: dict[str, torch.Tensor], generator: torch.Generator | None) -> None:
    """Put the generator back as :func:`random_state` found it."""
    if generator is None:
        torch.set_rng_state(state["state"])
    else:
        generator.set_state(state["state"])
