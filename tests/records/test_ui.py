"""The UI serves this machine only, opens on the leaderboard's columns, and says what to do when it cannot start."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from urllib.parse import parse_qs, urlsplit

import pytest

from suite.errors import InputError
from suite.records.tracking import Registry
from suite.records.ui import links, serve, view_state

pytest.importorskip("mlflow")

pytestmark = [
    # As in test_tracking.py.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    pytest.mark.filterwarnings("ignore:unclosed database in:ResourceWarning"),
    pytest.mark.timeout(180),
]


def get(port: int, path: str, host: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path, headers={"Host": host})
    reply = connection.getresponse()
    body = reply.read().decode()
    connection.close()
    return reply.status, body


def test_links_open_the_table_the_charts_and_each_dataset():
    found = dict(links("http://127.0.0.1:5000", "7", ["o'brien & co"]))
    assert list(found) == ["runs by test perplexity", "charts", "runs on o'brien & co"]
    start = "http://127.0.0.1:5000/#/experiments/7/runs?workflowType=machine_learning"
    assert found["runs by test perplexity"] == f"{start}&viewStateShareKey=leaderboard"
    assert found["charts"] == f"{start}&viewStateShareKey=leaderboard&compareRunsMode=CHART"
    query = parse_qs(urlsplit(found["runs on o'brien & co"]).fragment.partition("?")[2])
    assert query["orderByKey"] == ["metrics.`test_ppl`"]
    assert query["searchFilter"] == ['params.dataset = "o\'brien & co"']


def test_a_port_in_use_is_refused_before_anything_starts(store, registry_file):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError) as caught:
            serve(store, port)
    assert str(caught.value) == (
        f"port {port} cannot be used (Address already in use); stop what uses it, or choose another with --port"
    )


def test_the_server_answers_this_machine_only_and_ends_when_told(make_record, store, registry_file):
    store.write(make_record(1))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    code = (
        "from pathlib import Path; from suite.records.store import Store; from suite.records.ui import serve\n"
        f"serve(Store(Path({str(store.root)!r})), {port}, say=lambda line: print(line, flush=True))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as ui:
        assert ui.stdout is not None
        lines: list[str] = []
        while not lines or "Ctrl-C" not in lines[-1]:
            line = ui.stdout.readline()
            assert line, ui.stderr.read() if ui.stderr else ""
            lines.append(line.rstrip())
        assert lines[0] == "registry: 1 new, 0 updated, 0 as before"
        assert get(port, "/health", f"127.0.0.1:{port}") == (200, "OK")
        status, body = get(port, "/api/2.0/mlflow/experiments/get?experiment_id=1", "evil.example")
        assert (status, body) == (403, "Invalid Host header - possible DNS rebinding attack detected")
        status, body = get(port, "/api/2.0/mlflow/experiments/get?experiment_id=1", f"127.0.0.1:{port}")
        assert status == 200
        tags = {tag["key"]: tag["value"] for tag in json.loads(body)["experiment"]["tags"]}
        assert json.loads(tags["mlflow.sharedViewState.leaderboard"]) == view_state()
        run_id = next(iter(Registry(store)._entries().values())).info.run_id
        status, body = get(port, f"/get-artifact?path=record.json&run_uuid={run_id}", f"127.0.0.1:{port}")
        assert (status, json.loads(body)["seed"]) == (200, 1)
        ui.terminate()
        assert ui.wait(timeout=30) == 0
        assert ui.stderr is not None
        assert ui.stderr.read() == ""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return
        time.sleep(0.1)
    pytest.fail("the server outlived its command")
