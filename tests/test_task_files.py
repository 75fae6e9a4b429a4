"""The task files of the repository: all load, no committed record lost its key, every published row has a cell."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from suite.records.published import Published, load_published
from suite.spec.plan import expand, load_tasks
from suite.spec.run_spec import RunSpec
from suite.verbs.validate import build_dry

ROOT = Path(__file__).parent.parent

# Rows that no task can fill: (paper, what of the row) -> why. A label, protocol, stage or dataset, whichever says it.
NOT_BUILT = {
    ("yang2018", "switchboard"): "data not available, and no sequence-to-sequence model",
    ("yang2018", "speed-best-1-gpu"): "the best settings of each model are not printed",
    ("yang2018", "speed-best-3-gpu"): "three GPUs at once",
    ("merity2018", "awd-qrnn"): "no QRNN encoder",
    ("krause2017", "awd-qrnn"): "no QRNN encoder",
    ("merity2018", "without-averaging"): "an ablation of the encoder, not of a head",
    ("merity2018", "speed-batch-20"): "the recipe on WikiText-2 has batch 80",
    ("parthiban2021", "noisy-matrix"): "a made matrix, not a model's; rank-trap has heads of known rank",
}
PAPERS = ("yang2018", "kanai2018", "ganea2019", "parthiban2021", "merity2018", "krause2017")

Row = tuple[str, str, str, str, str]


@pytest.fixture(scope="module")
def specs() -> list[RunSpec]:
    return [spec for task in load_tasks([str(ROOT / "tasks")]) for spec in expand(task)]


def rows_of(spec: RunSpec) -> list[Row]:
    labels = spec.labels
    return [(labels.dataset, spec.protocol, stage.name, labels.encoder, labels.head) for stage in spec.stages]


def tracked_rows_of(spec: RunSpec) -> list[Row]:
    """What stands beside the averages that a run keeps of another start (results/HEADS.md)."""
    tracked = spec.recipe.get("track_averages", ())
    starts = ("nt-asgd" if start == "non-monotone" else f"et-asgd-{start}" for start in tracked)
    return [(row[0], start, *row[2:]) for start in starts for row in rows_of(spec)]


def row_of(number: Published) -> Row:
    return number.dataset, number.protocol, number.stage, number.encoder, number.head


def wanted() -> list[Published]:
    return [number for number in load_published(ROOT / "baselines") if number.paper.key in PAPERS]


def excused(number: Published) -> bool:
    named = (*row_of(number), "unstated" if "unstated" in row_of(number) else "")
    return any((number.paper.key, part) in NOT_BUILT for part in named) or "unstated" in named


def test_every_key_is_the_key_of_one_cell(specs: list[RunSpec]) -> None:
    assert len({spec.run_key for spec in specs}) == len(specs)


def test_committed_records_of_whole_runs_keep_their_keys(specs: list[RunSpec]) -> None:
    keys = {spec.run_key for spec in specs}
    records = [json.loads(path.read_text()) for path in sorted((ROOT / "results/records").glob("*.json"))]
    whole = [record for record in records if record["scope"] != "short"]
    assert whole
    assert [record["run_key"][:12] for record in whole if record["run_key"] not in keys] == []


def test_every_published_row_has_a_cell_or_a_reason(specs: list[RunSpec]) -> None:
    have = {(spec.task, row) for spec in specs if spec.scope == "full" for row in rows_of(spec)}
    missing = [
        (number.citation, row_of(number))
        for number in wanted()
        if not excused(number) and not any(answers(number, task, row) for task, row in have)
    ]
    assert missing == []


def answers(number: Published, task: str, row: Row) -> bool:
    return row == row_of(number) and number.answered_by(task, number.method)


def test_every_task_that_a_table_names_answers_some_number_of_it(specs: list[RunSpec]) -> None:
    have = {(spec.task, row) for spec in specs for row in rows_of(spec) + tracked_rows_of(spec)}
    named: dict[tuple[str, str, str], bool] = {}
    for number in load_published(ROOT / "baselines"):
        for task in number.tasks:
            answered = any(fnmatchcase(name, task) and row == row_of(number) for name, row in have)
            key = number.citation, number.dataset, task
            named[key] = named.get(key, False) or answered
    assert named
    assert [key for key, answered in named.items() if not answered] == []


# What a task may change of a recipe and still answer its number; where it does, it declares so.
ASIDE = {"budget", "precision", "evaluation", "track_averages"}
MEASURES = {"rank", "divergence", "modes", "cache", "dynamic-evaluation"}


def recipe_until(spec: RunSpec, stage: str) -> str:
    """What decides a number of a stage: components, recipe, the stages that train before it, and the stage itself."""
    names = [one.name for one in spec.stages]
    before = [one for one in spec.stages[: names.index(stage)] if one.name not in MEASURES]
    stages = [{**one.as_dict(), "epochs": None} for one in (*before, spec.stages[names.index(stage)])]
    recipe = {key: value for key, value in spec.recipe.items() if key not in ASIDE}
    if not any(name in spec.labels.head for name in ("plif", "network")):
        recipe.pop("pointwise_lr", None)
    return json.dumps([spec.encoder.as_dict(), spec.head.as_dict(), recipe, stages], sort_keys=True)


def test_what_answers_a_number_has_one_recipe(specs: list[RunSpec]) -> None:
    full = [spec for spec in specs if spec.scope == "full"]
    mixed = []
    for number in wanted():
        found: dict[str, set[str]] = {}
        for spec in full:
            if any(answers(number, spec.task, row) for row in rows_of(spec)):
                found.setdefault(recipe_until(spec, number.stage), set()).add(spec.task)
        if len(found) > 1:
            mixed.append((number.citation, row_of(number), sorted(map(sorted, found.values()))))
    assert mixed == []


def test_every_reason_excuses_something() -> None:
    used = {(number.paper.key, part) for number in wanted() for part in row_of(number)}
    assert [reason for reason in NOT_BUILT if reason not in used] == []


def test_models_have_the_published_number_of_parameters(specs: list[RunSpec]) -> None:
    published = {row_of(number): number.parameters for number in wanted() if number.parameters}
    chosen: dict[Row, RunSpec] = {}
    for spec in specs:
        for row in rows_of(spec):
            if row in published and spec.scope == "full":
                chosen.setdefault(row, spec)
    assert len(chosen) > 30
    wrong = []
    for row, spec in chosen.items():
        (size,) = build_dry([spec]).values()
        # The papers round to a million: 21.5 is printed as 22.
        if abs(size / float(published[row] or 0) - 1) > 0.03:
            wrong.append((row, size, published[row]))
    assert wrong == []


def test_the_heads_of_equal_compute_take_as_many_multiplications_a_token(specs: list[RunSpec]) -> None:
    words, taken = 10_000, {}
    for spec in specs:
        if spec.task == "transformer-ptb-compute" and spec.seed == 1:
            width, layers = spec.encoder.options["width"], spec.encoder.options["layers"]
            (size,) = build_dry([spec]).values()
            scored = spec.head.options["experts"] if spec.head.name == "mos" else 1
            attention = 2 * layers * spec.recipe["bptt"] * width
            # Every weight is used once a token, but for the words', which each expert is scored with.
            taken[spec.labels.method] = size + (scored - 1) * words * width + attention
    assert {method.split("/")[1] for method in taken} == {
        "softmax",
        "sigsoftmax",
        "gss",
        "plif",
        "moc-10",
        "mos-10",
        "moss-10",
    }
    assert max(taken.values()) < 1.015 * min(taken.values())


def test_the_makefile_names_tasks_that_are_there(specs: list[RunSpec]) -> None:
    text = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    lists = {
        name: names.split() for name, names in re.findall(r"^(MOS|SIGSOFTMAX|PLIF|CONTROLLED) = (.*)$", text, re.M)
    }
    assert set(lists) == {"MOS", "SIGSOFTMAX", "PLIF", "CONTROLLED"}
    listed = {name for names in lists.values() for name in names}
    assert sorted(listed - {spec.task for spec in specs}) == []
    # What reproduces a paper is in its list; these are earlier or further files.
    further = {"mos-ptb", "mos-wikitext-2", "mos-ptb-averages", "precision-ptb", "awd-lstm-ptb", "awd-lstm-wikitext-2"}
    further |= {"cost-ptb", "cost-wikitext-2", "mos-ptb-356", "mos-ptb-356-finetuned"}
    further |= {"parthiban2021-bfloat16-ptb"}
    papers = {spec.task for spec in specs if spec.paper in PAPERS and spec.scope == "full"}
    assert sorted(papers - listed - further) == []
