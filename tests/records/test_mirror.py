"""The live mirror never holds a run up, and what it could not deliver arrives later, once."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from suite.records.mirror import Mirror, MirrorResult, _result
from suite.records.tracking import Registry, sync

pytest.importorskip("mlflow")

pytestmark = [
    # As in test_tracking.py.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    pytest.mark.filterwarnings("ignore:unclosed database in:ResourceWarning"),
    pytest.mark.timeout(120),
]


class _Broken(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(500)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *_arguments: object) -> None:
        pass


@contextmanager
def broken_server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Broken) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def test_a_run_is_delivered_while_it_goes_on_and_whole_at_the_end(
    make_record, store, registry_file, start_run, add_epoch, capfd
):
    record = make_record(1)
    mirror = Mirror(store.root)
    with store.lock(record.run_key):
        start_run(store, record)
        add_epoch(store, record, 1)
        mirror.start()
        wait_for(lambda: record.run_key in Registry(store)._entries())
        assert Registry(store)._entries()[record.run_key].info.status == "RUNNING"
    store.write(make_record(2))
    assert mirror.stop(timeout=60) == MirrorResult("delivered")
    entries = Registry(store)._entries()
    assert {entries[make_record(seed).run_key].info.status for seed in (1, 2)} == {"KILLED", "FINISHED"}
    assert sync(store).created == []
    assert capfd.readouterr() == ("", "")


def test_a_server_that_answers_500_costs_the_run_nothing_and_a_later_sync_delivers(make_record, store, registry_file):
    with broken_server() as address:
        mirror = Mirror(store.root, address)
        mirror.start()
        store.write(make_record(1))
        result = mirror.stop(timeout=60)
    assert result.state == "unavailable"
    assert result.detail.startswith(f"MLflow at {address} is not available: API request to ")
    assert result.detail.endswith("; records are safe; run `suite sync` when it is back")
    assert (store.runs_dir / "mirror.log").read_text().count("unavailable: MLflow at") >= 1
    assert sync(store).created == [make_record(1).run_key]
    assert sync(store).unchanged == [make_record(1).run_key]


def test_a_server_that_never_answers_is_not_waited_for(make_record, store):
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts into its backlog and stays silent
        mirror = Mirror(store.root, f"http://127.0.0.1:{server.getsockname()[1]}")
        mirror.start()
        store.write(make_record(1))
        begin = time.monotonic()
        result = mirror.stop(timeout=1.0)
        assert time.monotonic() - begin < 5
    assert result == MirrorResult("pending", "MLflow took longer than 1 s; run `suite sync` to deliver the rest")


def test_the_mirror_of_a_killed_runner_reports_that_and_ends(make_record, store, registry_file, start_run):
    record = make_record(1)
    start_run(store, record)
    code = (
        "import time; from pathlib import Path\n"
        "from suite.records.mirror import Mirror; from suite.records.store import Store\n"
        f"store = Store(Path({str(store.root)!r})); mirror = Mirror(store.root)\n"
        f"with store.lock({record.run_key!r}):\n"
        "    mirror.start(); print(mirror._process.pid, flush=True); time.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout is not None
        child = int(runner.stdout.readline())
        wait_for(lambda: record.run_key in Registry(store)._entries())
        assert Registry(store)._entries()[record.run_key].info.status == "RUNNING"
        os.kill(child, signal.SIGINT)
        time.sleep(0.3)
        assert alive(child)
        runner.kill()
    wait_for(lambda: not alive(child))
    assert Registry(store)._entries()[record.run_key].info.status == "KILLED"


def test_without_mlflow_the_mirror_says_so(store, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    mirror = Mirror(store.root)
    mirror.start()
    assert mirror.stop() == MirrorResult("unavailable", "MLflow is not installed; the records hold everything")
    assert Mirror(store.root).stop() == MirrorResult("unavailable", "the mirror was not started")


def test_a_mirror_that_died_is_told_apart_from_one_that_delivered():
    assert _result("noise\n" + '["delivered", ""]\n', 0) == MirrorResult("delivered")
    hint = "see runs/mirror.log, then run `suite sync`"
    assert _result("", -9) == MirrorResult("pending", f"the mirror ended with code -9; {hint}")
