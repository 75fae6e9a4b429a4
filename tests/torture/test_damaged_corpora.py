"""A corpus that is not what it should be is refused with a reason, wherever it comes from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from mutation import damaged
from tallies import Tally, times
from tiny_corpus import TEXTS, Lines, make_corpus, write_corpus

from suite.data import corpora
from suite.data.base import DataAccess
from suite.errors import DataError


def test_no_damage_of_a_corpus_goes_unnoticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Callable[[str, str], Tally]
) -> None:
    how = "cut, bits flipped, doubled, other encodings, lines of 10 MB; lost: other words taken, or no reason given"
    row = tally("a damaged corpus", how)

    class Tiny(corpora.PennTreebank):
        corpus = make_corpus()

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SUITE_DATA", raising=False)
    said = Lines()

    def words(access: DataAccess) -> dict[str, list[int]]:
        return {split: stream.tolist() for split, stream in Tiny().load(access).streams.items()}

    whole = words(said.access(write_corpus(tmp_path)))
    raw = TEXTS["train"].encode()
    refused = 0
    for number in range(times(100, 5000)):
        access = said.access(write_corpus(tmp_path, train=damaged(Random(number), raw)))
        row.tried += 1
        try:
            found = words(access)
        except DataError as error:
            refused += 1
            (problem,) = error.problems
            row.lost += "not the train split of Tiny Corpus as the papers use it: " not in problem.message
        else:
            row.lost += found != whole
    assert row.lost == 0
    assert refused > row.tried // 2
