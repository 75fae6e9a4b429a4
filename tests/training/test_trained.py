"""A cell that goes on from the train stage of another run: the same numbers as training itself, and what is refused."""

from __future__ import annotations

import json

import pytest
from test_finetune import CHAIN, TASK, outcome
from tiny_tasks import Desk

from suite.records.record import Record
from suite.records.store import Store


@pytest.fixture
def trained(desk: Desk) -> Desk:
    """A desk with one run of the train stage alone, exported to w, and tasks that go on from it."""
    for name, stages in (("first", "train, rank"), ("chain", CHAIN)):
        desk.write(f"tasks/{name}.yaml", TASK.replace("STAGES", stages))
    assert desk.run("first")[0] == 0
    assert desk.suite("export", *keys(desk, "first"), "--weights", "w")[0] == 0
    return desk


def record(desk: Desk, task: str) -> Record:
    (found,) = (record for record in Store(desk.results).load() if record.task.name == task)
    return found


def keys(desk: Desk, task: str) -> list[str]:
    return [record(desk, task).run_key]


def test_it_gives_the_numbers_of_a_run_that_trained_itself(trained: Desk) -> None:
    code, out, err = trained.run("chain", "--train-from", "w")
    assert (code, err) == (0, "")
    assert "\n1 finished\n" in out
    went_on = record(trained, "chain")
    first = record(trained, "first")
    assert went_on.provenance.train_from == first.run_key
    assert json.loads(went_on.to_json())["provenance"]["train_from"] == first.run_key
    assert "train_from" not in json.loads(first.to_json())["provenance"]
    assert went_on.costs is not None
    assert went_on.costs.seconds_per_epoch is None, "an epoch that it did not train was not timed"
    assert trained.run("chain", "--rerun")[0] == 0
    alone = record(trained, "chain")
    assert alone.provenance.train_from is None
    status, message, metrics, curves = outcome(alone)
    assert outcome(went_on) == (status, message, {k: v for k, v in metrics.items() if k != "train"}, curves)
    assert "train" in metrics


def test_what_was_stopped_goes_on_and_still_says_where_it_began(trained: Desk) -> None:
    assert trained.run("chain", "--train-from", "w", "--max-minutes", "0.00001")[0] == 130
    code, out, _ = trained.run("chain")
    assert (code, "resumed (attempt 2)" in out) == (0, True)
    assert record(trained, "chain").provenance.train_from == record(trained, "first").run_key


def test_whatever_does_not_fit_is_refused(trained: Desk) -> None:
    short = record(trained, "first").run_key[:12]

    def refused(*arguments: str, folder: str = "w") -> str:
        code, out, err = trained.run(*arguments, "--train-from", folder)
        assert (code, out) == (2, "")
        return err.removeprefix("error: ").strip()

    trained.write("tasks/other.yaml", TASK.replace("STAGES", CHAIN).replace("lr: 5", "lr: 6"))
    assert refused("other") == (
        f"w: --train-from: run {short} trained otherwise than other does: recipe.optimizer.lr is 5.0 there and 6.0 here"
    )
    trained.write("tasks/seeds.yaml", TASK.replace("STAGES", CHAIN).replace("[3]", "[3, 4]"))
    assert refused("seeds") == "--train-from takes one cell, and these are 2; use --only and --seed"
    assert "seed is 3 there and 4 here" in refused("seeds", "--seed", "4")
    assert refused("chain", folder="tasks") == (
        "tasks/index.json: cannot be read: No such file or directory; is this an export?"
    )
    assert trained.suite("export", short, "--weights", "half", "--dtype", "float16")[0] == 0
    assert refused("chain", folder="half") == (
        "half: --train-from: the weights were exported in float16; export them in float32"
    )
    trained.write("tasks/tuned.yaml", TASK.replace("STAGES", "train, {name: finetune, epochs: 1}"))
    assert trained.run("tuned", "--train-from", "w")[0] == 0
    assert trained.suite("export", *keys(trained, "tuned"), "--weights", "w2")[0] == 0
    tuned = record(trained, "tuned").run_key[:12]
    assert refused("chain", folder="w2") == f"w2: --train-from: run {tuned} did not finish its train stage"
    assert trained.run("tuned", "--rerun")[0] == 0
    assert refused("chain", folder="w2") == (
        f"w2: --train-from: run {tuned} went on to finetune, and the weights are those that it left"
    )
    Store(trained.results).path_of(record(trained, "first")).unlink()
    trained.write("tasks/again.yaml", TASK.replace("STAGES", CHAIN))
    root = trained.results
    assert refused("again") == (
        f"w: --train-from: run {short}, which left these weights, has no record in {root}; import it first"
    )
