"""Claims of the papers, ``baselines/claims.yaml``: each in one sentence, with the evidence that decides it.

What a rule means is in :mod:`suite.report.findings`; heads are named by their labels, globs allowed.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from suite.errors import InputError, Problem, raise_all
from suite.records.published import BASELINES, CLAIMS, Published
from suite.report.pairing import Share
from suite.spec.explain import choices, dotted, shown, validate
from suite.spec.recipe import Strict
from suite.spec.types import NonNegativeFloat, PositiveFloat, PositiveInt
from suite.spec.yaml_source import Node, parse, read_text

Text = Annotated[str, Field(min_length=1)]
Same = Annotated[list[Share], Field(description="what the two must share beside protocol and stage")]
_SAME: list[Share] = ["dataset", "encoder-label", "precision"]
Size = Annotated[
    PositiveFloat | None,
    Field(description="parameters of the head's model over the other's, at most; other pairs do not count"),
]
Heads = Annotated[list[Text], Field(min_length=1, description="labels of heads, globs allowed")]


class RankAtMost(Strict):
    """Every run's rank is at most d + 1, and one more where the logits have a bias."""

    rule: Literal["rank-at-most"]
    heads: Heads
    metric: Text = "rank"


class RankAbove(Strict):
    """Every run's rank is above d + 1, and above one more where the logits have a bias."""

    rule: Literal["rank-above"]
    heads: Heads
    metric: Text = "rank"


class FullRank(Strict):
    """Every run's rank is at least ``share`` of the number of words (or of contexts, where those are fewer)."""

    rule: Literal["full-rank"]
    heads: Heads
    words: dict[str, PositiveInt] = Field(description="number of words by dataset label")
    metric: Text = "rank"
    share: PositiveFloat = 0.99


class _Pair(Strict):
    """Two heads, and where they are compared."""

    heads: Heads
    than: Text
    metric: Text = "ppl"
    same: Same = Field(_SAME)
    at_most_size: Size = None
    datasets: list[Text] = Field(["*"], description="labels of datasets, globs allowed")
    encoders: list[Text] = Field(["*"], description="labels of the encoders of both, globs allowed")


class Compare(_Pair):
    """Welch's interval of the difference of two heads' means lies wholly on the better side of zero."""

    rule: Literal["compare"]
    better: Literal["lower", "higher"] = "lower"
    than_below: dict[str, PositiveFloat] = Field(
        {}, description="the other's mean by metric lies below; other pairs are shown and do not count"
    )


class Equal(_Pair):
    """Welch's interval of the difference of two heads' means lies wholly within ``margin`` of the other's mean."""

    rule: Literal["equal"]
    margin: PositiveFloat = 0.005
    or_higher: bool = Field(False, description="only an interval below the margin speaks against it: no gain")
    or_lower: bool = Field(False, description="only an interval above the margin speaks against it: as well, or better")


class _RankAndGain(Strict):
    """Ranks and means beside those of another head; a higher rank is ``times`` the other's at least.

    That something is not needed, or is not enough, is shown by one example and refuted by none: nothing speaks against
    it, and a higher rank with a lower mean leaves it undecided.
    """

    heads: Heads
    than: Text
    metric: Text = "ppl"
    rank: Text = "rank"
    times: PositiveFloat = 2.0
    same: Same = Field(_SAME)
    at_most_size: Size = None


class RankNotSufficient(_RankAndGain):
    """A head of a higher rank than the other's has a higher mean, by Welch's interval; one such head is enough."""

    rule: Literal["rank-not-sufficient"]


class RankNotNecessary(_RankAndGain):
    """A head of no higher rank than the other's has a lower mean, by Welch's interval; one such head is enough."""

    rule: Literal["rank-not-necessary"]


class CostRatio(Strict):
    """Time over the other head's lies between ``low`` and ``high``: same batch, same device, same version of the code.

    Seconds an epoch, the first epoch left out, or tokens a second turned round. Runs count that had the
    machine alone, and the rows of ``results/benchmarks/*.json`` that name head and dataset.
    """

    rule: Literal["cost-ratio"]
    heads: Heads
    than: Text
    low: NonNegativeFloat
    high: PositiveFloat
    datasets: list[Text] = Field(["*"], description="labels of datasets, globs allowed")
    same: Same = Field(_SAME)


class AveragingMatters(Strict):
    """Moving the start of averaging against the head: from the earliest epoch that a task file fixes to its latest.

    Where it fixes one, from the non-monotone trigger to that. It changes one head's metric at least as much as
    changing the head does.
    """

    rule: Literal["averaging-matters"]
    head: Text
    heads: Heads
    metric: Text = "ppl"
    same: Same = Field(_SAME)


Rule = (
    RankAtMost
    | RankAbove
    | FullRank
    | Compare
    | Equal
    | RankNotSufficient
    | RankNotNecessary
    | CostRatio
    | AveragingMatters
)


class Claim(Strict):
    """One claim: a sentence, the papers that make it, and the rules that decide it together."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    claim: Text
    papers: Annotated[list[Text], Field(min_length=1)]
    evidence: Annotated[list[Annotated[Rule, Field(discriminator="rule")]], Field(min_length=1)]
    note: str = ""


def load_claims(published: Iterable[Published], path: Path | None = None) -> list[Claim]:
    """The claims in their file's order (``baselines/claims.yaml`` by default).

    Raises:
        InputError: every problem of the file, each with line and column: a paper that no published number knows, an
            identifier used twice, an unknown rule, an option that a rule has not.
    """
    where = BASELINES / CLAIMS if path is None else path
    root, problems = parse(read_text(where, name := f"baselines/{CLAIMS}" if path is None else str(path)), name)
    if not isinstance(root.value, dict) or not isinstance(getattr(root.value.get("claims"), "value", None), list):
        raise InputError(*problems, Problem("expected a mapping with a list of claims", root.where, "claims"))
    for key in root.value.keys() - {"claims"}:
        problems.append(Problem("unknown key. Allowed: claims.", root.where_key(key), key))
    papers = {number.paper.key for number in published}
    found: dict[str, Claim] = {}
    for index, node in enumerate(root.value["claims"].value):
        key = dotted("claims", index)
        claim, more = _read(node, key)
        problems += more
        if claim is None:
            continue
        if claim.id in found:
            problems.append(Problem(f"{shown(claim.id)} is used already", node.value["id"].where, f"{key}.id"))
        for place, paper in enumerate(claim.papers):
            if paper not in papers:
                at = node.value["papers"].value[place].where
                text = f"no file in baselines/ describes {shown(paper)}.{choices(paper, papers)}"
                problems.append(Problem(text, at, dotted(key, "papers", place)))
        found[claim.id] = claim
    raise_all(problems)
    return list(found.values())


def _read(node: Node, key: str) -> tuple[Claim | None, list[Problem]]:
    if not isinstance(node.value, dict):
        return None, [Problem(f"expected a mapping, got {shown(node.plain())}", node.where, key)]
    return validate(Claim, node, key)
