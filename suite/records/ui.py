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

from suite.errors import InputError, Problem, SuiteError
from suite.records.registry import artifact_folder, registry_uri, without_password
from suite.records.store import Store
from suite.records.tracking import Registry
from suite.records.views import best_run, by_dataset, overview

HOST = "127.0.0.1"
_START_SECONDS = 60.0
_RUNS_A_LINE = 100


def _say(line: str) -> None:
    print(line, flush=True)  # whoever reads a pipe waits for these lines too


def serve(
    store: Store, port: int, *, uri: str | None = None, say: Callable[[str], None] = _say, sync_first: bool = True
) -> None:
    """Sync, run the MLflow server on 127.0.0.1, print the links, and stay until Ctrl-C (or a termination signal).

    When the registry is a server already, only its links are printed.

    Raises:
        InputError: the port is taken, or there is no results folder.
        SuiteError: MLflow is not available, or the server did not come up within a minute.
    """
    if not store.root.is_dir():
        raise InputError(
            Problem("no results folder here: `suite run` makes it; --results names another", str(store.root))
        )
    address = uri or registry_uri(store)
    remote = address.startswith("http")
    if not remote:
        _require_free(port)
    if sync_first:
        # Said before anything slow: MLflow alone takes seconds to import.
        say("bringing the registry up to date with the records ...")
    registry = Registry(store, uri)
    if sync_first:
        report = registry.sync(wait=60, say=_counting(say))
        say(f"registry: {len(report.created)} new, {len(report.updated)} updated, {len(report.unchanged)} as before")
        for key, reason in report.failed.items():
            say(f"run {key} could not be mirrored: {reason}")
    if remote:
        _print_links(say, links(registry, without_password(registry.uri.rstrip("/"))))
        return
    base = f"http://{HOST}:{port}"
    say(f"starting the MLflow server at {base}, a few seconds ...")
    # The whole is inside, so that a Ctrl-C while it starts ends the server too.
    stopping = contextlib.suppress(KeyboardInterrupt)
    with stopping, _termination_as_interrupt(), _server(store, registry.uri, port) as process:
        _print_links(say, links(registry, base))
        say("MLflow's Assistant panel, open on a browser's first visit, is not needed; once closed it stays closed.")
        say(f"Ready. Ctrl-C stops it. From another machine: ssh -L {port}:{HOST}:{port} THIS-MACHINE")
        code = process.wait()
        raise SuiteError(f"the MLflow server ended with code {code}: {_tail(_log(store))}")


def links(registry: Registry, base: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Title and address of every page worth opening, by dataset; the pages' states are stored on the way."""
    # Without the workflow type the UI opens on traces and judges.
    experiment, mode = f"{base}/#/experiments/{registry.experiment_id}/runs", "?workflowType=machine_learning"
    records = registry.store.scan().records
    found: list[tuple[str, list[tuple[str, str]]]] = []
    for heading, views in {"all datasets": [overview()], **by_dataset(records)}.items():
        pages = [
            (view.title, view.address(experiment + mode, stored=registry.store_view(view.key, view.state)))
            for view in views
        ]
        best = best_run(records, heading)
        run_id = registry.run_id(best.run_key) if best else None
        if best and run_id:
            scope = "" if best.scope == "full" else f"{best.scope} "
            pages.append((f"best {scope}run, {best.labels.head} seed {best.seed}", f"{experiment}/{run_id}{mode}"))
        found.append((heading, pages))
    return found


def _counting(say: Callable[[str], None]) -> Callable[[str], None]:
    """Takes what is said of each run, and says how many there were: the first sync of many takes minutes."""
    count = 0

    def hear(_message: str) -> None:
        nonlocal count
        count += 1
        if count % _RUNS_A_LINE == 0:
            say(f"  {count} runs so far")

    return hear


def _print_links(say: Callable[[str], None], found: list[tuple[str, list[tuple[str, str]]]]) -> None:
    for heading, pages in found:
        say(f"\n{heading}")
        width = max(34, *(len(title) for title, _ in pages))
        for title, address in pages:
            say(f"  {title:<{width}}  {address}")
    say("")


def _require_free(port: int) -> None:
    if not 0 < port < 1 << 16:
        raise InputError(Problem(f"port {port} does not exist; choose one from 1 to 65535 with --port"))
    with socket.socket() as probe:
        # As the server does: a port that only waits for old connections to fade is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            message = f"port {port} cannot be used ({error.strerror}); stop what uses it, or choose another with --port"
            raise InputError(Problem(message)) from error


@contextmanager
def _server(store: Store, uri: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    log = _log(store)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", uri, "--artifacts-destination", artifact_folder(store).as_uri()]
    # MLflow would also answer to 0.0.0.0 and to every private address; a tunnel may use another port.
    command += ["--allowed-hosts", f"{HOST}:*,localhost:*"]
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

    # A closed terminal (SIGHUP) would otherwise leave the server, in its own session, behind; nohup ignores it.
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _log(store: Store) -> Path:
    return store.runs_dir / "ui.log"


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return " | ".join(line for line in lines[-3:] if line.strip()) or "it left no message"
