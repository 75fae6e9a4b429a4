"""The page that says who can reproduce what: every run in exactly one command, under its commit and machine."""

from __future__ import annotations

import shlex
from itertools import product

from hypothesis import given
from hypothesis import strategies as st
from records_factory import make_record

from suite.records.record import Record
from suite.report.reproduce import Block, blocks, reproduce_markdown


def cells_of(block: Block) -> set[tuple[str, str, str, int]]:
    return set(product(block.datasets, block.encoders, block.heads, block.seeds))


LABELS = st.tuples(
    st.sampled_from(["ptb", "wikitext-2"]), st.sampled_from(["lstm", "awd-lstm"]),
    st.sampled_from(["mos", "plif", "gss"]), st.integers(1, 4),
)  # fmt: skip


@given(st.sets(LABELS, min_size=1, max_size=20))
def test_blocks_name_every_run_once_and_nothing_else(wanted: set[tuple[str, str, str, int]]) -> None:
    found = blocks(make_record(dataset=d, encoder=e, head=h, seed=s) for d, e, h, s in wanted)
    named = [cell for block in found for cell in cells_of(block)]
    assert len(named) == len(set(named)) == sum(block.runs for block in found)
    assert set(named) == wanted
    for block in found:
        words = shlex.split(block.command)
        assert words[:3] == ["suite", "run", "mos-ptb"]
        assert {word for word in words if word.startswith("head=")} == {f"head={head}" for head in block.heads}
        assert {int(words[i + 1]) for i, word in enumerate(words) if word == "--seed"} == block.seeds


def test_a_full_grid_is_one_command() -> None:
    grid = [make_record(dataset=d, head=h, seed=s) for d in ("a", "b") for h in ("mos", "plif") for s in (1, 2, 3)]
    (block,) = blocks(grid)
    assert block.command == (
        "suite run mos-ptb --only dataset=a --only dataset=b --only encoder=awd-lstm --only head=mos --only head=plif "
        "--seed 1 --seed 2 --seed 3 --rerun"
    )
    assert block.runs == 12


def at(record: Record, **changes: object) -> Record:
    return record.model_copy(update={"provenance": record.provenance.model_copy(update=changes)})


def test_the_page() -> None:
    assert reproduce_markdown([]) == ""
    budget = {"budget": {"epochs": 3}}
    records = [
        at(make_record(seed=seed), commit="ab" * 20, dirty=seed == 9, ended="2026-02-02T00:00:00Z")
        for seed in (1, 2, 9)
    ]
    records.append(
        make_record(device="AMD EPYC", device_kind="cpu", scope="short", recipe=budget, status="interrupted")
    )
    records.append(at(make_record(head="plif", seed=5), commit=None, dirty=None, ended="2025-02-02T00:00:00Z"))
    text = reproduce_markdown(records)
    titles = [line for line in text.splitlines() if line.startswith("### ")]
    assert sorted(titles[:2]) == ["### abababababab (clean)", "### abababababab (with changes)"]
    assert titles[2:] == ["### 000000000000 (clean)", "### commit not recorded"]
    assert "\n2 runs on NVIDIA H200 (GPU), Python 3.11.7, torch 2.13.0; suite 0.1.0; 2026-02-02.\n" in text
    assert "\n1 run on AMD EPYC (CPU, 8 threads), Python 3.11.7, torch 2.13.0; suite 0.1.0; 2026-01-01.\n" in text
    assert "| mos-ptb | ptb       | awd-lstm  | mos-15  |    1, 2 |      2 | full    | finished |\n" in text
    cell = "suite run mos-ptb --only dataset=ptb --only encoder=awd-lstm --only"
    assert f"```\ngit checkout {'ab' * 20}\n{cell} head=mos-15 --seed 1 --seed 2 --rerun\n```\n" in text
    assert f"\n{cell} head=mos-15 --seed 1 --max-epochs 3\n```" in text
    assert (
        "2025-02-02. Which code gave these numbers is not known; the commands run the same specs with the code at hand."
    ) in text
    assert text.endswith(f"```\n{cell} head=plif --seed 5 --rerun\n```")
    assert reproduce_markdown(records[::-1]) == text


def test_a_label_from_elsewhere_breaks_out_of_nothing() -> None:
    text = reproduce_markdown([make_record(head="a`b\n```\n| <i>", device="x\n# y")])
    assert "\n# y" not in text
    assert text.count("\n```") == 2
