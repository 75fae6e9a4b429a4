"""Cells: the product, what is left out and what is added."""

# ruff: noqa: E501  # whole messages, one to a line

from __future__ import annotations

import pytest
from task_workspace import Workspace


def cells(workspace: Workspace, **lines: str) -> list[str]:
    return [" ".join(cell.labels) for cell in workspace.task(workspace.changed(**lines)).cells]


TWO = {
    "datasets": "[toy, {name: toy, size: 3, label: small}]",
    "dataset": "",
    "heads": "[flat, {name: mix, experts: 3}]",
}


def test_the_product_runs_dataset_encoder_head_seed(workspace: Workspace) -> None:
    assert cells(workspace, **TWO) == [
        f"{dataset} rnn {head} {seed}"
        for dataset in ("toy", "small")
        for head in ("flat", "mix-3+curve")
        for seed in (1, 2)
    ]


def test_exclude_takes_labels_globs_and_seeds(workspace: Workspace) -> None:
    exclude = "{exclude: [{dataset: small, head: 'mix-*'}, {dataset: toy, seed: 2}]}"
    assert cells(workspace, **TWO, matrix=exclude) == [
        "toy rnn flat 1",
        "toy rnn mix-3+curve 1",
        "small rnn flat 1",
        "small rnn flat 2",
    ]


def test_include_takes_labels_and_new_components_with_seeds_and_recipe(workspace: Workspace) -> None:
    include = """
  include:
    - {dataset: small, encoder: rnn, head: {name: mix, experts: 9, label: big}, seeds: [7], recipe: {budget: {epochs: 5}}}
    - {dataset: toy, encoder: rnn, head: flat, seeds: [3]}"""
    task = workspace.task(workspace.changed(**TWO, recipe="{clip: 0.25, budget: {steps: 9}}", matrix=include))
    assert [" ".join(cell.labels) for cell in task.cells[-2:]] == ["small rnn big 7", "toy rnn flat 3"]
    assert task.cells[-2].recipe["budget"] == {"epochs": 5, "steps": 9}
    assert task.cells[-2].recipe["clip"] == 0.25
    assert task.cells[-1].recipe == task.recipe == task.cells[0].recipe


def test_an_included_cell_can_stand_in_for_an_excluded_one(workspace: Workspace) -> None:
    matrix = """
  exclude: [{head: flat, seed: 2}]
  include: [{dataset: toy, encoder: rnn, head: flat, seeds: [2], recipe: {clip: 1}}]"""
    assert cells(workspace, heads="flat", matrix=matrix) == ["toy rnn flat 1", "toy rnn flat 2"]


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ("{exclude: [{}]}", ["10:20: matrix.exclude[0]: expected at least one of dataset, encoder, head, seed"]),
        (
            "{exclude: [{head: mix, seed: 1}]}",
            ["10:20: matrix.exclude[0]: excludes nothing; head is one of: flat, mix-3+curve; seed is one of: 1, 2"],
        ),
        ("{exclude: [{dataset: '*'}]}", ["10:9: matrix: no cell is left: everything is excluded"]),
        (
            "{exclude: {head: flat}}",
            ['10:19: matrix.exclude: expected a list of mappings, got {"head": "flat"} (default [])'],
        ),
        (
            "{include: [{dataset: toy, encoder: rnn, head: flat, seeds: [2, 3]}]}",
            [
                "10:20: matrix.include[0]: the cell toy rnn/flat seed 2 is there already; exclude it, or give a component with a label of its own"
            ],
        ),
        (
            "{include: [{dataset: toy, encoder: rnn, head: flat, seeds: [3, 3]}]}",
            [
                "10:20: matrix.include[0]: the cell toy rnn/flat seed 3 is there already; exclude it, or give a component with a label of its own"
            ],
        ),
        (
            "{include: [{dataset: toy, encoder: rnn, head: {name: flat, label: b}, seeds: [1]}]}",
            ["10:20: matrix.include[0]: the cell toy rnn/b seed 1 repeats another under other labels"],
        ),
        (
            "{include: [{dataset: toy, encoder: lstm, head: flta, seeds: []}]}",
            [
                "10:20: matrix.include[0].seeds: expected at least one seed",
                "10:44: matrix.include[0].encoder: no encoder of this task has the label 'lstm'; labels: rnn",
                "10:56: matrix.include[0].head: no head of this task has the label 'flta'; labels: flat, mix-3+curve",
            ],
        ),
        (
            "{include: [{dataset: toy, encoder: rnn, head: {name: mix, experts: 4, label: flat}}]}",
            [
                "10:55: matrix.include[0].head: the label 'flat' is used already for another head; give this one a label of its own"
            ],
        ),
        (
            "{include: [{dataset: toy, encoder: rnn, head: flat, seeds: [5], recipe: {clip: 0, batch: 3}}]}",
            [
                "10:88: matrix.include[0].recipe.clip: expected a positive number or null, got 0 (default null)",
                "10:91: matrix.include[0].recipe.batch: unknown key. Did you mean 'batch_size'?",
            ],
        ),
    ],
)
def test_refused(matrix: str, expected: list[str], workspace: Workspace) -> None:
    text = workspace.changed(heads="[flat, {name: mix, experts: 3}]", matrix=matrix)
    assert workspace.errors(text) == [f"tasks/x.yaml:{item}" for item in expected]


def test_a_matrix_too_large_is_refused_before_it_is_built(workspace: Workspace) -> None:
    heads = "[" + ", ".join(f"{{name: mix, experts: {n}}}" for n in range(1, 200)) + "]"
    seeds = str(list(range(3000)))
    assert workspace.errors(workspace.changed(heads=heads, seeds=seeds, matrix="{}")) == [
        "tasks/x.yaml:10:9: matrix: 597,000 cells are more than the limit of 10,000; split the task"
    ]


def test_included_cells_count_towards_the_limit(workspace: Workspace) -> None:
    include = "\n  include:\n" + "\n".join(
        f"    - {{dataset: toy, encoder: rnn, head: {{name: mix, experts: {n}}}}}" for n in range(1, 10)
    )
    text = workspace.changed(heads="flat", seeds=str(list(range(2000))), matrix=include)
    assert workspace.errors(text) == [
        "tasks/x.yaml:12:3: matrix: 12,000 cells are more than the limit of 10,000; split the task"
    ]
