from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_corpus import Lines

from suite.data import corpora, text8
from suite.data.base import SPLITS
from suite.data.switchboard import Switchboard, unavailable
from suite.data.text8 import SYMBOLS, Text8, Text8Sample
from suite.errors import DataError
from suite.records.published import load_published

TEXT = (" the quick brown fox jumps over the lazy dog" * 10)[:400]


class Tiny(Text8):
    source = replace(
        Text8.source,
        name="tiny8",
        title="tiny text8",
        characters=400,
        layouts=("tiny8/tiny8", "tiny8.txt"),
        sha1=hashlib.sha1(TEXT.encode()).hexdigest(),
        archive=None,
        hint="Give",
    )


class Sample(Tiny):
    source = replace(
        Tiny.source,
        name="tiny8-sample",
        title="the sample",
        sha1=None,
        sha256=hashlib.sha256(TEXT.encode()).hexdigest(),
    )


def write(folder: Path, text: str = TEXT) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "tiny8.txt").write_text(text)
    return folder


@pytest.mark.usefixtures("cache")
def test_split_90_5_5_in_order_and_every_symbol_has_its_id(tmp_path: Path, said: Lines) -> None:
    data = Tiny().load(said.access(write(tmp_path / "data")))
    assert [len(data.streams[split]) for split in SPLITS] == [360, 20, 20]
    whole = np.concatenate([data.streams[split] for split in SPLITS])
    assert "".join(SYMBOLS[i] for i in whole) == TEXT
    assert whole.dtype == np.int32
    assert data.vocabulary_size == Tiny().vocabulary_size == 27
    assert data.unit == "character"
    assert data.digests["tiny8"] == hashlib.sha256(TEXT.encode()).hexdigest()
    said.clear()
    again = Tiny().load(said.access(tmp_path / "data"))
    assert isinstance(again.streams["train"], np.memmap)
    assert said == []


def test_the_split_of_the_whole_is_the_papers() -> None:
    assert Text8.source.sizes() == {"train": 90_000_000, "valid": 5_000_000, "test": 5_000_000}
    assert Text8Sample.source.sizes() == {"train": 2_250_000, "valid": 125_000, "test": 125_000}


OTHER = TEXT.replace("fox", "cat")
REFUSED = {
    "upper case": (TEXT.replace("fox", "Fox"), "byte 0x46 at offset 17 is none of the 27 symbols"),
    "newline": (TEXT[:-1] + "\n", "byte 0x0a at offset 399 is none of the 27 symbols"),
    "sample": (TEXT[:40], "not tiny text8: 40 bytes instead of 400; a sample is the dataset text8-sample"),
    "other": (
        OTHER,
        f"not tiny text8 as published: sha1 {hashlib.sha1(OTHER.encode()).hexdigest()} instead of {Tiny.source.sha1}",
    ),
}


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(("text", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_anything_else_is_refused_with_the_reason(tmp_path: Path, said: Lines, text: str, reason: str) -> None:
    access = said.access(write(tmp_path / "data", text))
    for act in (lambda: Tiny().load(access), lambda: text8.fetch(Tiny.source, access)):
        with pytest.raises(DataError) as caught:
            act()
        assert str(caught.value) == f"{tmp_path / 'data/tiny8.txt'}: {reason}. Replace the file, or move it away"
    (line,) = text8.verify(Tiny.source, access)
    assert (line.problem, line.published) == (reason, False)


@pytest.mark.usefixtures("cache")
def test_a_sample_never_counts_as_published(tmp_path: Path, said: Lines) -> None:
    access = said.access(write(tmp_path / "data"))
    (line,) = text8.verify(Sample.source, access)
    assert (line.problem, line.published, line.tokens) == (None, False, 400)
    assert line.basis == "right size and symbols; its sha256 is the known one, and none is published"
    write(tmp_path / "data", OTHER)
    (line,) = text8.verify(Sample.source, access)
    assert line.basis == "right size and symbols; its sha256 is another than the known one, and none is published"
    # Another text is another tokenised copy.
    assert Sample().load(access).streams["train"].tolist() == [SYMBOLS.index(c) for c in OTHER[:360]]
    (published,) = text8.verify(Tiny.source, said.access(write(tmp_path / "whole")))
    assert (published.published, published.basis) == (True, None)


def test_what_to_say_when_it_is_not_there(tmp_path: Path, cache: Path, said: Lines) -> None:
    with pytest.raises(DataError) as caught:
        corpora.fetch("text8", said.access(tmp_path))
    assert str(caught.value) == (
        f"text8 was not found in {tmp_path}, {cache / 'corpora'}. Run 'suite data fetch text8' where there is a "
        "network, or give --data-dir (or SUITE_DATA) a folder that holds one of: text8/text8, text8"
    )
    with pytest.raises(DataError) as caught:
        corpora.verify("text8-sample", said.access(tmp_path))
    assert str(caught.value) == (
        f"the sample of text8 was not found in {tmp_path}, {cache / 'corpora'}. Make it from the whole file with 'head "
        "-c 2500000 text8 > text8.first2500000', and give --data-dir (or SUITE_DATA) a folder that holds one of: "
        "text8/text8.first2500000, text8-sample/text8.first2500000, text8.first2500000"
    )


@pytest.mark.parametrize("act", ["load", "verify", "fetch"])
def test_switchboard_says_what_a_user_must_supply(tmp_path: Path, said: Lines, act: str) -> None:
    access = said.access(tmp_path)
    with pytest.raises(DataError) as caught:
        Switchboard().load(access) if act == "load" else getattr(corpora, act)("switchboard", access)
    assert str(caught.value) == (
        "data not available: Switchboard is licensed by the Linguistic Data Consortium (LDC97S62) and cannot be "
        "downloaded. Table 4 of Yang et al. 2018 needs the corpus from there, the dialogue preprocessing of "
        "github.com/snakeztc/NeuralDialog-CVAE, and its train, valid and test dialogues as "
        "DATA_DIR/switchboard/{train,valid,test}.jsonl, one dialogue a line; it also needs a sequence-to-sequence "
        "model and beam search, which this suite does not have, so supplying the data alone does not fill the row"
    )


def test_the_table_says_the_same() -> None:
    needed = {number.unavailable for number in load_published() if number.dataset == "switchboard"}
    (text,) = needed
    assert text is not None
    same = text.partition("licensed), ")[2]
    assert same.startswith("the dialogue preprocessing of ")
    assert str(unavailable()).endswith(f"needs the corpus from there, {same}")
