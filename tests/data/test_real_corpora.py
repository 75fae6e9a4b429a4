"""The real corpora, where SUITE_DATA says they are; nothing of them is kept here."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from suite.data import corpora, lm1b, text8
from suite.data.base import SPLITS, DataAccess, Dataset

pytestmark = pytest.mark.skipif(not os.environ.get("SUITE_DATA"), reason="SUITE_DATA names no data folder")

KNOWN = {
    "ptb": (corpora.PennTreebank, (929_589, 73_760, 82_430), 10_000, 9_999),
    "wikitext-2": (corpora.WikiText2, (2_088_628, 217_646, 245_569), 33_278, 33_277),
}


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize("name", KNOWN)
def test_counts_and_dictionary_are_the_papers(name: str) -> None:
    kind, tokens, types, last = KNOWN[name]
    dataset: Dataset = kind()
    began = time.monotonic()
    first = dataset.load(DataAccess(offline=True))
    seconds = time.monotonic() - began
    again = dataset.load(DataAccess(offline=True))
    for data in (first, again):
        assert tuple(len(data.streams[split]) for split in SPLITS) == tokens
        assert data.vocabulary_size == dataset.vocabulary_size == types
    assert first.streams["train"].max() == last
    # Ids are dense and in order of first appearance: the running maximum never jumps.
    whole = np.concatenate([first.streams[split] for split in SPLITS])
    assert set(np.diff(np.maximum.accumulate(whole)).tolist()) == {0, 1}
    assert seconds < 20


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize("name", KNOWN)
def test_verify_finds_the_published_files(name: str) -> None:
    lines = corpora.verify(name, DataAccess(offline=True))
    assert [(line.problem, line.published) for line in lines] == [(None, True)] * 3
    assert tuple(line.tokens for line in lines) == KNOWN[name][1]


@pytest.mark.usefixtures("empty_cache")
def test_the_sample_of_one_billion_word_has_the_published_shards() -> None:
    access = DataAccess(offline=True)
    assert [(line.problem, line.published) for line in corpora.verify("lm1b-sample", access)] == [(None, True)] * 4
    data = lm1b.OneBillionWordSample(vocabulary=5000).load(access)
    assert [len(data.streams[split]) for split in SPLITS] == [161_828 + 160_878, 156_753, 161_533]
    assert [int((data.streams[split] == 0).sum()) for split in SPLITS] == [6_111 + 6_105, 5_986, 6_119]
    assert data.streams["train"].max() == 4999
    # Ids follow falling frequency in the training shards, <eos> and <unk> aside.
    counts = np.bincount(data.streams["train"], minlength=5000)[2:]
    assert (np.diff(counts) <= 0).all()


@pytest.mark.usefixtures("empty_cache")
def test_the_sample_of_text8_is_27_symbols() -> None:
    data = text8.Text8Sample().load(DataAccess(offline=True))
    assert [len(data.streams[split]) for split in SPLITS] == [2_250_000, 125_000, 125_000]
    assert data.digests["text8-sample"] == text8.Text8Sample.source.sha256
    assert set(np.unique(data.streams["train"])) == set(range(27))
