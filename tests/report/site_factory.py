"""Sites made of made-up records: one with a bit of everything, and one whose every text is hostile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from records_factory import make_record
from test_leaderboard import TASKS, YANG, number, sample

from suite.records.record import Record
from suite.report.claims import Claim, Compare
from suite.report.descriptions import DESCRIPTION
from suite.report.evidence import Evidence
from suite.report.findings import judge
from suite.report.leaderboard import build
from suite.report.site.page import Site
from suite.report.tasks import TaskInfo, Tasks
from suite.spec.task import Deviation

HOSTILE = "</td></script><script>window.pwned=1</script><img src=x onerror=window.pwned=1>\"'`{{7*7}}&lt;"


def site(folder: Path, records: list[Record], tasks: Tasks, published: list[object], claims: list[Claim]) -> Site:
    evidence = Evidence.of(records, tasks)
    judged = [judge(claim, evidence) for claim in claims]
    board = build(records, published, tasks=tasks, show="all")  # type: ignore[arg-type]
    return Site(board, judged, published, records, folder / "figures")  # type: ignore[arg-type]


def draw(folder: Path, name: str, text: str) -> None:
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    fields = PngInfo()
    fields.add_itxt(DESCRIPTION, text)
    Image.new("RGB", (40, 30), "white").save(folder / "figures" / name, pnginfo=fields)


def sample_site(folder: Path) -> Site:
    """Every verdict and every mark; tables of two datasets; a figure."""
    records, published = sample()
    records += [make_record(head="mos-10", seed=seed, test=56.3 + seed / 10, costs={"packed": True}) for seed in (1, 2)]
    # A task whose file gives no run today leaves all of its records stale.
    records += [make_record(head="mos-5", seed=seed, task="moved", test=57.4 + seed / 10) for seed in (1, 2)]
    draw(folder, "curve.png", "A line that falls.")
    claims = [
        Claim(id="a", claim="MoS beats a softmax.", papers=["yang2018"], note="At any size.",
              evidence=[Compare(rule="compare", heads=["mos-15"], than="softmax")]),
        Claim(id="b", claim="PLIF beats a softmax.", papers=["yang2018"],
              evidence=[Compare(rule="compare", heads=["plif-9"], than="softmax")]),
    ]  # fmt: skip
    return site(folder, records, {**TASKS, "moved": TaskInfo(1, specs=())}, list(published), claims)


def hostile_site(folder: Path) -> Site:
    """The same text wherever a record, a published number, a claim, a task file or a figure can hold one."""
    bad = HOSTILE
    labels = {"dataset": bad, "encoder": bad, "head": bad, "protocol": bad}
    records = [
        make_record(
            **labels,  # type: ignore[arg-type]
            seed=seed,
            task=bad,
            device=bad,
            facts={bad: 1.0},
            metrics={bad: {"test": {"ppl": 56.0, bad: 1.0}, bad: {"ppl": 2.0}}},
            stages=(bad,),
            dataset_options={bad: bad},
        )
        for seed in (1, 2)
    ]
    records += [
        make_record(**labels, seed=3, task=bad, status="failed", message=bad),  # type: ignore[arg-type]
        make_record(**labels, seed=4, task=bad, scope="smoke"),  # type: ignore[arg-type]
        make_record(**labels, seed=5, task="old", version=1),  # type: ignore[arg-type]
    ]
    for place, record in enumerate(records):
        provenance = record.provenance.model_copy(update={"commit": bad, "ended": bad, "command": bad})
        environment = record.environment
        assert environment is not None
        spoilt = environment.model_copy(update={"versions": {bad: bad}, "platform": bad, "driver": bad})
        records[place] = record.model_copy(update={"provenance": provenance, "environment": spoilt})
    paper = replace(YANG, authors=(bad,), title=bad)
    text = {"table": bad, "note": bad, "source": bad, "reported_by": bad, "framework": bad, "unavailable": bad}
    published: list[object] = [
        number(paper=paper, **{**labels, **text}),  # type: ignore[arg-type]
        number(paper=paper, **{**labels, **text, "head": "other"}),  # type: ignore[arg-type]
    ]
    tasks = {bad: TaskInfo(1, {}, (Deviation(what=bad, why=bad, effect=bad, touches="*"),), ()), "old": TaskInfo(2)}
    draw(folder, "figure.png", bad)
    compare = Compare(rule="compare", heads=[bad], than="softmax")
    return site(
        folder, records, tasks, published, [Claim(id="a", claim=bad, papers=["yang2018"], note=bad, evidence=[compare])]
    )
