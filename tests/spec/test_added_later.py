"""An option that came later leaves the specs that do not use it as they were, and so their run keys."""

from __future__ import annotations

from pathlib import Path

from suite.records.reading import read_record
from suite.spec import builtin
from suite.spec.components import NO_PLUGINS, create, describe, resolve
from suite.spec.plan import expand
from suite.spec.task import load_task
from suite.spec.yaml_source import Node

ROOT = Path(__file__).parents[2]


def resolved(plain: object) -> dict[str, object]:
    spec, problems = resolve("stage", Node.of(plain), NO_PLUGINS)
    assert spec is not None
    assert problems == []
    return spec.as_dict()


def test_at_its_default_it_is_left_out_and_otherwise_written() -> None:
    assert resolved("rank") == {"name": "rank", "contexts": None}
    assert resolved({"name": "rank", "splits": ["test"], "eps_trap": False}) == resolved("rank")
    assert resolved({"name": "rank", "splits": ["valid"]}) == {"name": "rank", "contexts": None, "splits": ["valid"]}
    built = create("stage", {"name": "rank", "eps_trap": True})
    assert (built._eps_trap, built._splits) == (True, ["test"])


def test_every_such_option_exists() -> None:
    for (kind, name), options in builtin.ADDED_LATER.items():
        assert options <= {option.name for option in describe(kind, name).options}


def test_the_committed_records_of_the_demo_are_still_its_own() -> None:
    keys = {spec.run_key for spec in expand(load_task(ROOT / "tasks/demo.yaml"))}
    records = [read_record(path) for path in (ROOT / "results/records").glob("demo--*.json")]
    current = [record for record in records if record.spec["version"] == load_task(ROOT / "tasks/demo.yaml").version]
    assert current
    assert {record.run_key for record in current} <= keys
