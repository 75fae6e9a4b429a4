"""Live mirroring in a process of its own: training neither waits for MLflow nor pays for its memory."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, cast

from suite.errors import SuiteError
from suite.records.registry import RegistryUnavailable
from suite.records.store import Store
from suite.records.tracking import Registry

POLL_SECONDS = 3.0
_FAREWELL = "finish\n"
_LAST_WORD_WAIT = 15.0  # for the sync of another run's mirror to end
# A server that is away is asked again soon; one request must not outlast the patience of stop().
_IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}

State = Literal["delivered", "pending", "unavailable"]


@dataclass(frozen=True)
class MirrorResult:
    """How mirroring ended: everything ``delivered``, some ``pending`` for `suite sync`, or MLflow ``unavailable``."""

    state: State
    detail: str = ""


class Mirror:
    """A child process that delivers new events and records of a store every few seconds.

    It never writes to the terminal, its errors go to ``runs/mirror.log``, and it ends by itself when this process
    ends. Nothing here raises: a run is not affected by what becomes of its mirror.
    """

    def __init__(self, store_root: Path, uri: str | None = None) -> None:
        self.root = Path(store_root)
        self.uri = uri
        self._process: subprocess.Popen[str] | None = None
        self._failure = ""

    def start(self) -> None:
        """Start the child; returns at once."""
        if importlib.util.find_spec("mlflow") is None:
            self._failure = "MLflow is not installed; the records hold everything"
            return
        command = [sys.executable, "-m", "suite.records.mirror", "--results", str(self.root)]
        command += ["--uri", self.uri] if self.uri else []
        try:
            log = self.root / "runs" / "mirror.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("a", encoding="utf-8") as errors:
                # A session of its own: Ctrl-C is for the runner, which then tells the mirror to finish.
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    start_new_session=True,
                    env={**os.environ, **_IMPATIENT},
                )
        except OSError as error:
            self._failure = f"the mirror could not be started: {error}"

    def stop(self, timeout: float = 20.0) -> MirrorResult:
        """Have the child deliver the rest and end, waiting at most ``timeout`` seconds."""
        process, self._process = self._process, None
        if process is None:
            return MirrorResult("unavailable", self._failure or "the mirror was not started")
        try:
            output, _ = process.communicate(_FAREWELL, timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return MirrorResult(
                "pending", f"MLflow took longer than {timeout:g} s; run `suite sync` to deliver the rest"
            )
        return _result(output, process.returncode)


def _result(output: str, code: int) -> MirrorResult:
    try:
        state, detail = json.loads(output.splitlines()[-1])
        return MirrorResult(state, detail)
    except (IndexError, ValueError, TypeError):
        return MirrorResult("pending", f"the mirror ended with code {code}; see runs/mirror.log, then run `suite sync`")


def follow(store: Store, uri: str | None, stdin: IO[str], poll: float = POLL_SECONDS) -> MirrorResult:
    """Sync every ``poll`` seconds until the parent says so on ``stdin`` or is gone, then once more; how that went."""
    parent = os.getppid()
    registry: Registry | None = None
    last = False
    while True:
        wait = _LAST_WORD_WAIT if last else 0.0
        try:
            registry = registry or Registry(store, uri)
            failed = registry.sync(wait=wait).failed
            detail = "; ".join(f"{key}: {reason}" for key, reason in failed.items())
            result = MirrorResult("pending" if failed else "delivered", detail)
        except RegistryUnavailable as error:
            result = MirrorResult("unavailable" if registry is None else "pending", str(error))
        except SuiteError as error:
            result = MirrorResult("unavailable", str(error))
        if result.state != "delivered":
            print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {result.state}: {result.detail}", file=sys.stderr, flush=True)
        if last:
            return result
        readable, _, _ = select.select([stdin], [], [], poll)
        # A process forked from the runner may hold the pipe open after the runner itself has gone.
        last = bool(readable) or os.getppid() != parent
        if readable and stdin.readline() != _FAREWELL:
            # The pipe of a killed runner closes a moment before its locks, by which it would still pass for alive;
            # a process loses its children only after both.
            deadline = time.monotonic() + _LAST_WORD_WAIT
            while os.getppid() == parent and time.monotonic() < deadline:
                time.sleep(0.05)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of the child process; its last line of output is the result as JSON."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parser = argparse.ArgumentParser(prog="suite.records.mirror", description=__doc__)
    parser.add_argument("--results", type=Path, required=True, help="folder that holds records and runs")
    parser.add_argument("--uri", help="MLflow tracking address; the store's own file by default")
    options = parser.parse_args(arguments)
    with contextlib.suppress(OSError):
        os.nice(10)  # training goes first
    result = follow(Store(options.results), cast("str | None", options.uri), sys.stdin)
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps([result.state, result.detail]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
