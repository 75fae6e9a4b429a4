"""Finding task files, expanding, filtering and shortening; and what decides a run key."""

# whole messages, one to a line

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from task_workspace import PLUGIN, TASK, Workspace

from suite.spec.plan import expand, find_tasks, load_tasks, select, shorten
from suite.spec.run_spec import RunSpec, canonical_json

GOLDEN = Path(__file__).parent / "golden_run_keys.json"


@pytest.fixture
def specs(workspace: Workspace) -> list[RunSpec]:
    return expand(workspace.task(workspace.changed(recipe="{budget: {epochs: 8}}")))


def test_expand(workspace: Workspace, specs: list[RunSpec]) -> None:
    assert [spec.name for spec in specs] == [
        "x toy rnn/mix-3+curve seed 1",
        "x toy rnn/mix-3+curve seed 2",
        "x toy rnn/flat seed 1",
        "x toy rnn/flat seed 2",
    ]
    assert {spec.scope for spec in specs} == {"full"}
    assert len({spec.run_key for spec in specs}) == 4
    assert {spec.scope for spec in expand(workspace.task(workspace.changed(smoke="true")))} == {"smoke"}


def test_an_abstract_task_is_not_run(workspace: Workspace, messages: Callable[..., str]) -> None:
    task = workspace.task(workspace.changed(abstract="true"))
    assert (
        messages(expand, task) == "tasks/x.yaml: is abstract: a base for other task files to extend, not a task to run"
    )


def test_a_spec_names_only_the_plugins_it_uses(workspace: Workspace) -> None:
    workspace.write(
        "plugins/other.py", 'from suite import register\n@register("head", "odd")\nclass Odd:\n    """O."""\n'
    )
    text = workspace.changed(
        plugins="[../plugins/other.py, ../plugins/mine.py]", heads="[odd, {name: softmax, pointwise: curve}]"
    )
    odd, curve = expand(workspace.task(text))[::2]
    assert (list(odd.plugins), list(curve.plugins)) == (
        ["../plugins/mine.py", "../plugins/other.py"],
        ["../plugins/mine.py"],
    )
    assert odd.plugin_paths["../plugins/other.py"] == str(workspace.root / "plugins/other.py")
    builtin = workspace.changed(
        dataset="categorical", encoder="table", heads="{name: softmax, pointwise: curve}", stages="[rank]"
    )
    assert list(expand(workspace.task(builtin))[0].plugins) == ["../plugins/mine.py"]
    assert expand(workspace.task(builtin.replace(", pointwise: curve", "")))[0].plugins == {}


class TestRunKey:
    def key(self, workspace: Workspace, **lines: str) -> str:
        return expand(workspace.task(workspace.changed(**lines)))[0].run_key

    @pytest.mark.parametrize(
        "lines",
        [
            {"title": "Another"},
            {"protocol": "other"},
            {"paper": "P"},
            {"description": "D"},
            {"dataset": "{label: other, name: toy, p: 0.5}"},
            {"encoder": "{name: rnn, drop: 0}"},
            {"encoder": "{name: rnn, drop: -0.0}"},
            {"encoder": "{drop: 0.0, name: rnn, hidden: [1150, 1150, 400]}"},
            {"recipe": "{optimizer: {lr: 20, name: sgd}}"},
            {"recipe": "{activation_regularization: -0.0}"},
            {"stages": "[{name: fit, rounds: 1}]"},
            {"seeds": "[1]"},
        ],
    )
    def test_is_blind_to_presentation_and_spelling(self, lines: dict[str, str], workspace: Workspace) -> None:
        assert self.key(workspace, **lines) == self.key(workspace)

    @pytest.mark.parametrize(
        "lines",
        [
            {"version": "2"},
            {"smoke": "true"},
            {"dataset": "{name: toy, p: 0.25}"},
            {"dataset": "{name: toy, unit: 1}"},
            {"recipe": "{clip: 0.25}"},
            {"stages": "[{name: fit, rounds: 2}]"},
            {"seeds": "[0, 1]"},
        ],
    )
    def test_sees_what_decides_the_result(self, lines: dict[str, str], workspace: Workspace) -> None:
        assert self.key(workspace, **lines) != self.key(workspace)

    def test_sees_the_source_of_a_plugin(self, workspace: Workspace) -> None:
        before = self.key(workspace)
        workspace.write("plugins/mine.py", PLUGIN + "# a change\n")
        assert self.key(workspace) != before

    def test_is_golden(self, workspace: Workspace) -> None:
        """Rewrite with UPDATE_GOLDEN=1 pytest tests/spec/test_plan.py: every record of the old keys then retires."""
        text = workspace.changed(
            dataset="categorical",
            encoder="table",
            heads="[softmax, {name: mos, experts: 3}]",
            stages="[rank]",
            plugins="",
        )
        found = {
            spec.name: {"run_key": spec.run_key, "identity": spec.identity} for spec in expand(workspace.task(text))
        }
        if os.environ.get("UPDATE_GOLDEN"):
            GOLDEN.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")
        assert json.loads(GOLDEN.read_text()) == found


@given(
    st.dictionaries(
        st.text(), st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.none(), max_size=6
    ),
    st.randoms(),
)
def test_canonical_json_forgets_the_order_of_keys(mapping: dict[str, object], random: object) -> None:
    keys = list(mapping)
    random.shuffle(keys)  # type: ignore[attr-defined]
    assert canonical_json({key: mapping[key] for key in keys}) == canonical_json(mapping)


class TestSelect:
    def kept(self, specs: list[RunSpec], *only: str, seeds: tuple[int, ...] = ()) -> list[str]:
        return [f"{spec.labels.head} {spec.seed}" for spec in select(specs, only, seeds)]

    def test_by_label_name_and_glob(self, specs: list[RunSpec]) -> None:
        mix = ["mix-3+curve 1", "mix-3+curve 2"]
        assert (
            self.kept(specs, "head=mix-3+curve") == self.kept(specs, "head=mix") == self.kept(specs, "head=m*") == mix
        )

    def test_one_key_widens_and_two_narrow(self, specs: list[RunSpec]) -> None:
        assert len(self.kept(specs, "head=mix", "head=flat")) == 4
        assert self.kept(specs, "head=flat", "encoder=rnn", seeds=(2,)) == ["flat 2"]
        assert (
            self.kept(specs) == self.kept(specs, seeds=(1, 2)) == ["mix-3+curve 1", "mix-3+curve 2", "flat 1", "flat 2"]
        )

    def test_a_filter_that_matches_nothing(self, specs: list[RunSpec], messages: Callable[..., str]) -> None:
        assert messages(select, specs, ["head=moss", "heads=mix", "head", "dataset=t"], [4]).splitlines() == [
            "--only head=moss: no head matches 'moss'. Labels: mix-3+curve, flat",
            "--only heads=mix: unknown key 'heads'. Did you mean 'head'? Allowed: dataset, encoder, head.",
            "--only head: expected key=value, for example head=mos",
            "--only dataset=t: no dataset matches 't'. Labels: toy",
            "--seed 4: no run has it. Seeds: 1, 2",
        ]

    def test_filters_that_match_nothing_together(self, specs: list[RunSpec], messages: Callable[..., str]) -> None:
        some = [spec for spec in specs if (spec.labels.head, spec.seed) != ("flat", 2)]
        text = "no run passes all the filters together. Cells: toy rnn/mix-3+curve, toy rnn/flat"
        assert messages(select, some, ["head=flat"], [2]) == text


class TestShorten:
    def test_only_what_loses_epochs_is_short(self, specs: list[RunSpec]) -> None:
        short = shorten(specs, 3)
        assert {(spec.scope, spec.recipe["budget"]["epochs"]) for spec in short} == {("short", 3)}
        assert not {spec.run_key for spec in short} & {spec.run_key for spec in specs}
        assert shorten(specs, 8) == shorten(specs, 9) == specs
        assert specs[0].recipe["budget"]["epochs"] == 8

    def test_smoke_stays_smoke(self, workspace: Workspace) -> None:
        smoke = expand(workspace.task(workspace.changed(smoke="true", recipe="{budget: {epochs: 8}}")))
        assert {spec.scope for spec in shorten(smoke, 1)} == {"smoke"}

    def test_at_least_one_epoch(self, specs: list[RunSpec], messages: Callable[..., str]) -> None:
        assert messages(shorten, specs, 0) == "--max-epochs 0: expected a positive integer"


class TestFind:
    @pytest.fixture(autouse=True)
    def files(self, workspace: Workspace) -> None:
        workspace.write("tasks/b.yaml", TASK)
        workspace.write("tasks/a-1.yaml", TASK)
        workspace.write("tasks/base.yaml", "abstract: true\n")
        workspace.write("elsewhere/c.yml", TASK)
        workspace.write("elsewhere/notes.txt", "")

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ([], ["tasks/a-1.yaml", "tasks/b.yaml", "tasks/base.yaml"]),
            (["b"], ["tasks/b.yaml"]),
            (["tasks/b.yaml", "b", "tasks"], ["tasks/b.yaml", "tasks/a-1.yaml", "tasks/base.yaml"]),
            (["elsewhere"], ["elsewhere/c.yml"]),
            (["tasks/b*.yaml"], ["tasks/b.yaml", "tasks/base.yaml"]),
            (["a-?"], ["tasks/a-1.yaml"]),
            (["elsewhere/notes.txt"], ["elsewhere/notes.txt"]),
        ],
    )
    def test_names_files_folders_and_globs(self, arguments: list[str], expected: list[str]) -> None:
        assert [str(path) for path in find_tasks(arguments)] == expected

    def test_nothing(self, messages: Callable[..., str]) -> None:
        Path("empty").mkdir()
        assert messages(find_tasks, ["a-2", "empty", "x*", "a\0"]).splitlines() == [
            "no task file 'a-2'. Did you mean 'a-1'? Allowed: a-1, b, base.",
            "no task file (*.yaml) in empty",
            "no task file 'x*'. Allowed: a-1, b, base.",
            "no task file 'a\\x00'. Allowed: a-1, b, base.",
        ]

    def test_abstract_files_are_passed_over_unless_named(self, messages: Callable[..., str]) -> None:
        assert [task.name for task in load_tasks(["tasks"])] == ["a-1", "b"]
        assert (
            messages(load_tasks, ["base"])
            == "tasks/base.yaml: is abstract: a base for other task files to extend, not a task to run"
        )

    def test_the_problems_of_every_file_are_reported_at_once(
        self, workspace: Workspace, messages: Callable[..., str]
    ) -> None:
        workspace.write("tasks/b.yaml", workspace.changed(version="0"))
        workspace.write("tasks/c.yaml", "extends: b.yaml\nseeds: []\n")
        assert messages(load_tasks, []).splitlines() == [
            "tasks/b.yaml:2:10: version: expected a positive integer, got 0",
            "tasks/c.yaml:2:8: seeds: expected at least one seed",
        ]
