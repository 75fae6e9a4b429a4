"""The UI serves this machine only, opens on the leaderboard's columns, and says what to do when it cannot start."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import time

import pytest

from suite.errors import InputError
from suite.records.store import Store
from suite.records.tracking import Registry
from suite.records.ui import _termination_as_interrupt, links, serve
from suite.records.views import by_dataset, overview

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


def test_a_port_in_use_is_refused_before_anything_starts(store, registry_file):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError) as caught:
            serve(store, port)
    assert str(caught.value) == (
        f"port {port} cannot be used (Address already in use); stop what uses it, or choose another with --port"
    )


def test_a_port_that_cannot_be_and_a_folder_that_is_not_there_are_refused(store, registry_file, tmp_path):
    with pytest.raises(InputError) as caught:
        serve(store, 99999)
    assert str(caught.value) == "port 99999 does not exist; choose one from 1 to 65535 with --port"
    absent = tmp_path / "absent"
    with pytest.raises(InputError) as caught:
        serve(Store(absent), 5000)
    assert str(caught.value) == f"{absent}: no results folder here: `suite run` makes it; --results names another"
    assert not absent.exists()


def test_the_server_answers_this_machine_only_and_ends_when_told(make_record, store, registry_file):
    record = make_record(1)
    store.write(record)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    code = (
        # A test runner in the background of a shell passes on that it ignores Ctrl-C.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
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
        run_id = Registry(store).run_id(record.run_key)
        page = f"http://127.0.0.1:{port}/#/experiments/1/runs"
        shared = f"{page}?workflowType=machine_learning&viewStateShareKey"
        assert lines == [
            "bringing the registry up to date with the records ...",
            "registry: 1 new, 0 updated, 0 as before",
            f"starting the MLflow server at http://127.0.0.1:{port}, a few seconds ...",
            "",
            "all datasets",
            f"  all runs, latest first              {shared}=runs",
            "",
            "hmm",
            f"  runs by test_ppl                    {shared}=hmm-runs",
            f"  means by head                       {shared}=hmm-heads",
            f"  curves, and what they cost          {shared}=hmm-charts&compareRunsMode=CHART",
            f"  best run, mos seed 1                {page}/{run_id}?workflowType=machine_learning",
            "",
            "MLflow's Assistant panel, open on a browser's first visit, is not needed; once closed it stays closed.",
            f"Ready. Ctrl-C stops it. From another machine: ssh -L {port}:127.0.0.1:{port} THIS-MACHINE",
        ]
        assert get(port, "/health", f"127.0.0.1:{port}") == (200, "OK")
        status, body = get(port, "/api/2.0/mlflow/experiments/get?experiment_id=1", "evil.example")
        assert (status, body) == (403, "Invalid Host header - possible DNS rebinding attack detected")
        status, body = get(port, "/api/2.0/mlflow/experiments/get?experiment_id=1", f"127.0.0.1:{port}")
        assert status == 200
        tags = {tag["key"]: tag["value"] for tag in json.loads(body)["experiment"]["tags"]}
        for view in [overview(), *by_dataset([record])["hmm"]]:
            assert json.loads(tags[f"mlflow.sharedViewState.{view.key}"]) == view.state
        status, body = get(port, f"/get-artifact?path=record.json&run_uuid={run_id}", f"127.0.0.1:{port}")
        assert (status, json.loads(body)["seed"]) == (200, 1)
        ui.send_signal(signal.SIGINT)
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_closed_terminal_ends_the_server_as_ctrl_c_does_unless_it_is_to_be_ignored(number):
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt), _termination_as_interrupt():
            signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN)  # nohup
        with _termination_as_interrupt():
            signal.raise_signal(number)
    finally:
        signal.signal(number, before)


def test_a_registry_that_refuses_the_views_still_gets_links_that_filter_and_sort(
    make_record, store, registry_file, monkeypatch
):
    from mlflow.exceptions import MlflowException

    store.write(make_record(1))
    registry = Registry(store)
    registry.sync()

    def refuse(*_arguments):
        raise MlflowException("tag value too long")

    monkeypatch.setattr(registry.client, "set_experiment_tag", refuse)
    (_, overall), (name, pages) = links(registry, "http://registry")
    start = "http://registry/#/experiments/1/runs?workflowType=machine_learning"
    assert overall[0][1] == f"{start}&orderByKey=attributes.start_time&orderByAsc=false&searchFilter="
    assert (name, pages[0]) == (
        "hmm",
        (
            "runs by test_ppl",
            f"{start}&orderByKey=metrics.%60test_ppl%60&orderByAsc=true&searchFilter=params.dataset%20%3D%20%27hmm%27",
        ),
    )
