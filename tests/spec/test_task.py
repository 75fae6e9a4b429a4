"""A task file's problems, whole messages, all at once; and what a good one means."""

# ruff: noqa: E501  # whole messages, one to a line

from __future__ import annotations

from pathlib import Path

import pytest
from task_workspace import Workspace

MINE = "../plugins/mine.py"


def test_a_good_task(workspace: Workspace) -> None:
    task = workspace.task()
    assert (task.name, task.path, task.title, task.version, task.protocol) == (
        "x",
        Path("tasks/x.yaml"),
        "A task",
        1,
        "toy",
    )
    assert [entry.label for entry in task.heads] == ["mix-3+curve", "flat"]
    assert task.encoders[0].spec.options == {"hidden": [1150, 1150, 400], "drop": 0.0, "tied": True, "cap": None}
    assert task.heads[0].spec.options == {
        "experts": 3,
        "pointwise": {"name": "curve", "knots": 5, "shift": 0.0, "inner": None},
    }
    assert [stage.as_dict() for stage in task.stages] == [{"name": "fit", "rounds": 1}]
    assert [cell.labels for cell in task.cells] == [
        ("toy", "rnn", "mix-3+curve", "1"),
        ("toy", "rnn", "mix-3+curve", "2"),
        ("toy", "rnn", "flat", "1"),
        ("toy", "rnn", "flat", "2"),
    ]
    assert task.recipe["optimizer"] == {"name": "sgd", "lr": 20.0, "weight_decay": 0.0}


BAD = """\
# every kind of mistake at once
titel: T
version: true
protocol: ""
plugins: [../plugins/mine.py]
dataset: {name: toy, p: 1.5, unit: chr, label: "a/b"}
encoder:
  name: rnn
  hiden: 3
  hidden: [1, 2, abc]
  drop: .nan
  tied: 1
  cap: -1
heads:
  - mixx
  - {name: mix}
  - {name: mix, experts: 1.0, pointwise: {name: curv}}
  - {experts: 3}
  - 5
recipe:
  optimizer: {name: sgdd}
  averaging: {trigger: epoch, epoch: 0, patience: 3}
  batch_size: yes
  schedule: {name: constnt}
  random_length: 5
stages: fit
seeds: [1, -2, x]
matrix:
  exclude: [{hed: x}]
  include: [{dataset: toy, recipe: 5, seeds: 3}]
version: 2
"""

BAD_MESSAGES = """\
tasks/x.yaml:2:1: title: missing; expected non-empty text
tasks/x.yaml:2:1: titel: unknown key. Did you mean 'title'?
tasks/x.yaml:3:10: version: expected a positive integer, got true
tasks/x.yaml:4:11: protocol: expected non-empty text, got ''
tasks/x.yaml:6:25: dataset.p: expected a number from 0 to 1, got 1.5 (default 0.5)
tasks/x.yaml:6:36: dataset.unit: expected one of 'word', 'char', 1, got 'chr' (default 'word')
tasks/x.yaml:6:48: dataset.label: expected a label of up to 60 letters, digits, spaces and '-_.+=,()', got 'a/b'
tasks/x.yaml:9:3: encoder.hiden: unknown key. Did you mean 'hidden'?
tasks/x.yaml:10:18: encoder.hidden[2]: expected a positive integer, got 'abc' (list of positive integers, default [1150, 1150, 400])
tasks/x.yaml:11:9: encoder.drop: expected a finite number, got NaN (default 0.0)
tasks/x.yaml:12:9: encoder.tied: expected true or false, got 1 (default true)
tasks/x.yaml:13:8: encoder.cap: expected a positive number or null, got -1 (default null)
tasks/x.yaml:15:5: heads[0]: unknown head 'mixx'. Did you mean 'mix'? Allowed: flat, mix, moc, mos, softmax.
tasks/x.yaml:16:5: heads[1].experts: missing; expected a positive integer
tasks/x.yaml:17:26: heads[2].experts: expected a positive integer, got 1.0
tasks/x.yaml:17:49: heads[2].pointwise.name: unknown pointwise 'curv'. Did you mean 'curve'? Allowed: curve, gss, identity, monotonic-network, plif, relu, sigmoid, sigsoftmax.
tasks/x.yaml:18:5: heads[3]: missing 'name'; expected the name of a head
tasks/x.yaml:19:5: heads[4]: expected the name of a head, or a mapping with its name and options, got 5
tasks/x.yaml:21:21: recipe.optimizer.name: expected one of 'sgd', 'adamw', got 'sgdd'. Did you mean 'sgd'?
tasks/x.yaml:22:38: recipe.averaging.epoch: expected a positive integer, got 0 (default 200)
tasks/x.yaml:22:41: recipe.averaging.patience: unknown key. Allowed: epoch, late_learning_rate, trigger.
tasks/x.yaml:23:15: recipe.batch_size: expected a positive integer, got 'yes' (default 20)
tasks/x.yaml:24:20: recipe.schedule.name: expected one of 'constant', 'one-cycle', got 'constnt' (default 'constant')
tasks/x.yaml:25:18: recipe.random_length: expected a mapping or null, got 5 (default null)
tasks/x.yaml:26:9: stages: expected a list of stages, got 'fit' (default ['train'])
tasks/x.yaml:27:12: seeds[1]: expected a non-negative integer, got -2 (list of non-negative integers)
tasks/x.yaml:27:16: seeds[2]: expected a non-negative integer, got 'x' (list of non-negative integers)
tasks/x.yaml:29:14: matrix.exclude[0].hed: unknown key. Did you mean 'head'?
tasks/x.yaml:30:13: matrix.include[0].encoder: missing; expected an encoder component (a name, or a mapping with its name and options)
tasks/x.yaml:30:13: matrix.include[0].head: missing; expected a head component (a name, or a mapping with its name and options)
tasks/x.yaml:30:36: matrix.include[0].recipe: expected a mapping, got 5 (default {})
tasks/x.yaml:30:46: matrix.include[0].seeds: expected a list of non-negative integers or null, got 3 (default null)
tasks/x.yaml:31:1: duplicate key 'version', first given on line 3
"""


def test_every_problem_of_a_file_is_reported_at_once(workspace: Workspace) -> None:
    assert workspace.errors(BAD) == BAD_MESSAGES.splitlines()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ({"seeds": "[]"}, ["11:8: seeds: expected at least one seed"]),
        ({"seeds": "[1, 2, 1]"}, ["11:15: seeds[2]: 1 is listed already"]),
        ({"seeds": ""}, ["1:1: seeds: missing; expected a list of non-negative integers"]),
        (
            {"seeds": "[true]"},
            ["11:9: seeds[0]: expected a non-negative integer, got true (list of non-negative integers)"],
        ),
        ({"heads": "[]"}, ["7:8: heads: expected at least one head"]),
        (
            {"heads": ""},
            ["1:1: head: missing; expected a head or a list, each a name or a mapping with name and options"],
        ),
        ({"head": "flat"}, ["12:1: head: give either 'head' or 'heads', not both"]),
        (
            {"heads": "[flat, flat]"},
            ["7:15: heads[1]: the label 'flat' is used already by heads[0]; give this one a label of its own"],
        ),
        (
            {"heads": "[flat, {name: flat, label: b}]"},
            ["7:15: heads[1]: the same head as heads[0], under another label"],
        ),
        (
            {"heads": "[flat, {name: mix, experts: 2, label: flat}]"},
            ["7:15: heads[1]: the label 'flat' is used already by heads[0]"],
        ),
        ({"heads": "[{name: 3}]"}, ["7:16: heads[0].name: expected the name of a head, got 3"]),
        ({"stages": "[]"}, ["10:9: stages: expected a list of stages, got [] (default ['train'])"]),
        ({"stages": "[{name: fit, label: a}]"}, ["10:22: stages[0].label: unknown key. Allowed: name, rounds."]),
        ({"recipe": "null"}, ["12:9: recipe: expected a mapping, got null"]),
        (
            {"recipe": "{micro_batch: 3}"},
            ["12:9: recipe: micro_batch 3 does not divide batch_size 20"],
        ),
        (
            {"recipe": "{optimizer: sgd}"},
            ["12:21: recipe.optimizer: expected a mapping with name: sgd or adamw, got 'sgd'"],
        ),
        ({"recipe": "{optimizer: {lr: 1}}"}, ["12:21: recipe.optimizer: missing 'name'; expected name: sgd or adamw"]),
        (
            {"recipe": "{averaging: 3}"},
            [
                "12:21: recipe.averaging: expected a mapping with trigger: non-monotone or epoch or null, got 3 (default null)"
            ],
        ),
        ({"recipe": "{clip: .inf}"}, ["12:16: recipe.clip: expected a finite number, got Infinity (default null)"]),
        ({"encoder": "{name: rnn, drop: true}"}, ["6:28: encoder.drop: expected a number, got true (default 0.0)"]),
        (
            {"dataset": "{name: toy, unit: true}"},
            ["5:28: dataset.unit: expected one of 'word', 'char', 1, got true (default 'word')"],
        ),
        (
            {"dataset": "{name: toy, size: 1" + "0" * 400 + ".0}"},
            ["5:28: dataset.size: expected a positive integer, got Infinity (default 10)"],
        ),
        (
            {"plugins": "[../plugins/none.py]"},
            ["4:11: plugins[0]: no such file: plugins/none.py; a plugin's path is relative to the file that lists it"],
        ),
        (
            {"plugins": "[no.such.module]"},
            [
                "4:11: plugins[0]: no module 'no.such.module' is installed; give an installed module, or a path ending in .py"
            ],
        ),
        ({"plugins": "{a: 1}"}, ['4:10: plugins: expected a list of text, got {"a": 1} (default [])']),
        ({"abstract": "maybe"}, ["12:11: abstract: expected true or false, got 'maybe' (default false)"]),
        (
            {"title": "&a T", "paper": "*a"},
            [
                "1:8: anchors (&a) are not allowed; write the value out, or use `extends:`",
                "12:8: aliases (*a) are not allowed; write the value out, or use `extends:`",
            ],
        ),
        (
            {"heads": "[&a mixx, *a]"},
            [
                "7:9: anchors (&a) are not allowed; write the value out, or use `extends:`",
                "7:18: aliases (*a) are not allowed; write the value out, or use `extends:`",
            ],
        ),
    ],
)
def test_one_problem(lines: dict[str, str], expected: list[str], workspace: Workspace) -> None:
    # Line 8 and 9 are the list of heads: replaced by one line they would move what follows.
    text = workspace.changed(**lines)
    if "heads" in lines:
        expected = [item if int(item.split(":")[0]) <= 7 else _up(item, 2) for item in expected]
    assert workspace.errors(text) == [f"tasks/x.yaml:{item}" for item in expected]


def _up(item: str, lines: int) -> str:
    number, rest = item.split(":", 1)
    return f"{int(number) - lines}:{rest}"


class TestExtends:
    def test_an_error_in_the_parent_is_reported_in_the_parents_file(self, workspace: Workspace) -> None:
        workspace.write("base.yaml", workspace.changed(encoder="{name: rnn, hiden: 3}", plugins="[plugins/mine.py]"))
        child = "extends: ../base.yaml\nversion: 0\n"
        assert workspace.errors(child) == [
            "tasks/x.yaml:2:10: version: expected a positive integer, got 0",
            "base.yaml:6:22: encoder.hiden: unknown key. Did you mean 'hidden'?",
        ]

    def test_a_parents_plugin_is_relative_to_the_parent(self, workspace: Workspace) -> None:
        workspace.write("base.yaml", workspace.changed(plugins="[plugins/mine.py]"))
        assert workspace.task("extends: ../base.yaml\nhead: flat\n").heads[0].label == "flat"

    def test_a_childs_head_replaces_its_parents_heads(self, workspace: Workspace) -> None:
        workspace.task(name="tasks/base.yaml")
        assert [e.label for e in workspace.task("extends: base.yaml\nhead: {name: mix, experts: 7}\n").heads] == [
            "mix-7+curve"
        ]

    def test_an_abstract_base_may_be_incomplete_but_not_wrong(self, workspace: Workspace) -> None:
        assert workspace.task("abstract: true\nversion: 3\n").abstract
        assert workspace.errors("abstract: true\nversion: x\n") == [
            "tasks/x.yaml:2:10: version: expected a positive integer, got 'x'"
        ]

    def test_abstract_is_not_inherited(self, workspace: Workspace) -> None:
        workspace.task(workspace.changed(abstract="true"), name="tasks/base.yaml")
        assert not workspace.task("extends: base.yaml\n").abstract

    def test_null_replaces(self, workspace: Workspace) -> None:
        workspace.task(workspace.changed(recipe="{clip: 0.25, averaging: {trigger: epoch}}"), name="tasks/base.yaml")
        recipe = workspace.task("extends: base.yaml\nrecipe: {averaging: null}\n").recipe
        assert (recipe["averaging"], recipe["clip"]) == (None, 0.25)


def test_an_absolute_path_is_shown_as_given(workspace: Workspace) -> None:
    path = workspace.root / "tasks/y.yaml"
    assert workspace.errors("a: [", str(path))[0].startswith(f"{path}:1:5: not valid YAML: ")


@pytest.mark.parametrize(
    ("head", "label"),
    [
        ("softmax", "softmax"),
        ("{name: softmax, pointwise: sigsoftmax}", "sigsoftmax"),
        ("{name: mos, experts: 15}", "mos-15"),
        ("{name: moc, experts: 4, pointwise: {name: plif, knots: 10}}", "moc-4+plif"),
        ("{name: mos, experts: 15, label: ours}", "ours"),
    ],
)
def test_default_labels(head: str, label: str, workspace: Workspace) -> None:
    assert workspace.task(workspace.changed(heads=head)).heads[0].label == label
