"""The UI serves this machine only, opens on the leaderboard's columns, and says what to do when it cannot start."""

from __future__ import annotations

import signal
import socket

import pytest

from suite.errors import InputError
from suite.records.store import Store
from suite.records.tracking import Registry
from suite.records.ui import _counting, _termination_as_interrupt, links, serve

pytest.importorskip("mlflow")

pytestmark = [
    # As in test_tracking.py.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    pytest.mark.filterwarnings("ignore:unclosed database in:ResourceWarning"),
    pytest.mark.timeout(180),
]


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


def test_a_long_sync_says_how_far_it_is():
    lines: list[str] = []
    hear = _counting(lines.append)
    for number in range(250):
        hear(f"created run {number}")
    assert lines == ["  100 runs so far", "  200 runs so far"]


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
