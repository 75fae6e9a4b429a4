"""What the UI is asked to show: the right runs, averaged only where they may be, ranked by the dataset's own metric."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from suite.records.payload import cell_digest
from suite.records.views import best_run, by_dataset, overview, primary_metric

PAGE = "http://127.0.0.1:5000/#/experiments/7/runs?workflowType=machine_learning"


def query(address: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(address).fragment.partition("?")[2], keep_blank_values=True)


def labels(dataset="hmm", encoder="lstm", head="mos"):
    return {"dataset": dataset, "encoder": encoder, "head": head}


def test_a_dataset_has_its_runs_the_means_by_head_and_the_charts(make_record):
    records = [make_record(seed, head=head, labels=labels(head=head)) for head in ("mos", "softmax") for seed in (1, 2)]
    ((name, (runs, heads, charts)),) = by_dataset(records).items()
    assert (name, runs.title, heads.title, charts.title) == (
        "hmm",
        "runs by test_ppl",
        "means by head",
        "curves, and what they cost",
    )
    assert runs.state["searchFilter"] == "params.dataset = 'hmm'"
    assert (runs.state["orderByKey"], runs.state["orderByAsc"]) == ("metrics.`test_ppl`", True)
    assert runs.state["selectedColumns"] == [
        "params.`head`",
        "params.`seed`",
        "metrics.`test_ppl`",
        "metrics.`valid_ppl`",
        "metrics.`test_ppl_above_floor`",
        "metrics.`model/parameters`",
        "params.`encoder`",
        "params.`scope`",
        "params.`precision`",
        "params.`task`",
        "params.`cell`",
    ]
    assert "groupBy" not in runs.state
    assert heads.state["groupBy"] == {
        "aggregateFunction": "average",
        "groupByKeys": [{"mode": "param", "groupByData": "head"}],
    }
    assert heads.state["groupsExpanded"] == {"param.head.mos": False, "param.head.softmax": False}
    cards = charts.state["compareRunCharts"]
    assert [card["type"] for card in cards] == ["LINE", "BAR", "SCATTER"]
    assert cards[0]["metricKey"] == "curve/valid_ppl"
    assert (cards[2]["xaxis"]["key"], cards[2]["yaxis"]["key"]) == ("model/parameters", "test_ppl")
    shown, *folded = charts.state["compareRunSections"]
    assert (shown["name"], shown["display"]) == ("true floor: test 6.50", True)
    assert {section["name"] for section in folded} == {"Model metrics", "curve", "cost", "data", "model", "train-stage"}
    assert not any(section["display"] for section in folded)
    assert {card["metricSectionId"] for card in cards} == {shown["uuid"]}


def test_costs_that_were_measured_become_columns_and_charts(make_record):
    costs = {"seconds": {"total": 6.0}, "seconds_per_epoch": 2.0, "gpu_peak_mib": 800.0}
    runs, _, charts = by_dataset([make_record(1, costs=costs)])["hmm"]
    assert {"metrics.`cost/seconds_per_epoch`", "metrics.`cost/gpu_peak_mib`"} <= set(runs.state["selectedColumns"])
    assert "metrics.`cost/cpu_peak_mib`" not in runs.state["selectedColumns"]
    axes = [card["xaxis"]["key"] for card in charts.state["compareRunCharts"] if card["type"] == "SCATTER"]
    assert axes == ["cost/seconds_per_epoch", "cost/gpu_peak_mib", "model/parameters"]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"labels": labels(encoder="awd-lstm")}, "encoder"),
        ({"scope": "short"}, "scope"),
        ({"task": {"name": "other", "version": 1}}, "task"),
        ({"task": {"name": "demo", "version": 2}}, "version"),
    ],
)
def test_runs_that_differ_in_more_than_the_seed_are_not_averaged(make_record, changes, key):
    _, heads, _ = by_dataset([make_record(1), make_record(2, **changes)])["hmm"]
    assert [by["groupByData"] for by in heads.state["groupBy"]["groupByKeys"]] == ["head", key]
    assert len(heads.state["groupsExpanded"]) == 2


def test_recipes_that_differ_under_one_name_are_told_apart_by_their_cell(make_record):
    plain, other = make_record(1), make_record(2)
    other = other.model_copy(update={"spec": {**other.spec, "recipe": {**other.spec["recipe"], "clip": 0.25}}})
    _, heads, _ = by_dataset([plain, make_record(3), other])["hmm"]
    cells = {cell_digest(plain.spec), cell_digest(other.spec)}
    assert cell_digest(make_record(3).spec) in cells
    assert heads.state["groupsExpanded"] == {f"param.head.mos,param.cell.{cell}": False for cell in sorted(cells)}


def test_what_task_and_head_tell_is_not_said_again(make_record):
    precision = {"recurrence": "float16", "head": "float16"}
    plain, other = make_record(1), make_record(2, task={"name": "half", "version": 2}, labels=labels(encoder="awd"))
    recipe = {**other.spec["recipe"], "precision": precision}
    other = other.model_copy(update={"spec": {**other.spec, "recipe": recipe}})
    _, heads, _ = by_dataset([plain, other])["hmm"]
    assert set(heads.state["groupsExpanded"]) == {"param.head.mos,param.task.demo", "param.head.mos,param.task.half"}
    width = heads.state["columnWidths"]["attributes.`Run Name`"]
    (same,) = {view.state["columnWidths"]["attributes.`Run Name`"] for view in by_dataset([plain])["hmm"]}
    assert 560 > width > same


def test_short_runs_say_so_even_when_there_are_no_others(make_record):
    _, heads, _ = by_dataset([make_record(1, scope="short")])["hmm"]
    assert heads.state["groupsExpanded"] == {"param.head.mos,param.scope.short": False}


def test_only_finished_runs_are_averaged_or_called_best(make_record):
    records = [make_record(1), make_record(2, status="diverged"), make_record(3, labels=labels("ptb"), status="failed")]
    found = by_dataset(records)
    assert list(found) == ["hmm"]
    assert found["hmm"][1].state["searchFilter"] == "params.dataset = 'hmm' and attributes.status = 'FINISHED'"
    assert best_run(records, "hmm") == records[0]
    assert best_run(records, "ptb") is None


def test_the_best_run_has_the_lowest_metric_and_a_full_run_goes_first(make_record):
    def run(seed, ppl, **changes):
        return make_record(seed, metrics={"train": {"test": {"ppl": ppl}}}, **changes)

    short, worse, better = run(1, 5.0, scope="short"), run(2, 9.0), run(3, 8.0)
    assert best_run([short, worse, better], "hmm") == better
    assert best_run([short], "hmm") == short


def test_a_dataset_without_perplexity_is_ranked_by_what_it_has(make_record):
    metrics = {"train": {"test": {"kl": 0.25, "mode_match": 80.0}}}
    curves = [{"epoch": epoch, "valid_kl": 0.5 / epoch} for epoch in (1.0, 2.0)]
    runs, _, charts = by_dataset([make_record(1, metrics=metrics, curves=curves, facts={})])["hmm"]
    assert runs.state["orderByKey"] == "metrics.`test_kl`"
    assert "metrics.`train-stage/test_mode_match`" in runs.state["selectedColumns"]
    assert charts.state["compareRunCharts"][0]["metricKey"] == "curve/valid_kl"
    assert charts.state["compareRunSections"][0]["name"] == "means over seeds"


def test_one_point_is_no_curve(make_record):
    _, _, charts = by_dataset([make_record(1, epochs=1)])["hmm"]
    assert [card["type"] for card in charts.state["compareRunCharts"]] == ["BAR", "SCATTER"]


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (["valid_ppl", "test_ppl", "train-stage/test_ppl"], "test_ppl"),
        (["valid_ppl", "test_kl"], "valid_ppl"),
        (["all_kl", "cost/train_seconds"], "all_kl"),
        (["rank-stage/test_ppl", "cost/train_seconds"], None),
    ],
)
def test_the_primary_metric_prefers_perplexity_and_the_test_split(metrics, expected):
    assert primary_metric(metrics) == expected


def test_links_ask_for_the_stored_state_or_else_filter_and_sort(make_record):
    runs, _, charts = by_dataset([make_record(1, labels=labels("o'brien & co"))])["o'brien & co"]
    assert runs.address(PAGE) == f"{PAGE}&viewStateShareKey={runs.key}"
    assert charts.address(PAGE) == f"{PAGE}&viewStateShareKey={charts.key}&compareRunsMode=CHART"
    assert query(runs.address(PAGE, stored=False)) == {
        "workflowType": ["machine_learning"],
        "orderByKey": ["metrics.`test_ppl`"],
        "orderByAsc": ["true"],
        "searchFilter": ['params.dataset = "o\'brien & co"'],
    }
    assert query(overview().address(PAGE, stored=False))["orderByAsc"] == ["false"]


def test_more_runs_than_the_ui_loads_are_averaged_task_by_task_or_the_link_says_so(make_record):
    def run(seed, name):
        return make_record(seed, task={"name": name, "version": 1})

    few = [run(seed, name) for seed in range(50) for name in ("one", "two")]
    assert [view.title for view in by_dataset(few)["hmm"]] == [
        "runs by test_ppl",
        "means by head",
        "curves, and what they cost",
    ]
    runs, one, one_charts, two, two_charts = by_dataset([*few, *(run(seed, "two") for seed in range(50, 102))])["hmm"]
    assert runs.state["searchFilter"] == "params.dataset = 'hmm'"
    assert (one.title, one.key, one_charts.key) == ("means by head, one", "hmm-one-heads", "hmm-one-charts")
    assert one.state["searchFilter"] == (
        "params.dataset = 'hmm' and attributes.status = 'FINISHED' and params.task = 'one'"
    )
    assert one_charts.state["runListHidden"] is True
    assert two.title == "means by head, two (press Load more: 100 of 102 runs)"
    assert two_charts.title == "curves, and what they cost, two (press Load more: 100 of 102 runs)"
    assert two_charts.state["runListHidden"] is False, "the button is below the list"
    (_, alone, _) = by_dataset([run(seed, "two") for seed in range(102)])["hmm"]
    assert (alone.title, alone.key) == ("means by head (press Load more: 100 of 102 runs)", "hmm-heads")


def test_the_best_of_very_many_groups_are_folded_and_the_state_still_fits(make_record):
    records = [
        make_record(seed, head=f"head-{seed}", metrics={"train": {"test": {"ppl": 900.0 - seed}}})
        for seed in range(800)
    ]
    _, heads, charts = by_dataset(records)["hmm"]
    folded = list(heads.state["groupsExpanded"])
    assert 300 < len(folded) < 800
    assert folded[:2] == ["param.head.head-799", "param.head.head-798"]
    assert max(len(json.dumps(view.state)) for view in (heads, charts)) < 20000


def test_names_that_look_alike_as_keys_keep_apart(make_record):
    found = by_dataset([make_record(1, labels=labels(name)) for name in ("a b", "a/b", "a-b")])
    assert found["a-b"][0].key == "a-b-runs"
    assert len({views[0].key for views in found.values()}) == 3


def test_a_large_study_fits_into_a_tag_of_the_registry(make_record):
    costs = {"seconds": {"total": 6.0}, "seconds_per_epoch": 2.0, "gpu_peak_mib": 800.0, "cpu_peak_mib": 800.0}
    records = [
        make_record(seed, labels=labels(encoder=encoder, head=f"head-{number}"), scope=scope, costs=costs)
        for seed, encoder in enumerate(("lstm", "awd-lstm", "transformer"))
        for number in range(20)
        for scope in ("full", "short")
    ]
    assert max(len(json.dumps(view.state)) for view in by_dataset(records)["hmm"]) < 20000
