"""Many cells: what is done is skipped, what fails stays alone, a user's own head runs like the suite's."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from tiny_tasks import CUBIC, DATASET, TINY, Desk, outcome

from suite.records.record import Record
from suite.records.store import Store
from suite.spec.plan import expand
from suite.spec.run_spec import RunSpec
from suite.spec.task import load_task

BREAKS = '''\
import torch
from suite import register
from suite.models.heads.pointwise import Pointwise


@register("pointwise", "breaks")
class Breaks(Pointwise):
    """Works when it is built and fails when it is used."""

    def forward(self, z):
        """Elementwise."""
        raise ValueError("this head\\nis not finished")
'''


def plugged(head: str, plugin: str) -> str:
    """The tiny task with one more head, from a plugin."""
    return f"plugins: [../{plugin}.py]\n{TINY}".replace("heads:\n", f"heads:\n  - {head}\n")


def cells(text_file: str = "tasks/tiny.yaml") -> dict[str, RunSpec]:
    return {f"{spec.labels.head} {spec.seed}": spec for spec in expand(load_task(Path(text_file)))}


def records(desk: Desk) -> dict[str, Record]:
    return {f"{record.labels.head} {record.seed}": record for record in Store(desk.results).load()}


def test_a_cell_that_fails_stays_alone(desk: Desk) -> None:
    desk.write("breaks.py", BREAKS)
    desk.write("tasks/tiny.yaml", plugged("{name: softmax, dimension: 3, pointwise: breaks}", "breaks"))
    code, out, err = desk.run("tiny", "--seed", "1")
    assert (code, err) == (1, "")
    assert "  failed: ValueError: this head\n" in out
    assert "\n2 finished, 1 failed\n" in out
    found = records(desk)
    assert {name: record.status for name, record in found.items()} == {
        "breaks 1": "failed",
        "softmax 1": "finished",
        "mos-2 1": "finished",
    }
    failed = found["breaks 1"]
    assert failed.message == "ValueError: this head"
    assert failed.metrics == {}
    log = (Store(desk.results).run_dir(failed.run_key) / "error.log").read_text()
    assert log.startswith("Traceback (most recent call last):\n")
    assert log.endswith("ValueError: this head\nis not finished\n")
    assert "breaks" not in json.dumps([r.run_key for r in found.values() if r.status == "finished"])


def test_a_failed_cell_is_tried_again_and_its_record_replaced(desk: Desk) -> None:
    # Fails on the first call of the command alone.
    plugin = (
        BREAKS.replace("raise ValueError", "if __import__('os').path.exists('bad'): raise ValueError")
        + "        return z\n"
    )
    desk.write("breaks.py", plugin)
    desk.write("bad", "")
    desk.write("tasks/tiny.yaml", plugged("{name: softmax, dimension: 3, pointwise: breaks}", "breaks"))
    assert desk.run("tiny", "--only", "head=breaks", "--seed", "1")[0] == 1
    (desk.root / "bad").unlink()
    code, out, _ = desk.run("tiny", "--only", "head=breaks", "--seed", "1")
    assert (code, "\n1 finished\n" in out) == (0, True)
    assert records(desk)["breaks 1"].status == "finished"


def test_a_users_head_of_a_dozen_lines_runs_like_the_suites_own(desk: Desk) -> None:
    desk.write("cubic.py", CUBIC)
    head = "{name: mos, experts: 2, dimension: 3, latent_dropout: 0.0, pointwise: {name: cubic, start: 0.05}}"
    desk.write("tasks/tiny.yaml", plugged(head, "cubic"))
    code, out, err = desk.run("tiny", "--only", "head=mos-2+cubic")
    assert (code, err) == (0, "")
    found = records(desk)
    assert found.keys() == {"mos-2+cubic 1", "mos-2+cubic 2"}
    record = found["mos-2+cubic 1"]
    assert record.status == "finished"
    assert record.spec["head"]["pointwise"] == {"name": "cubic", "start": 0.05}
    assert record.spec["plugins"].keys() == {"../cubic.py"}, "the record names the code it came from by its digest"
    plain = cells()["mos-2 1"]
    assert desk.run("tiny", "--only", "head=mos-2", "--seed", "1")[0] == 0
    without = Store(desk.results).get(plain.run_key)
    assert without is not None
    assert record.model is not None
    assert without.model is not None
    assert record.model.parameters == without.model.parameters + 1
    assert "lstm/mos-2+cubic" in out
    # Other code under the same name is another experiment.
    desk.write("cubic.py", CUBIC.replace("z**3", "z**5"))
    assert cells()["mos-2+cubic 1"].run_key != record.run_key


def test_the_learning_rate_of_a_users_function_reaches_its_parameters(desk: Desk) -> None:
    desk.write("cubic.py", CUBIC)
    text = plugged("{name: softmax, dimension: 3, pointwise: cubic}", "cubic").replace(
        "  clip: 0.25\n", "  clip: 0.25\n  pointwise_lr: 0.5\n"
    )
    desk.write("tasks/tiny.yaml", text)
    assert desk.run("tiny", "--only", "head=cubic", "--seed", "1")[0] == 0
    folder = Store(desk.results).run_dir(cells()["cubic 1"].run_key)
    weights = torch.load(folder / "weights.pt", weights_only=True)
    assert weights["head.pointwise.a"].item() != pytest.approx(0.01)


DATASETS = '''\
from suite import register
from suite.errors import DataError


class Absent:
    contexts = None
    vocabulary_size = 20


@register("dataset", "refused")
class Refused(Absent):
    """Says what is missing."""

    def load(self, access):
        raise DataError("no corpus here; bring one")


@register("dataset", "crashes")
class Crashes(Absent):
    """Has a fault of its own."""

    def load(self, access):
        raise KeyError("train")
'''


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("refused", "error: no corpus here; bring one\n"),
        (
            "crashes",
            "error: dataset crashes cannot be loaded: KeyError: 'train'; results/runs/{key}/error.log says where\n",
        ),
    ],
)
def test_data_that_cannot_be_had_end_the_command(desk: Desk, dataset: str, message: str) -> None:
    desk.write("mine.py", DATASETS)
    desk.write("tasks/tiny.yaml", f"plugins: [../mine.py]\n{TINY}".replace(DATASET, dataset))
    code, _, err = desk.run("tiny")
    key = cells()["softmax 1"].run_key[:16]
    assert (code, err) == (2, message.format(key=key))
    assert Store(desk.results).load() == []


HOLDER = """
import sys
from pathlib import Path
from suite.records.store import Store
with Store(Path("results")).lock(sys.argv[1]) as ours:
    print(ours, flush=True)
    sys.stdin.read()
"""


def test_a_cell_that_another_process_runs_is_left_to_it(desk: Desk) -> None:
    busy = cells()["softmax 1"].run_key
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        assert "running" in desk.suite("plan", "tiny", "--only", "head=softmax", "--seed", "1")[1]
        code, out, err = desk.run("tiny", "--only", "head=softmax", "--seed", "1")
        assert (code, err) == (0, "")
        assert out.startswith("[1/1] tiny hidden-markov lstm/softmax seed 1: another process is running it\n")
        assert "\n1 running elsewhere\n" in out
        code, out, err = desk.run("tiny", "--seed", "1")
        assert (code, err) == (0, "")
        assert "\n1 finished, 1 running elsewhere\n" in out
        other.communicate("")
    assert records(desk).keys() == {"mos-2 1"}
    assert desk.run("tiny", "--seed", "1")[0] == 0
    assert records(desk).keys() == {"softmax 1", "mos-2 1"}


def test_a_rerun_replaces_the_record_only_once_it_has_finished(desk: Desk) -> None:
    one = ("tiny", "--only", "head=softmax", "--seed", "1")
    assert desk.run(*one)[0] == 0
    first = records(desk)["softmax 1"]
    assert desk.run(*one, "--rerun", "--max-minutes", "0.00001")[0] == 130
    assert records(desk)["softmax 1"] == first, "an interrupted rerun leaves the record as it was"
    code, out, _ = desk.run(*one, "--rerun")
    assert code == 0
    assert "resumed (attempt 2)" in out, "the interrupted rerun goes on"
    second = records(desk)["softmax 1"]
    assert second.provenance.attempts == 2
    assert outcome(second) == outcome(first)
    code, out, _ = desk.run(*one, "--rerun")
    assert code == 0
    assert "resumed" not in out
    assert records(desk)["softmax 1"].provenance.attempts == 1
    assert outcome(records(desk)["softmax 1"]) == outcome(first)


def test_a_rerun_that_fails_keeps_the_finished_record(desk: Desk) -> None:
    plugin = (
        BREAKS.replace("raise ValueError", "if __import__('os').path.exists('bad'): raise ValueError")
        + "        return z\n"
    )
    desk.write("breaks.py", plugin)
    desk.write("tasks/tiny.yaml", plugged("{name: softmax, dimension: 3, pointwise: breaks}", "breaks"))
    one = ("tiny", "--only", "head=breaks", "--seed", "1")
    assert desk.run(*one)[0] == 0
    first = records(desk)["breaks 1"]
    desk.write("bad", "")
    assert desk.run(*one, "--rerun")[0] == 1
    assert records(desk)["breaks 1"] == first


def test_a_rerun_of_an_interrupted_run_begins_afresh(desk: Desk) -> None:
    one = ("tiny", "--only", "head=softmax", "--seed", "1")
    assert desk.run(*one, "--max-minutes", "0.00001")[0] == 130
    code, out, _ = desk.run(*one, "--rerun")
    assert (code, "resumed" in out) == (0, False)
    assert records(desk)["softmax 1"].provenance.attempts == 1


def test_a_cell_named_twice_runs_once(desk: Desk) -> None:
    code, out, _ = desk.run("tiny", "tasks/tiny.yaml", "--only", "head=softmax", "--seed", "1")
    assert (code, "[1/1]" in out) == (0, True)


WARNS = '''\
import warnings
from suite import register
from suite.models.heads.pointwise import Pointwise


@register("pointwise", "warns")
class Warns(Pointwise):
    """Warns as another library would."""

    def forward(self, z):
        """Elementwise."""
        warnings.warn({message!r}, UserWarning)
        return z
'''


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (
            "RNN module weights are not part of single contiguous chunk of memory. This means they need to be "
            "compacted at every call, possibly greatly increasing memory usage.",
            "finished",
        ),
        ("RNN module weights are wrong", "failed"),
    ],
)
def test_only_the_advice_that_weight_drop_cannot_follow_is_silenced(desk: Desk, message: str, status: str) -> None:
    desk.write("warns.py", WARNS.format(message=message))
    desk.write("tasks/tiny.yaml", plugged("{name: softmax, dimension: 3, pointwise: warns}", "warns"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        desk.run("tiny", "--only", "head=warns", "--seed", "1")
    assert records(desk)["warns 1"].status == status


def test_what_a_record_says_of_its_making(desk: Desk) -> None:
    assert desk.run(str(desk.root / "tasks/tiny.yaml"), "--only", "head=softmax", "--seed", "1")[0] == 0
    record = records(desk)["softmax 1"]
    assert record.provenance.command == ("suite run tiny.yaml --only head=softmax --seed 1 --device cpu --no-mlflow")
    assert record.provenance.data.keys() == {"train", "valid", "test"}
    assert record.costs is not None
    assert record.costs.seconds.keys() == {"setup", "train", "evaluate", "log", "total"}
    assert record.costs.seconds["total"] == pytest.approx(
        sum(value for phase, value in record.costs.seconds.items() if phase != "total"), abs=0.003
    )
    assert record.costs.seconds_per_epoch is not None
    assert record.costs.tokens_per_second is not None
    assert record.costs.cpu_peak_mib is not None
    assert record.costs.stage_peaks_mib == {"train": pytest.approx(record.costs.cpu_peak_mib, rel=0.2)}
    # True source's perplexity, which no run can beat but by luck.
    assert record.facts["test_floor_ppl"] < record.metrics["train"]["test"]["ppl"]
    private = [str(desk.root), str(Path.home())]
    assert [word for word in private if word in record.to_json()] == []


def test_the_peak_of_training_is_not_that_of_what_follows(desk: Desk) -> None:
    desk.write("tasks/tiny.yaml", f"{TINY}stages: [train, rank]\n")
    assert desk.run("tiny", "--only", "head=softmax", "--seed", "1")[0] == 0
    costs = records(desk)["softmax 1"].costs
    assert costs is not None
    assert costs.cpu_peak_mib is not None
    assert list(costs.stage_peaks_mib) == ["train", "rank"]
    train, rank = costs.stage_peaks_mib.values()
    assert 0 < train <= rank <= costs.cpu_peak_mib


def test_a_bias_of_unigram_starts_at_the_frequencies_of_the_training_words(desk: Desk) -> None:
    text = TINY.replace("{name: softmax, dimension: 3}", "{name: softmax, dimension: 3, bias: unigram}")
    desk.write("tasks/tiny.yaml", text.replace("{name: sgd, lr: 5}", "{name: sgd, lr: 1.0e-9}"))
    desk.run("tiny", "--seed", "1")
    told, untold = (records(desk)[f"{head} 1"].metrics["train"]["valid"]["ppl"] for head in ("softmax", "mos-2"))
    assert told < 0.95 * untold, "nothing is learned at such a rate"
    assert untold == pytest.approx(20, rel=0.02)
    assert records(desk)["softmax 1"].spec["head"]["bias"] == "unigram"
