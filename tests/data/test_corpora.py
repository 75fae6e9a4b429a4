from __future__ import annotations

import gzip
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_corpus import TEXTS, Lines, write_corpus

from suite.data import corpora
from suite.data.base import SPLITS, DataAccess
from suite.data.sources import CheckLine
from suite.errors import DataError, InputError

ADVICE = "Replace the file, or move it away and run 'suite data fetch tiny'"
SIZE = len(TEXTS["train"].encode())


def official_ids() -> dict[str, list[int]]:
    """The ``Corpus`` class of salesforce/awd-lstm-lm, word for word."""
    word2idx: dict[str, int] = {}
    streams = {}
    for split in SPLITS:
        ids = []
        for line in TEXTS[split].splitlines():
            for word in [*line.split(), "<eos>"]:
                ids.append(word2idx.setdefault(word, len(word2idx)))
        streams[split] = ids
    return streams


@pytest.mark.parametrize("layout", ["tiny/tiny.{split}.txt", "old/{split}.txt", "tiny.{split}.txt"])
def test_ids_are_those_of_the_official_code_in_every_layout(
    tiny: Any, tmp_path: Path, said: Lines, layout: str
) -> None:
    data = tiny().load(said.access(write_corpus(tmp_path / "data", layout)))
    assert {split: stream.tolist() for split, stream in data.streams.items()} == official_ids()
    assert data.vocabulary_size == tiny().vocabulary_size == 1 + max(max(ids) for ids in official_ids().values())
    assert data.unit == "word"
    assert said == []


def test_tokenised_once_and_mapped_after_that(tiny: Any, tmp_path: Path, said: Lines) -> None:
    access = said.access(write_corpus(tmp_path / "data"))
    for _ in range(2):
        for stream in tiny().load(access).streams.values():
            assert isinstance(stream, np.memmap)
            assert not stream.flags.writeable
    for split in SPLITS:
        (tmp_path / "data" / f"tiny/tiny.{split}.txt").unlink()
    alone = tiny().load(said.access())
    assert alone.streams["test"].tolist() == official_ids()["test"]


@pytest.mark.parametrize("name", ["train.npy", "vocabulary.json", "manifest.json"])
@pytest.mark.parametrize("how", ["flip", "truncate", "remove"])
def test_a_damaged_cache_is_made_again(
    tiny: Any, tmp_path: Path, cache: Path, said: Lines, name: str, how: str
) -> None:
    access = said.access(write_corpus(tmp_path / "data"))
    tiny().load(access)
    (folder,) = (cache / "tokenized").glob("tiny-*")
    path = folder / name
    if how == "remove":
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if how == "flip" else content[: len(content) // 2])
    for _ in range(2):
        data = tiny().load(access)
        assert {split: stream.tolist() for split, stream in data.streams.items()} == official_ids()
    without_manifest = (name, how) == ("manifest.json", "remove")
    assert said == (
        [] if without_manifest else [f"the tokenised copy of Tiny Corpus in {folder} is damaged; it is made again"]
    )
    assert sorted(p.name for p in folder.parent.iterdir()) == sorted([".tiny.lock", folder.name])


def test_what_a_killed_process_left_is_cleared(tiny: Any, tmp_path: Path, cache: Path, said: Lines) -> None:
    left = cache / "tokenized" / ".tiny-abc.tmp"
    left.mkdir(parents=True)
    (left / "train.npy").write_bytes(b"half")
    tiny().load(said.access(write_corpus(tmp_path / "data")))
    assert not left.exists()


def test_a_cache_that_cannot_be_written_only_costs_time(tiny: Any, tmp_path: Path, cache: Path, said: Lines) -> None:
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    data = tiny().load(said.access(write_corpus(tmp_path / "data")))
    assert data.streams["valid"].tolist() == official_ids()["valid"]
    assert said == [f"the tokenised Tiny Corpus was not kept in {cache / 'tokenized'}: Not a directory"]


@pytest.mark.parametrize(
    "train",
    [
        TEXTS["train"].replace("\n", "\r\n"),
        TEXTS["train"].replace("\n", "\r"),
        TEXTS["train"].removesuffix("\n"),
        TEXTS["train"].replace(" \n", "\n").replace("\n ", "\n"),
    ],
    ids=["CRLF", "CR", "no last newline", "no outer blanks"],
)
def test_the_same_tokens_are_the_same_corpus(tiny: Any, tmp_path: Path, said: Lines, train: str) -> None:
    access = said.access(write_corpus(tmp_path / "data", train=train))
    reference = tiny().load(said.access(write_corpus(tmp_path / "reference")))
    for _ in range(2):
        data = tiny().load(access)
        assert data.digests == reference.digests
        assert data.streams["train"].tolist() == official_ids()["train"]
    lines = corpora.verify("tiny", access)
    assert [(line.published, line.problem) for line in lines] == [(False, None), (True, None), (True, None)]


TRUNCATED = TEXTS["train"][: SIZE * 3 // 4]
REFUSED: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "the file is empty"),
    "blank": (" \n \n", "the file is empty"),
    "truncated": (TRUNCATED, f"truncated: {len(TRUNCATED):,} of {SIZE:,} bytes, 486 of 647 tokens"),
    "HTML": ("<!DOCTYPE html>\n<html>", "an HTML page instead of text, such as a sign-in or error page"),
    "gzip": (gzip.compress(b"text"), "a gzip file instead of text; unpack it first"),
    "LFS": ("version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer instead of the text it stands for"),
    "UTF-16": (TEXTS["train"].encode("utf-16"), "UTF-16 text; convert it to UTF-8"),
    "BOM": (TEXTS["train"].encode("utf-8-sig"), "it starts with a byte-order mark; save it as plain UTF-8"),
    "Latin-1": (b" the \xe9t\xe9 ", "not UTF-8: byte 0xe9 at offset 5"),
    "one line": ("cat " * 30_000, "a line of 120,000 bytes; the line ends were lost"),
    "huge": (b"cat\n" * 600_000, f"far too large: 2,400,000 bytes instead of {SIZE:,}"),
    "raw": (TEXTS["train"].replace("<unk>", "zebra"), "the raw variant: rare words are not replaced by <unk>"),
    "characters": (
        " ".join(TEXTS["train"].replace(" ", "_").replace("_\n", "\n")).replace("\n ", "\n"),
        "the character-level variant, one character a token",
    ),
    "upper case": (TEXTS["train"].replace("the", "The"), "not lower-cased: 15.4% of its words have capitals"),
    "untokenised": (TEXTS["train"].replace("mat", "mat,"), "not tokenised: 7.6% of its words end with a comma"),
    "blank lines": (TEXTS["train"].replace("\n", "\n\n"), "768 tokens with <eos> (242 lines) instead of 647"),
    "other words": (
        TEXTS["train"].replace("mat", "rug"),
        "as many tokens (647) but other words; it was changed or comes from another source",
    ),
    "other split": (TEXTS["valid"], "this is the valid split"),
}


@pytest.mark.parametrize(("train", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_anything_else_is_refused_with_the_reason(
    tiny: Any, tmp_path: Path, said: Lines, train: str | bytes, reason: str
) -> None:
    access = said.access(write_corpus(tmp_path / "data", train=train))
    path = tmp_path / "data/tiny/tiny.train.txt"
    with pytest.raises(DataError) as caught:
        tiny().load(access)
    assert str(caught.value) == f"{path}: not the train split of Tiny Corpus as the papers use it: {reason}. {ADVICE}"
    line, *others = corpora.verify("tiny", access)
    assert (line.path, line.problem, line.published) == (path, reason, False)
    assert [other.problem for other in others] == [None, None]


def test_a_wrong_file_is_refused_although_the_cache_could_answer(tiny: Any, tmp_path: Path, said: Lines) -> None:
    tiny().load(said.access(write_corpus(tmp_path / "good")))
    with pytest.raises(DataError, match="this is the valid split"):
        tiny().load(said.access(write_corpus(tmp_path / "bad", test=TEXTS["valid"])))


def test_all_wrong_files_are_named_at_once(tiny: Any, tmp_path: Path, said: Lines) -> None:
    access = said.access(write_corpus(tmp_path / "data", train="", valid="<html>"))
    with pytest.raises(DataError) as caught:
        tiny().load(access)
    assert [problem.where for problem in caught.value.problems] == [
        str(tmp_path / f"data/tiny/tiny.{split}.txt") for split in ("train", "valid")
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_file_is_named(tiny: Any, tmp_path: Path, said: Lines) -> None:
    access = said.access(write_corpus(tmp_path / "data"))
    (tmp_path / "data/tiny/tiny.test.txt").chmod(0)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        tiny().load(access)


def test_folders_are_searched_in_order(
    tiny: Any, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, said: Lines
) -> None:
    given, named = tmp_path / "given", tmp_path / "named"
    write_corpus(cache / "corpora")
    assert corpora.fetch("tiny", said.access()) == cache / "corpora/tiny"
    monkeypatch.setenv("SUITE_DATA", str(write_corpus(named)))
    assert corpora.fetch("tiny", said.access()) == named / "tiny"
    given.mkdir()
    assert corpora.fetch("tiny", said.access(given)) == named / "tiny"
    write_corpus(given, "old/{split}.txt")
    assert corpora.fetch("tiny", said.access(given)) == given / "old"


def test_a_folder_the_user_named_must_exist(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Lines
) -> None:
    absent = tmp_path / "absent"
    with pytest.raises(DataError) as caught:
        tiny().load(said.access(absent))
    assert str(caught.value) == f"{absent}: --data-dir: no such folder; name the one that holds the corpora"
    monkeypatch.setenv("SUITE_DATA", str(absent))
    with pytest.raises(DataError) as caught:
        tiny().load(said.access())
    assert str(caught.value) == f"{absent}: SUITE_DATA: no such folder; name the one that holds the corpora"


def test_a_part_of_a_corpus_is_not_passed_over(tiny: Any, tmp_path: Path, said: Lines) -> None:
    write_corpus(tmp_path / "data")
    for split in ("valid", "test"):
        (tmp_path / f"data/tiny/tiny.{split}.txt").unlink()
    with pytest.raises(DataError) as caught:
        tiny().load(said.access(tmp_path / "data"))
    assert str(caught.value) == (
        f"{tmp_path / 'data/tiny'}: tiny.valid.txt and tiny.test.txt missing beside tiny.train.txt; add what is missing"
    )


@pytest.mark.parametrize("act", ["load", "fetch", "verify"])
def test_offline_without_files_says_what_to_do(tiny: Any, tmp_path: Path, cache: Path, said: Lines, act: str) -> None:
    access = said.access(tmp_path)
    with pytest.raises(DataError) as caught:
        tiny().load(access) if act == "load" else getattr(corpora, act)("tiny", access)
    assert str(caught.value) == (
        f"Tiny Corpus was not found in {tmp_path}, {cache / 'corpora'}. Run 'suite data fetch tiny' where there is a "
        "network, or give --data-dir (or SUITE_DATA) a folder that holds one of: tiny/tiny.{train,valid,test}.txt, "
        "old/{train,valid,test}.txt, tiny.{train,valid,test}.txt"
    )


def test_verify_reports_sizes_and_digests(tiny: Any, tmp_path: Path, said: Lines) -> None:
    lines = corpora.verify("tiny", said.access(write_corpus(tmp_path)))
    for line, split in zip(lines, SPLITS, strict=True):
        data = TEXTS[split].encode()
        assert line == CheckLine(
            part=split,
            path=tmp_path / f"tiny/tiny.{split}.txt",
            bytes=len(data),
            tokens=len(official_ids()[split]),
            sha256=hashlib.sha256(data).hexdigest(),
            published=True,
            problem=None,
        )


def test_names_and_an_unknown_name() -> None:
    assert corpora.names() == ("ptb", "wikitext-2")
    with pytest.raises(InputError) as caught:
        corpora.verify("wikitext2", DataAccess())
    assert str(caught.value) == "unknown corpus 'wikitext2'. Did you mean 'wikitext-2'?"
