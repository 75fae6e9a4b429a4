"""The claims file and the rules that judge it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records_factory import make_record

from suite.errors import InputError
from suite.records.published import load_published
from suite.records.record import Record
from suite.report.benchmarks import load_benchmarks
from suite.report.claims import (
    AveragingMatters,
    Claim,
    Compare,
    CostRatio,
    Equal,
    FullRank,
    RankAbove,
    RankAtMost,
    RankNotNecessary,
    RankNotSufficient,
    Rule,
    load_claims,
)
from suite.report.claims_table import claims_short, counted
from suite.report.evidence import Evidence, Finding, Outcome
from suite.report.findings import Judgement, find, judge
from suite.report.pairing import output_dimension

ONE_SEED = "fewer than two seeds a side give no interval"


def seeds(*tests: float, metric: str = "ppl", **fields: Any) -> list[Record]:
    return [
        make_record(seed=seed, metrics={"train": {"test": {metric: value}}}, **fields)
        for seed, value in enumerate(tests, 1)
    ]


def only(rule: Rule, records: Sequence[Record], benchmarks: Sequence[Mapping[str, Any]] = ()) -> Finding:
    (finding,) = find(rule, Evidence.of(records, {}, benchmarks))
    return finding


def with_spec(record: Record, **parts: Mapping[str, Any]) -> Record:
    return record.model_copy(update={"spec": {**record.spec, **parts}})


# The file


def test_the_claims_of_the_repository() -> None:
    claims = load_claims(load_published())
    assert {claim.id for claim in claims} >= {
        "softmax-rank",
        "mos-full-rank",
        "mos-beats-softmax",
        "sigsoftmax-beats-softmax",
        "plif-beats-softmax",
        "frozen-plif",
        "mos-cost",
        "matched-capacity",
        "moss-beats-mos",
        "monotone-cross-entropy",
        "no-gain-on-characters",
        "rank-not-sufficient",
        "rank-not-necessary",
        "sigsoftmax-rank",
        "monotone-modes",
        "averaging-start",
    }


GOOD = (
    "claims:\n  - {id: one, claim: A., papers: [yang2018], evidence: [{rule: compare, heads: [mos], than: softmax}]}\n"
)


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("claim: []\n", ["{0}:1:1: claims: expected a mapping with a list of claims"]),
        ("claims: 3\n", ["{0}:1:1: claims: expected a mapping with a list of claims"]),
        (GOOD + "notes: x\n", ["{0}:3:1: notes: unknown key. Allowed: claims."]),
        (GOOD + GOOD.split("\n", 1)[1], ["{0}:3:10: claims[1].id: 'one' is used already"]),
        (
            GOOD.replace("yang2018", "yang2081"),
            [
                "{0}:2:35: claims[0].papers[0]: no file in baselines/ describes 'yang2081'. Did you mean 'yang2018'? "
                "Allowed: {1}."
            ],
        ),
        (
            GOOD.replace("rule: compare", "rule: comprae"),
            [
                "{0}:2:64: claims[0].evidence[0].rule: expected one of 'rank-at-most', 'rank-above', 'full-rank', "
                "'compare', 'equal', 'rank-not-sufficient', 'rank-not-necessary', 'cost-ratio', 'averaging-matters', "
                "got 'comprae'. Did you mean 'compare'?"
            ],
        ),
        (GOOD.replace("than:", "thna:"), ["{0}:2:", "{0}:2:"]),
        ("claims:\n  - one\n", ["{0}:2:5: claims[0]: expected a mapping, got 'one'"]),
    ],
)
def test_what_is_wrong_with_a_claims_file(tmp_path: Path, text: str, messages: list[str]) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(text)
    published = load_published()
    with pytest.raises(InputError) as caught:
        load_claims(published, path)
    papers = ", ".join(sorted({number.paper.key for number in published}))
    found = str(caught.value).splitlines()
    assert len(found) == len(messages)
    for said, expected in zip(found, messages, strict=True):
        assert said.startswith(expected.replace("{0}", str(path)).replace("{1}", papers))


# Ranks


def ranked(head: str, rank: float, spec: Mapping[str, Any], **fields: Any) -> Record:
    record = make_record(head=head, metrics={"train": {"test": {"rank": rank, "tokens": 500.0}}}, **fields)
    return with_spec(record, head={"name": head, **spec})


@pytest.mark.parametrize(
    ("rank", "spec", "outcome", "bound"),
    [
        (402, {"dimension": 400, "bias": True}, Outcome.HOLDS, "d + 2 = 402 (the logits have a bias)"),
        (403, {"dimension": 400, "bias": True}, Outcome.FAILS, "d + 2 = 402 (the logits have a bias)"),
        (401, {"dimension": 400, "bias": False}, Outcome.HOLDS, "d + 1 = 401"),
        (402, {"dimension": 400, "bias": False}, Outcome.FAILS, "d + 1 = 401"),
    ],
)
def test_the_rank_of_a_softmax(rank: float, spec: dict[str, Any], outcome: Outcome, bound: str) -> None:
    rule = RankAtMost(rule="rank-at-most", heads=["softmax"])
    finding = only(rule, [ranked("softmax", rank, spec), ranked("mos-15", 9981, spec)])
    assert finding.outcome is outcome
    assert finding.text == f"awd-lstm/softmax: rank {rank} (n = 1), bound {bound}"


def test_a_rank_counts_however_long_the_run_was_but_not_of_a_smoke_run() -> None:
    rule = RankAtMost(rule="rank-at-most", heads=["softmax"])
    short = ranked("softmax", 400, {"dimension": 400}, scope="short", recipe={"budget": {"epochs": 5}})
    assert only(rule, [short]).place == "ptb · nt-asgd · train, 5 epochs"
    longer = short.model_copy(update={"seed": 2, "run_key": "f" * 64, "spec": {**short.spec, "seed": 2}})
    longer.spec["recipe"] = {**short.spec["recipe"], "budget": {"epochs": 9}}
    both = find(rule, Evidence.of([short, longer]))
    assert {one.place for one in both} == {f"ptb · nt-asgd · train, {epochs} epochs" for epochs in (5, 9)}
    full = ranked("softmax", 399, {"dimension": 400})
    elsewhere = ranked("softmax", 400, {"dimension": 400}, scope="short", protocol="short-120")
    assert [one.place for one in find(rule, Evidence.of([short, full, elsewhere]))] == [
        "ptb · nt-asgd · train, 1 epoch",
        "ptb · short-120 · train, 1 epoch",
    ]
    assert list(find(rule, Evidence.of([ranked("softmax", 400, {"dimension": 400}, scope="smoke")]))) == []
    unknown = only(rule, [ranked("softmax", 400, {})])
    assert (unknown.outcome, unknown.why) == (Outcome.OPEN, "d is unknown")


@pytest.mark.parametrize(
    ("head", "encoder", "size"),
    [
        ({"dimension": 6}, {"embedding": 64, "hidden": [64], "tied": True}, 6),
        ({"dimension": None}, {"embedding": 280, "hidden": [960, 620], "tied": True}, 280),
        ({}, {"embedding": 64, "hidden": [64, 32], "tied": False}, 32),
        ({}, {"width": 256, "tied": True}, 256),
        ({}, {"dimension": 8}, 8),
        ({}, {"name": "of a user"}, None),
    ],
)
def test_the_size_of_the_output_embeddings(head: dict[str, Any], encoder: dict[str, Any], size: int | None) -> None:
    assert output_dimension({"head": head, "encoder": encoder}) == size


@pytest.mark.parametrize(
    ("rank", "bias", "outcome", "bound"),
    [
        (403, True, Outcome.HOLDS, "d + 2 = 402 (the logits have a bias)"),
        (402, True, Outcome.FAILS, "d + 2 = 402 (the logits have a bias)"),
        (402, False, Outcome.HOLDS, "d + 1 = 401"),
        (401, False, Outcome.FAILS, "d + 1 = 401"),
    ],
)
def test_a_rank_above_the_bound(rank: float, bias: bool, outcome: Outcome, bound: str) -> None:
    rule = RankAbove(rule="rank-above", heads=["sigsoftmax"])
    finding = only(rule, [ranked("sigsoftmax", rank, {"dimension": 400, "bias": bias})])
    assert (finding.outcome, finding.text) == (outcome, f"awd-lstm/sigsoftmax: rank {rank} (n = 1), bound {bound}")


def with_ranks(head: str, rank: float, *tests: float, **fields: Any) -> list[Record]:
    return [
        make_record(head=head, seed=seed, metrics={"train": {"test": {"ppl": ppl, "rank": rank}}}, **fields)
        for seed, ppl in enumerate(tests, 1)
    ]


WITH_RANK = "its gain comes with a higher rank"
ZERO = "the interval of the difference holds zero"


@pytest.mark.parametrize(
    ("rank", "tests", "sufficient", "necessary"),
    [
        (128, (61.0, 61.1, 60.9), (Outcome.HOLDS, ""), None),  # of high rank and worse: not sufficient
        (15, (59.0, 59.1, 58.9), None, (Outcome.HOLDS, "")),  # of low rank and better: not necessary
        (16, (59.0, 59.1, 58.9), (Outcome.OPEN, WITH_RANK), (Outcome.OPEN, WITH_RANK)),
        (15, (61.0, 61.1, 60.9), None, None),
        (128, (60.0, 60.2, 59.9), (Outcome.OPEN, ZERO), None),
        (8, (60.0, 60.2, 59.9), None, (Outcome.OPEN, ZERO)),
        (128, (61.0,), (Outcome.OPEN, ONE_SEED), None),
    ],
)
def test_what_a_rank_is_good_for(
    rank: float,
    tests: Sequence[float],
    sufficient: tuple[Outcome, str] | None,
    necessary: tuple[Outcome, str] | None,
) -> None:
    records = [*with_ranks("softmax", 8, 60.0, 60.1, 59.9), *with_ranks("plif", rank, *tests)]
    rules = (
        RankNotSufficient(rule="rank-not-sufficient", heads=["plif"], than="softmax"),
        RankNotNecessary(rule="rank-not-necessary", heads=["plif"], than="softmax"),
    )
    for rule, expected in zip(rules, (sufficient, necessary), strict=True):
        found = find(rule, Evidence.of(records))
        assert [(finding.outcome, finding.why) for finding in found] == ([expected] if expected else [])


def test_one_witness_is_enough() -> None:
    rule = RankNotSufficient(rule="rank-not-sufficient", heads=["plif", "mos-*"], than="softmax", at_most_size=1.1)
    base = with_ranks("softmax", 8, 60.0, 60.1, 59.9, parameters=100)
    mixture = with_ranks("mos-8", 128, 55.0, 55.1, 54.9, parameters=100)
    worse = with_ranks("plif", 128, 61.0, 61.1, 60.9, parameters=100)
    assert only(rule, [*base, *mixture]).why == WITH_RANK
    assert only(rule, [*base, *mixture, *worse]).text == (
        "awd-lstm/plif against awd-lstm/softmax: perplexity +1.00 [+0.77, +1.23], n = 3 and 3; rank 128 against 8"
    )
    larger = with_ranks("plif", 128, 61.0, 61.1, 60.9, parameters=111)
    assert only(rule, [*base, *mixture, *larger]).why == WITH_RANK
    apart = with_ranks("plif", 128, 61.0, 61.1, 60.9, parameters=100, protocol="other")
    assert only(rule, [*base, *mixture, *apart]).why == WITH_RANK, "the other section has no softmax"


def test_full_rank_is_of_words_or_of_contexts() -> None:
    rule = FullRank(rule="full-rank", heads=["mos-*"], words={"ptb": 10000}, share=0.99)
    assert only(rule, [ranked("mos-15", 496, {})]).text == "awd-lstm/mos-15: rank 496 (n = 1) of 500"
    assert only(rule, [ranked("mos-15", 495, {})]).outcome is Outcome.HOLDS
    assert only(rule, [ranked("mos-15", 494, {})]).outcome is Outcome.FAILS
    assert list(find(rule, Evidence.of([ranked("mos-15", 494, {}, dataset="mine")]))) == []


# Differences


@pytest.mark.parametrize(
    ("ours", "theirs", "better", "outcome", "why"),
    [
        ((50.0, 50.1, 49.9), (60.0, 60.1, 59.9), "lower", Outcome.HOLDS, ""),
        ((50.0, 50.1, 49.9), (60.0, 60.1, 59.9), "higher", Outcome.FAILS, ""),
        ((60.0, 60.1, 59.9), (50.0, 50.1, 49.9), "lower", Outcome.FAILS, ""),
        ((60.0, 60.1, 59.9), (50.0, 50.1, 49.9), "higher", Outcome.HOLDS, ""),
        ((50.0, 61.0), (60.0, 60.1), "lower", Outcome.OPEN, "the interval of the difference holds zero"),
        ((50.0, 50.0), (50.0, 50.0), "lower", Outcome.OPEN, "the interval of the difference holds zero"),
        ((50.0,), (60.0, 60.1), "lower", Outcome.OPEN, ONE_SEED),
    ],
)
def test_one_head_against_another(
    ours: Sequence[float], theirs: Sequence[float], better: Any, outcome: Outcome, why: str
) -> None:
    rule = Compare(rule="compare", heads=["mos-*"], than="softmax", better=better)
    finding = only(rule, [*seeds(*ours, head="mos-15"), *seeds(*theirs, head="softmax")])
    assert (finding.outcome, finding.why) == (outcome, why)
    assert len(finding.records) == len(ours) + len(theirs)


def test_a_comparison_says_its_numbers() -> None:
    rule = Compare(rule="compare", heads=["mos-*"], than="softmax")
    finding = only(rule, [*seeds(50.0, 50.1, 49.9, head="mos-15"), *seeds(60.0, 60.1, 59.9, head="softmax")])
    assert finding.place == "ptb · nt-asgd · train, 1 epoch"
    assert finding.text == ("awd-lstm/mos-15 against awd-lstm/softmax: perplexity -10.00 [-10.23, -9.77], n = 3 and 3")


@pytest.mark.parametrize("apart", [{"protocol": "other"}, {"encoder": "lstm"}, {"dataset": "wikitext-2"}])
def test_what_is_not_alike_is_not_compared(apart: dict[str, Any]) -> None:
    rule = Compare(rule="compare", heads=["mos-*"], than="softmax")
    records = [*seeds(50.0, 50.1, head="mos-15"), *seeds(60.0, 60.1, head="softmax", **apart)]
    assert list(find(rule, Evidence.of(records))) == []


def test_precision_and_size_keep_heads_apart() -> None:
    rule = Compare(rule="compare", heads=["mos-*"], than="softmax", at_most_size=1.1)
    tf32 = {"precision": {"recurrence": "tf32", "head": "tf32"}}
    assert not list(find(rule, Evidence.of([*seeds(50.0, head="mos-15"), *seeds(60.0, head="softmax", recipe=tf32)])))
    for parameters, count in ((110, 1), (111, 0)):
        records = [*seeds(50.0, head="mos-15", parameters=parameters), *seeds(60.0, head="softmax", parameters=100)]
        assert len(list(find(rule, Evidence.of(records)))) == count


def test_a_comparison_may_want_the_other_to_fall_short() -> None:
    def runs(head: str, kl: float, modes: float | None) -> list[Record]:
        scores = {"kl": kl} if modes is None else {"kl": kl, "mode_match": modes}
        return [make_record(head=head, seed=seed, metrics={"train": {"test": scores}}) for seed in (1, 2)]

    rule = Compare(rule="compare", heads=["plif"], than="softmax", metric="kl", than_below={"mode_match": 95})
    for modes, outcome, why in (
        (94.9, Outcome.HOLDS, ""),
        (95.0, Outcome.ASIDE, "mode match of awd-lstm/softmax 95.0 %, not below 95.0 %"),
        (None, Outcome.ASIDE, "mode match of awd-lstm/softmax -, not below 95.0 %"),
    ):
        finding = only(rule, [*runs("plif", 0.5, 99.0), *runs("softmax", 0.9, modes)])
        assert (finding.outcome, finding.why) == (outcome, why)


def test_short_unfinished_and_retired_runs_are_no_evidence_of_quality() -> None:
    rule = Compare(rule="compare", heads=["mos-*"], than="softmax")
    base = seeds(60.0, 60.1, head="softmax")
    for fields in ({"scope": "short"}, {"status": "interrupted"}):
        assert list(find(rule, Evidence.of([*base, *seeds(50.0, 50.1, head="mos-15", **fields)]))) == []


def test_runs_for_the_clock_or_about_the_optimiser_say_nothing_of_quality() -> None:
    full = FullRank(rule="full-rank", heads=["mos-15"], words={"ptb": 10_000})
    for protocol, count in (("optimizer-adamw", 0), ("nt-asgd", 1)):
        assert len(find(full, Evidence.of([ranked("mos-15", 50, {}, protocol=protocol)]))) == count
    rule = Compare(rule="compare", heads=["mos-*"], than="softmax")
    for protocol in ("cost", "speed-same-batch", "precision", "optimizer-adamw"):
        records = [
            *seeds(50.0, 50.1, head="mos-15", protocol=protocol),
            *seeds(60.0, 60.1, head="softmax", protocol=protocol),
        ]
        assert list(find(rule, Evidence.of(records))) == []
        assert len(list(find(RATIO.model_copy(update={"low": 0.5}), Evidence.of(records)))) == 1


def test_the_partner_is_the_one_most_alike() -> None:
    rule = Compare(rule="compare", heads=["mos-15"], than="softmax")
    mine = {"batch_size": 12, "bptt": 35}
    records = [
        *seeds(50.0, 50.1, head="mos-15", recipe=mine),
        *seeds(60.0, 60.1, head="softmax", recipe=mine),
        *seeds(40.0, 40.1, head="softmax", recipe={"batch_size": 20}),
    ]
    assert "perplexity -10.00" in only(rule, records).text


@pytest.mark.parametrize(
    ("ours", "outcome", "why"),
    [
        ((60.0, 60.01, 59.99), Outcome.HOLDS, ""),
        ((61.0, 61.01, 60.99), Outcome.FAILS, ""),
        ((60.0, 61.0, 59.0), Outcome.OPEN, "the interval reaches beyond ± 0.5 %"),
        ((59.7, 59.75, 59.65), Outcome.OPEN, "the interval lies below zero and reaches beyond ± 0.5 %"),
        ((60.3, 60.35, 60.25), Outcome.OPEN, "the interval lies above zero and reaches beyond ± 0.5 %"),
        ((60.0,), Outcome.OPEN, ONE_SEED),
    ],
)
def test_as_well_as(ours: Sequence[float], outcome: Outcome, why: str) -> None:
    rule = Equal(rule="equal", heads=["plif-frozen"], than="plif")
    finding = only(rule, [*seeds(*ours, head="plif-frozen"), *seeds(60.0, 60.01, 59.99, head="plif")])
    assert (finding.outcome, finding.why) == (outcome, why)
    assert finding.text.endswith("; margin ± 0.30")


@pytest.mark.parametrize(
    ("ours", "outcome"),
    [
        ((1.49, 1.491, 1.489), Outcome.HOLDS),
        ((1.60, 1.601, 1.599), Outcome.HOLDS),  # worse is no gain either
        ((1.40, 1.401, 1.399), Outcome.FAILS),
        ((1.40, 1.60, 1.50), Outcome.OPEN),
    ],
)
def test_no_gain(ours: Sequence[float], outcome: Outcome) -> None:
    rule = Equal(
        rule="equal", heads=["mos-7"], than="softmax", metric="bpc", margin=0.01, or_higher=True, datasets=["text8"],
        same=["dataset", "precision"],
    )  # fmt: skip
    for dataset, count in (("text8", 1), ("ptb", 0)):
        records = [
            *seeds(*ours, metric="bpc", head="mos-7", encoder="lstm-910-510", dataset=dataset),
            *seeds(1.49, 1.491, 1.489, metric="bpc", head="softmax", encoder="lstm-1024-1024", dataset=dataset),
        ]
        assert [finding.outcome for finding in find(rule, Evidence.of(records))] == [outcome] * count


@pytest.mark.parametrize(
    ("ours", "outcome"),
    [
        ((60.0, 60.01, 59.99), Outcome.HOLDS),
        ((55.0, 55.01, 54.99), Outcome.HOLDS),  # better is as well
        ((65.0, 65.01, 64.99), Outcome.FAILS),
        ((55.0, 65.0, 60.0), Outcome.OPEN),
    ],
)
def test_as_well(ours: Sequence[float], outcome: Outcome) -> None:
    rule = Equal(rule="equal", heads=["softmax"], than="mos-15", margin=0.005, or_lower=True)
    assert only(rule, [*seeds(*ours, head="softmax"), *seeds(60.0, 60.01, 59.99, head="mos-15")]).outcome is outcome


def test_both_encoders_must_be_meant() -> None:
    rule = Equal(
        rule="equal", heads=["softmax"], than="mos-*", encoders=["matched-*"], at_most_size=1.1,
        same=["dataset", "precision"],
    )  # fmt: skip
    softmax = seeds(56.4, 56.41, head="softmax", encoder="matched-340", parameters=100)
    for encoder, count in (("matched-280", 1), ("awd-lstm", 0)):
        records = [*softmax, *seeds(56.4, 56.41, head="mos-15", encoder=encoder, parameters=100)]
        assert len(find(rule, Evidence.of(records))) == count
    larger = seeds(56.4, 56.41, head="softmax", encoder="matched-340", parameters=111)
    records = [*larger, *seeds(56.4, 56.41, head="mos-15", encoder="matched-280", parameters=100)]
    assert find(rule, Evidence.of(records)) == []


# Evidence that is there twice


def one_task(task: str, tests: Sequence[float], **fields: Any) -> list[Record]:
    return [
        *seeds(*tests, head="mos-15", task=task, protocol=task, **fields),
        *seeds(*(60 + test / 1000 for test in tests), head="softmax", task=task, protocol=task, **fields),
    ]


def test_runs_that_train_alike_are_counted_once() -> None:
    rule = Compare(rule="compare", heads=["mos-*"], than="softmax")
    five, three = (50.0, 50.1, 49.9, 50.2, 49.8), (50.0, 50.1, 49.9)
    short, long = one_task("a-demo", three), one_task("hidden", five, version=7)
    ranked = one_task("z-rank", three, stages=("train", "rank"))
    (kept,) = find(rule, Evidence.of([*short, *long, *ranked]))
    assert (kept.place, len(kept.records)) == ("ptb · hidden · train, 1 epoch", 10)
    # Other recipes, data or seeds are evidence of their own.
    for other in (
        one_task("other", three, recipe={"batch_size": 7}),
        one_task("other", three, dataset_options={"size": 2}),
        [record.model_copy(update={"seed": record.seed + 10}) for record in one_task("other", three)],
    ):
        assert len(find(rule, Evidence.of([*long, *other]))) == 2


def test_every_stage_speaks_for_itself() -> None:
    rule = Compare(rule="compare", heads=["mos-*"], than="softmax")

    def runs(task: str, *stages: str) -> list[Record]:
        return [
            make_record(head=head, seed=seed, task=task, protocol=task, stages=stages,
                        metrics={stage: {"test": {"ppl": ppl + seed / 100}} for stage in stages})
            for head, ppl in (("mos-15", 50.0), ("softmax", 60.0))
            for seed in (1, 2)
        ]  # fmt: skip

    found = find(
        rule, Evidence.of([*runs("a", "train", "finetune"), *runs("b", "train", "finetune"), *runs("c", "train")])
    )
    assert [finding.place for finding in found] == ["ptb · a · finetune", "ptb · a · train, 1 epoch"]
    # What went before the later stage is part of it.
    other = runs("d", "train", "cache", "finetune")
    places = [finding.place for finding in find(rule, Evidence.of([*runs("a", "train", "finetune"), *other]))]
    assert places == ["ptb · a · finetune", "ptb · a · train, 1 epoch", "ptb · d · cache", "ptb · d · finetune"]


# Costs


def timed(head: str, seconds: float, commit: str = "0" * 40, **fields: Any) -> Record:
    costs = {"seconds_per_epoch": seconds, **fields.pop("costs", {})}
    record = make_record(head=head, costs=costs, **fields)
    return record.model_copy(update={"provenance": record.provenance.model_copy(update={"commit": commit})})


RATIO = CostRatio(rule="cost-ratio", heads=["mos-*"], than="softmax", low=2, high=6.4)


@pytest.mark.parametrize(
    ("seconds", "outcome"), [(19.9, Outcome.FAILS), (20, Outcome.HOLDS), (64, Outcome.HOLDS), (64.1, Outcome.FAILS)]
)
def test_what_a_head_costs(seconds: float, outcome: Outcome) -> None:
    finding = only(RATIO, [timed("mos-15", seconds), timed("softmax", 10)])
    assert finding.outcome is outcome
    assert finding.text.endswith(" over 10.0 s/epoch), NVIDIA H200")


def test_costs_that_are_not_comparable() -> None:
    packed = {"costs": {"packed": True}}
    assert list(find(RATIO, Evidence.of([timed("mos-15", 30, **packed), timed("softmax", 10)]))) == []
    shared = {"costs": {"exclusive": False}}
    assert list(find(RATIO, Evidence.of([timed("mos-15", 30, **shared), timed("softmax", 10)]))) == []
    faster = only(RATIO, [timed("mos-15", 30, "a" * 40), timed("softmax", 10, "b" * 40)])
    assert (faster.outcome, faster.why) == (Outcome.OPEN, "times of different devices or versions of the code")
    same_step = {"step_code": "5" * 64}
    runs = [timed("mos-15", 30, "a" * 40), timed("softmax", 10, "b" * 40)]
    alike = [r.model_copy(update={"provenance": r.provenance.model_copy(update=same_step)}) for r in runs]
    assert only(RATIO, alike).outcome is Outcome.HOLDS, "commits that leave the training step alone are one version"
    assert alike[0].environment is not None
    upgraded = alike[0].environment.model_copy(update={"versions": {"torch": "9.0"}})
    newer = [alike[0].model_copy(update={"environment": upgraded}), alike[1]]
    assert only(RATIO, newer).outcome is Outcome.OPEN, "another torch is another step"
    elsewhere = only(RATIO, [timed("mos-15", 30), timed("softmax", 10, device="another")])
    assert elsewhere.outcome is Outcome.OPEN
    unsure = {"costs": {"exclusive": None}}
    unknown = only(RATIO, [timed("mos-15", 30, **unsure), timed("softmax", 10, **unsure)])
    assert (unknown.outcome, unknown.why) == (Outcome.OPEN, "no run could tell whether it was alone on the machine")
    elsewhere_rule = RATIO.model_copy(update={"datasets": ["wikitext-2"]})
    assert list(find(elsewhere_rule, Evidence.of([timed("mos-15", 30), timed("softmax", 10)]))) == []


def test_times_of_different_batches_are_no_evidence() -> None:
    mine = timed("mos-15", 30, recipe={"batch_size": 12})
    apart = only(RATIO, [mine, timed("softmax", 10, recipe={"batch_size": 20})])
    assert (apart.text, apart.outcome, apart.why) == (
        "mos-15 / softmax: not comparable", Outcome.OPEN, "batches of 12 and 20"
    )  # fmt: skip
    # One that is less alike, and has the batch, is the fair partner.
    fair = timed("softmax", 10, recipe={"batch_size": 12, "bptt": 35, "clip": 1.0})
    found = only(RATIO, [mine, timed("softmax", 12, recipe={"batch_size": 20}), fair])
    assert (found.outcome, found.records) == (Outcome.HOLDS, (mine, fair))


@pytest.mark.parametrize("sides", [(1, 24), (24, 1), (1, 1)])
def test_an_epoch_that_warms_up_is_no_evidence(sides: tuple[int, int]) -> None:
    records = [
        timed(head, seconds, costs={"epochs_timed": count})
        for head, seconds, count in zip(("mos-15", "softmax"), (30, 10), sides, strict=True)
    ]
    found = only(RATIO, records)
    assert (found.outcome, found.why) == (Outcome.OPEN, "the only epoch that was timed is the first, which warms up")


def test_tokens_a_second_where_no_epoch_was_whole() -> None:
    def run(head: str, speed: float) -> Record:
        return make_record(head=head, costs={"seconds_per_epoch": None, "epochs_timed": 1, "tokens_per_second": speed})

    found = only(RATIO, [run("mos-15", 1000.0), run("softmax", 3000.0)])
    assert (found.outcome, found.text) == (
        Outcome.HOLDS, "mos-15 / softmax: 3.00 times (1,000 over 3,000 tokens/s), NVIDIA H200"
    )  # fmt: skip


def test_benchmarks_are_evidence_of_costs(tmp_path: Path) -> None:
    (tmp_path / "heads.json").write_text('{"device": "D", "rows": [{"shape": "ptb", "K": 15, "ms": 2.0}]}')
    (tmp_path / "epochs.json").write_text(
        '{"device": "NVIDIA H200", "rows": ['
        '{"dataset": "ptb", "head": "softmax", "precision": "tf32", "seconds_per_epoch": 1.5},'
        '{"dataset": "ptb", "head": "mos-15", "precision": "tf32", "seconds_per_epoch": 3.6},'
        '{"dataset": "ptb", "head": "mos-15", "precision": "float32", "seconds_per_epoch": 9.0}]}'
    )
    finding = only(RATIO, [], load_benchmarks(tmp_path))
    assert (finding.place, finding.outcome) == ("ptb · epochs.json", Outcome.HOLDS)
    assert finding.text == "mos-15 / softmax: 2.40 times (3.60 over 1.50 seconds per epoch), tf32, NVIDIA H200"
    for text, said in (("{", "cannot be read as JSON: "), ("[]", 'expected an object with a list "rows"')):
        (tmp_path / "heads.json").write_text(text)
        with pytest.raises(InputError) as caught:
            load_benchmarks(tmp_path)
        assert str(caught.value).startswith(f"{tmp_path / 'heads.json'}: {said}")


# Averaging


def tracked(head: str, *values: Mapping[str, float]) -> list[Record]:
    recipe = {"averaging": {"trigger": "epoch", "epoch": 200}}
    return [
        make_record(head=head, seed=seed, metrics={"train": {"test": dict(scores)}}, recipe=recipe)
        for seed, scores in enumerate(values, 1)
    ]


@pytest.mark.parametrize(
    ("starts", "other", "outcome", "why"),
    [
        (1.0, 0.1, Outcome.HOLDS, ""),
        (-1.0, 0.1, Outcome.HOLDS, ""),
        (0.1, 1.0, Outcome.FAILS, ""),
        (0.5, 0.5, Outcome.OPEN, "the intervals of the two effects overlap"),
    ],
)
def test_the_start_of_averaging_against_the_head(starts: float, other: float, outcome: Outcome, why: str) -> None:
    rule = AveragingMatters(rule="averaging-matters", head="softmax", heads=["plif"])
    noise = (0.0, 0.01, -0.01)
    # The seeds differ by far more than the starts: the effect is paired, so that this hides nothing.
    spread = (0.0, 0.02, -0.02)
    base = [{"ppl": 60 + s, "ppl@62": 60 + s - starts + n, "ppl_raw": 70.0} for s, n in zip(spread, noise, strict=True)]
    base[1]["ppl@nt"] = 90.0  # of one seed alone: no start that the others could be set against
    heads = [{"ppl": 60 - other + s} for s in spread]
    finding = only(rule, [*tracked("softmax", *base), *tracked("plif", *heads)])
    assert (finding.outcome, finding.why) == (outcome, why)
    sign = "+" if starts > 0 else "-"
    assert finding.text.startswith(f"awd-lstm/softmax averaged from epoch 200 instead of 62: {sign}")
    base[0]["ppl@500"] = 1.0
    assert only(rule, [*tracked("softmax", *base), *tracked("plif", *heads)]).why == ONE_SEED, "the latest is 500"


def test_where_one_epoch_is_fixed_the_trigger_is_the_other_start_of_averaging() -> None:
    rule = AveragingMatters(rule="averaging-matters", head="softmax", heads=["plif"])
    heads = tracked("plif", {"ppl": 59.8}, {"ppl": 59.81})
    base = [{"ppl": 60.0, "ppl@200": 60.0, "ppl@nt": 61.0}, {"ppl": 60.01, "ppl@200": 60.01, "ppl@nt": 61.02}]
    finding = only(rule, [*tracked("softmax", *base), *heads])
    assert finding.outcome is Outcome.HOLDS
    assert finding.text.startswith(
        "awd-lstm/softmax averaged from epoch 200 instead of the non-monotone trigger: -1.01 [-1.07, -0.94]"
    )
    for scores in base:
        del scores["ppl@nt"]
    assert find(rule, Evidence.of([*tracked("softmax", *base), *heads])) == [], "one start is no comparison"


# All together

CLAIM = Claim(
    id="x",
    claim="MoS beats a softmax.",
    papers=["yang2018"],
    evidence=[Compare(rule="compare", heads=["mos-15"], than="softmax")],
)


@given(st.lists(st.sampled_from(["better", "worse", "one seed"]), max_size=4))
def test_the_verdict_follows_from_the_findings(kinds: list[str]) -> None:
    records = []
    tests = {"better": (50.0, 50.1), "worse": (70.0, 70.1), "one seed": (50.0,)}
    for index, kind in enumerate(kinds):
        place: dict[str, Any] = {"protocol": f"p{index}", "recipe": {"optimizer": {"name": "sgd", "lr": 20 + index}}}
        records += [*seeds(*tests[kind], head="mos-15", **place), *seeds(60.0, 60.1, head="softmax", **place)]
    judged = judge(CLAIM, Evidence.of(records))
    said = set(kinds) - {"one seed"}
    expected = {
        frozenset(): Judgement.UNDECIDED,
        frozenset({"better"}): Judgement.HOLDS,
        frozenset({"worse"}): Judgement.FAILS,
        frozenset({"better", "worse"}): Judgement.MIXED,
    }[frozenset(said)]
    assert judged.verdict is expected
    assert len(judged.findings) == len(kinds)
    if expected is Judgement.UNDECIDED:
        assert judged.why == (ONE_SEED if kinds else "no run of ours speaks of it yet")


def test_the_short_table_names_the_encoder_where_one_head_says_two_things_and_counts_what_was_set_aside() -> None:
    records = []
    for encoder, mos in (("wide", (50.0, 50.1, 49.9)), ("narrow", (60.0, 60.1, 59.9))):
        for head, tests in (("mos-15", mos), ("softmax", (60.0, 60.2, 59.9))):
            records += seeds(*tests, head=head, protocol="ours", encoder=encoder)

    def row(*wanted: str) -> tuple[str, str]:
        chosen = [record for record in records if record.labels.encoder in wanted]
        cells = claims_short([judge(CLAIM, Evidence.of(chosen))], load_published()).splitlines()[2].split("|")
        return cells[3].strip(), cells[4].strip()

    assert row("wide") == ("1 for", "holds on ptb (ours)")
    assert row("wide", "narrow") == ("1 for, 1 undecided", "holds on ptb (ours, wide)")
    aside = Compare(rule="compare", heads=["mos-15"], than="softmax", than_below={"ppl": 55.0})
    judged = judge(CLAIM.model_copy(update={"evidence": [aside]}), Evidence.of(records))
    assert (counted(judged), judged.verdict) == ("2 not counted", Judgement.UNDECIDED)
