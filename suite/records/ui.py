"""The MLflow UI on the results: up to date, served to this machine only, with links to what matters."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import quote

from suite.errors import InputError, Problem, SuiteError
from suite.records.registry import artifact_folder
from suite.records.store import Store
from suite.records.tracking import Registry, set_shared_view

HOST = "127.0.0.1"
VIEW = "leaderboard"
_START_SECONDS = 60.0
_COLUMNS = (
    "params.`dataset`",
    "params.`encoder`",
    "params.`head`",
    "params.`seed`",
    "metrics.`valid_ppl`",
    "metrics.`test_ppl`",
    "metrics.`cost/train_seconds`",
    "metrics.`cost/gpu_peak_mib`",
    "metrics.`model/parameters`",
    "tags.`suite.scope`",
)


def view_state() -> dict[str, Any]:
    """The runs table as the UI stores a shared view: best test perplexity first, the columns of a leaderboard."""
    return {
        "searchFilter": "",
        "orderByKey": "metrics.`test_ppl`",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": list(_COLUMNS),
        "runsHiddenMode": "SHOW_ALL",
    }


def links(base: str, experiment_id: str, datasets: list[str]) -> list[tuple[str, str]]:
    """Title and address of the table, the charts, and the table of each dataset.

    The first two rely on the shared view; the last on plain query parameters, which hide most columns.
    """
    runs = f"{base}/#/experiments/{experiment_id}/runs?workflowType=machine_learning"
    shared = f"{runs}&viewStateShareKey={VIEW}"
    order = "&orderByKey=" + quote("metrics.`test_ppl`", safe="") + "&orderByAsc=true"
    by_dataset = []
    for name in datasets:
        mark = '"' if "'" in name else "'"
        condition = quote(f"params.dataset = {mark}{name}{mark}", safe="")
        by_dataset.append((f"runs on {name}", f"{runs}{order}&searchFilter={condition}"))
    return [("runs by test perplexity", shared), ("charts", f"{shared}&compareRunsMode=CHART"), *by_dataset]


def serve(
    store: Store, port: int, *, uri: str | None = None, say: Callable[[str], None] = print, sync_first: bool = True
) -> None:
    """Sync, run the MLflow server on 127.0.0.1, print the links, and stay until Ctrl-C (or a termination signal).

    When the registry is a server already, only its links are printed.

    Raises:
        InputError: the port is taken.
        SuiteError: MLflow is not available, or the server did not come up within a minute.
    """
    registry = Registry(store, uri)
    remote = registry.uri.startswith("http")
    if not remote:
        _require_free(port)
    if sync_first:
        report = registry.sync(wait=60)
        say(f"registry: {len(report.created)} new, {len(report.updated)} updated, {len(report.unchanged)} as before")
        for key, reason in report.failed.items():
            say(f"run {key} could not be mirrored: {reason}")
    set_shared_view(registry, VIEW, view_state())
    datasets = sorted({record.labels.dataset for record in store.scan().records})
    if remote:
        _print_links(say, registry.uri.rstrip("/"), registry.experiment_id, datasets)
        return
    stopping = contextlib.suppress(KeyboardInterrupt)
    with stopping, _termination_as_interrupt(), _server(store, registry.uri, port) as process:
        _print_links(say, f"http://{HOST}:{port}", registry.experiment_id, datasets)
        say(f"Ctrl-C stops it. From another machine: ssh -L {port}:{HOST}:{port} THIS-MACHINE")
        code = process.wait()
        raise SuiteError(f"the MLflow server ended with code {code}: {_tail(_log(store))}")


def _print_links(say: Callable[[str], None], base: str, experiment_id: str, datasets: list[str]) -> None:
    found = links(base, experiment_id, datasets)
    width = max(len(title) for title, _ in found)
    for title, address in found:
        say(f"  {title:<{width}}  {address}")


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        # As the server does: a port that only waits for old connections to fade is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            message = f"port {port} cannot be used ({_reason(error)}); stop what uses it, or choose another with --port"
            raise InputError(Problem(message)) from error


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


@contextmanager
def _server(store: Store, uri: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    log = _log(store)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", uri, "--artifacts-destination", artifact_folder(store).as_uri()]
    # The job runner costs 2 GB of memory, opens more interfaces, and serves nothing here.
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with log.open("wb") as output:
        # A session of its own, so that its workers can be ended together.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, **settings},
        )
    try:
        _wait_healthy(process, port, log)
        yield process
    finally:
        _end(process)


def _wait_healthy(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SuiteError(f"the MLflow server ended with code {process.returncode}: {_tail(log)}")
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=2) as reply:
            if reply.status == 200:
                return
        time.sleep(0.2)
    raise SuiteError(f"the MLflow server did not answer within {_START_SECONDS:g} s: {_tail(log)}")


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
            return


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _log(store: Store) -> Path:
    return store.runs_dir / "ui.log"


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return " | ".join(line for line in lines[-3:] if line.strip()) or "it left no message"
