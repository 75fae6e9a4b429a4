"""Several runs at once: what is refused, what their records say, and how they stop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_tasks import TINY, Desk, outcome

from suite.attempt import RunOptions
from suite.data.base import DataAccess
from suite.errors import InputError, Interrupted
from suite.measurement.meters import Meters
from suite.models.turns import TURNS
from suite.progress import Progress
from suite.records.record import Costs, Record
from suite.records.store import Store
from suite.runner import Runner, Summary
from suite.spec.plan import expand
from suite.spec.run_spec import RunSpec
from suite.spec.task import load_task


def cells(folder: Path, text: str = TINY) -> list[RunSpec]:
    path = folder / "tiny.yaml"
    path.write_text(text)
    return expand(load_task(path))


class Bench:
    """A results folder, and a runner that writes into it from the CPU."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root / "results")
        self.store.root.mkdir(parents=True)
        self.log = root / "log"
        self.stops_after: int | None = None
        self._asked = 0

    def run(self, specs: list[RunSpec], at_once: int | None) -> Summary:
        """Packed, or one after the other where ``at_once`` is None."""
        with self.log.open("a") as log:
            options = RunOptions(
                store=self.store,
                device=torch.device("cpu"),
                access=DataAccess(),
                progress=Progress(log),
                stop=self._stop,
                packed=at_once is not None,
            )
            return Runner(options).run_packed(specs, at_once) if at_once else Runner(options).run_all(specs)

    def _stop(self) -> str | None:
        self._asked += 1
        return "the test says so" if self.stops_after is not None and self._asked > self.stops_after else None

    def records(self) -> dict[str, Record]:
        return {f"{r.labels.head} {r.seed}": r for r in self.store.load()}


def test_the_command_packs_on_a_gpu_only(desk: Desk) -> None:
    code, out, err = desk.run("tiny", "--pack", "2")
    assert (code, out) == (2, "")
    assert err == "error: --pack 2: runs are packed on a GPU; on a CPU they would only slow each other\n"
    assert not desk.results.exists()


def test_packed_records_carry_no_cost_figures(tmp_path: Path) -> None:
    specs = cells(tmp_path)
    bench = Bench(tmp_path / "packed")
    summary = bench.run(specs, 3)
    assert [spec.run_key for spec, _ in summary.outcomes] == [spec.run_key for spec in specs]
    assert summary.count("finished") == len(specs) == 4
    for record in bench.records().values():
        assert record.costs is not None
        assert record.costs == Costs(seconds=record.costs.seconds, packed=True, replayed=False)
        assert record.metrics["train"]["test"]["ppl"] > 1.0
    lines = bench.log.read_text().splitlines()
    assert sum(line.startswith("[2/4]  epoch 2/2  train ppl ") for line in lines) == 1
    assert bench.run(specs, 3).count("skipped") == 4


def test_a_pool_of_one_computes_what_run_all_does(tmp_path: Path) -> None:
    # More at once share torch's one generator on a CPU, and nothing of the kind is promised there.
    specs = cells(tmp_path)
    pool, single = Bench(tmp_path / "pool"), Bench(tmp_path / "single")
    pool.run(specs, 1)
    single.run(specs, None)
    found, expected = pool.records(), single.records()
    assert {k: outcome(v) for k, v in found.items()} == {k: outcome(v) for k, v in expected.items()}
    costs = expected["softmax 1"].costs
    assert costs is not None
    assert costs.tokens_per_second is not None, "a run alone says what it costs"


def test_cells_that_differ_in_a_setting_of_the_process_are_refused(tmp_path: Path) -> None:
    specs = [
        *cells(tmp_path),
        *cells(tmp_path, TINY.replace("  clip: 0.25\n", "  clip: 0.25\n  deterministic: true\n")),
    ]
    bench = Bench(tmp_path / "packed")
    with pytest.raises(InputError) as caught:
        bench.run(specs, 2)
    assert str(caught.value) == (
        "--pack: the cells differ in recipe.deterministic, which one process cannot have both ways; run them in "
        "separate commands"
    )
    assert bench.records() == {}


def test_a_stop_reaches_every_run_and_none_begins_after_it(tmp_path: Path) -> None:
    specs = cells(tmp_path, TINY.replace("epochs: 2", "epochs: 2000"))
    bench = Bench(tmp_path / "packed")
    bench.stops_after = 40
    with pytest.raises(Interrupted, match=r"^the test says so$"):
        bench.run(specs, 2)
    found = list(bench.records().values())
    assert 1 <= len(found) <= 2, "what waits for a place does not begin any more"
    assert {(r.status, r.message) for r in found} == {("interrupted", "the test says so")}
    for record in found:
        assert (bench.store.run_dir(record.run_key) / "checkpoint.pt").exists()


def test_no_attempt_asks_anything_of_the_gpu_while_another_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def noted(real: Callable[[Meters], object]) -> Callable[[Meters], object]:
        def call(meters: Meters) -> object:
            seen.append(TURNS.is_member())
            return real(meters)

        return call

    for name in ("start", "stop"):
        monkeypatch.setattr(Meters, name, noted(getattr(Meters, name)))
    Bench(tmp_path / "packed").run(cells(tmp_path), 2)
    assert seen == [True] * 8, "the meters synchronise, which ends a recording"


def test_what_goes_wrong_before_the_first_step_is_that_cells_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []

    def start(meters: Meters) -> None:
        begun.append(meters)
        if len(begun) == 1:
            raise RuntimeError("no meter\nat all")

    monkeypatch.setattr(Meters, "start", start)
    bench = Bench(tmp_path / "packed")
    assert bench.run(cells(tmp_path), 2).count("finished") == 3
    (failed,) = [r for r in bench.records().values() if r.status != "finished"]
    assert (failed.status, failed.message) == ("failed", "RuntimeError: no meter")
