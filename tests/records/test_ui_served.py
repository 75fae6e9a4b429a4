"""One server for what needs one: whom it answers, what every printed link shows in a browser, how it ends."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, browser, find_browser
from records_factory import make_record
from served_ui import SCREENSHOTS, Served, charts, listening, read, served, table, visit, write

from suite.records.store import Store
from suite.records.tracking import Registry
from suite.records.views import by_dataset, overview

pytest.importorskip("mlflow")

pytestmark = [
    # As in test_tracking.py.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    pytest.mark.filterwarnings("ignore:unclosed database in:ResourceWarning"),
    pytest.mark.timeout(180),
]

PPL = {("softmax", 1): 58.25, ("softmax", 2): 58.75, ("mos-15", 1): 55.5, ("mos-15", 2): 56.5}
RECORDS = [
    make_record(
        head=head,
        seed=seed,
        test=ppl,
        valid=ppl + 2,
        curves=[{"epoch": e, "step": 10 * e, "valid_ppl": ppl + 2 + 100 / e} for e in (1.0, 2.0, 3.0)],
    )
    for (head, seed), ppl in PPL.items()
]
# Those of a desktop; MLflow makes no columns that are out of sight.
WIDTH, HEIGHT = 1920, 1000


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, registry_template: Path) -> Path:
    folder = tmp_path_factory.mktemp("served") / "results"
    store = Store(folder)
    for record in RECORDS:
        store.write(record)
    shutil.copy(registry_template, folder / "mlflow.db")
    return folder


@pytest.fixture(scope="module")
def ui(results: Path) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with served(results) as found:
            yield found


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    path = find_browser()
    if path is None:
        pytest.skip("no Chromium here: the links of the MLflow UI are not opened in a browser")
    with browser(path) as found:
        found.screen(WIDTH, HEIGHT)
        yield found


def run_id(results: Path, head: str, seed: int) -> str:
    key = next(record.run_key for record in RECORDS if (record.labels.head, record.seed) == (head, seed))
    found = Registry(Store(results)).run_id(key)
    assert found
    return found


def keep(tab: Browser, name: str) -> None:
    tab.screenshot(SCREENSHOTS / f"{name}.png")


def test_it_says_what_it_does_and_where_to_look(ui: Served, results: Path) -> None:
    page = f"http://127.0.0.1:{ui.port}/#/experiments/1/runs"
    shared = f"{page}?workflowType=machine_learning&viewStateShareKey"
    assert ui.lines == [
        "bringing the registry up to date with the records ...",
        "registry: 4 new, 0 updated, 0 as before",
        f"starting the MLflow server at http://127.0.0.1:{ui.port}, a few seconds ...",
        "",
        "all datasets",
        f"  all runs, latest first              {shared}=runs",
        "",
        "ptb",
        f"  runs by test_ppl                    {shared}=ptb-runs",
        f"  means by head                       {shared}=ptb-heads",
        f"  curves, and what they cost          {shared}=ptb-charts&compareRunsMode=CHART",
        f"  best run, mos-15 seed 1             {page}/{run_id(results, 'mos-15', 1)}?workflowType=machine_learning",
        "",
        "MLflow's Assistant panel, open on a browser's first visit, is not needed; once closed it stays closed.",
        f"Ready. Ctrl-C stops it. From another machine: ssh -L {ui.port}:127.0.0.1:{ui.port} THIS-MACHINE",
    ]


def test_it_answers_this_machine_only(ui: Served, results: Path) -> None:
    here, experiment = f"127.0.0.1:{ui.port}", "/api/2.0/mlflow/experiments/get?experiment_id=1"
    assert read(ui.port, "/health", here) == (200, "OK")
    status, body = read(ui.port, experiment, "evil.example")
    assert (status, body) == (403, "Invalid Host header - possible DNS rebinding attack detected")
    assert read(ui.port, experiment, f"0.0.0.0:{ui.port}")[0] == 403
    assert read(ui.port, experiment, "localhost:1234")[0] == 200, "as it comes through a tunnel from another port"
    create = "/api/2.0/mlflow/experiments/create"
    assert write(ui.port, create, {"name": "theirs"}, "http://evil.example") == 403
    assert listening(ui.port) == {"127.0.0.1"}
    status, body = read(ui.port, experiment, here)
    assert status == 200
    tags = {tag["key"]: tag["value"] for tag in json.loads(body)["experiment"]["tags"]}
    for view in [overview(), *by_dataset(RECORDS)["ptb"]]:
        assert json.loads(tags[f"mlflow.sharedViewState.{view.key}"]) == view.state
    artifact = f"/get-artifact?path=record.json&run_uuid={run_id(results, 'mos-15', 1)}"
    status, body = read(ui.port, artifact, here)
    assert (status, json.loads(body)["seed"]) == (200, 1)
    assert (results / "sockets").read_text() == "", "the server reached for another machine"


def test_all_runs_are_shown_with_their_columns(ui: Served, tab: Browser) -> None:
    visit(tab, ui.links["all datasets", "all runs, latest first"])
    rows = table(tab, 4)
    keep(tab, "mlflow-all-runs")
    assert {(row["head"], int(row["seed"])): float(row["test_ppl"]) for row in rows} == PPL
    assert {(row["dataset"], row["encoder"], row["scope"], row["task"]) for row in rows} == {
        ("ptb", "awd-lstm", "full", "mos-ptb")
    }
    shown = tab.evaluate("document.body.innerText")
    assert "Model training" in shown
    assert not {"Traces", "Evaluation runs", "Judges"} <= set(shown.split("\n")), "not the page for GenAI"


def test_the_leaderboard_is_sorted_by_test_perplexity(ui: Served, tab: Browser) -> None:
    visit(tab, ui.links["ptb", "runs by test_ppl"])
    rows = table(tab, 4)
    keep(tab, "mlflow-leaderboard")
    assert [float(row["test_ppl"]) for row in rows] == sorted(PPL.values())
    assert [row["head"] for row in rows] == ["mos-15", "mos-15", "softmax", "softmax"]
    assert rows[0]["Run Name"].startswith("mos-15 seed 1")
    first = {"valid_ppl": "57.5", "cost/seconds_per_epoch": "40", "cost/gpu_peak_mib": "9876", "encoder": "awd-lstm"}
    assert {name: rows[0][name] for name in first} == first


def test_the_heads_are_means_over_seeds(ui: Served, tab: Browser) -> None:
    visit(tab, ui.links["ptb", "means by head"])
    rows = table(tab, 2)
    keep(tab, "mlflow-heads")
    assert [row["Run Name"] for row in rows] == ["Group: mos-15 2", "Group: softmax 2"]
    assert [row["test_ppl"] for row in rows] == ["56 (average)", "58.5 (average)"]
    assert [row["cost/seconds_per_epoch"] for row in rows] == ["40 (average)"] * 2


def test_curves_of_all_heads_share_an_axis_and_stand_beside_costs(ui: Served, tab: Browser) -> None:
    visit(tab, ui.links["ptb", "curves, and what they cost"])
    (lines, curves), (bars, lengths), *costs = charts(tab, 4)
    keep(tab, "mlflow-curves")
    means = {"mos-15": 56.0, "softmax": 58.5}
    drawn = [pytest.approx(y) for _, y in curves]
    for mean in means.values():
        assert [mean + 2 + 100 / epoch for epoch in (1, 2, 3)] in drawn
    assert (lines, bars, sorted(lengths[0][0])) == ("scatter", "bar", list(means.values()))
    assert [kind for kind, _ in costs[:2]] == ["scatter"] * 2
    for (_, [(x, y)]), cost in zip(costs[:2], (40, 9876), strict=True):
        assert (x, sorted(y)) == ([cost, cost], list(means.values()))
    titles = tab.evaluate("document.body.innerText")
    for title in ("curve/valid_ppl", "test_ppl", "cost/seconds_per_epoch vs. test_ppl", "cost/gpu_peak_mib vs."):
        assert title in titles


def test_one_run_shows_its_command_its_data_and_its_metrics(ui: Served, tab: Browser) -> None:
    visit(tab, ui.links["ptb", "best run, mos-15 seed 1"])
    tab.until("document.body.innerText.includes('cost/gpu_peak_mib')")
    keep(tab, "mlflow-run")
    shown = tab.evaluate("document.body.innerText")
    for text in ("mos-15 seed 1, awd-lstm on ptb (mos-ptb)", "Finished", "mos-ptb.yaml", "record.json"):
        assert text in shown


def test_ctrl_c_ends_the_server_too(ui: Served) -> None:
    ui.process.send_signal(signal.SIGINT)
    assert ui.process.wait(timeout=30) == 0
    assert ui.process.stderr is not None
    assert ui.process.stderr.read() == ""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", ui.port)) != 0:
                return
        time.sleep(0.1)
    pytest.fail("the server outlived its command")
