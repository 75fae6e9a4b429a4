from __future__ import annotations

import tempfile
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.data import streamed
from suite.data.base import SPLITS
from suite.data.batching import complete_columns
from suite.data.vocabulary import Vocabulary, tokenize
from suite.errors import DataError

WORDS = st.sampled_from(["the", "The", "cat", "sat", "été", "N", "<unk>", ".", "A", "a", "zebra"])
LINES = st.lists(st.lists(WORDS, max_size=6).map(" ".join), min_size=1, max_size=8)
TEXTS = st.tuples(LINES, st.booleans()).map(lambda lines: "\n".join(lines[0]) + ("\n" if lines[1] else ""))
SHARDS = st.lists(TEXTS.filter(bool), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def write(folder: Path, texts: list[str]) -> dict[str, Path]:
    paths = {f"shard-{number}": folder / f"shard-{number}" for number in range(len(texts))}
    for path, text in zip(paths.values(), texts, strict=True):
        path.write_bytes(text.encode())
    return paths


@given(SHARDS, st.integers(1, 40))
def test_the_streaming_dictionary_equals_a_naive_count(folder: Path, texts: list[str], block: int) -> None:
    counted = [streamed.count(path, block) for path in write(folder, texts).values()]
    naive = Counter(word for text in texts for word in text.lower().split() if word != "<unk>")
    assert sum((Counter(each.words) for each in counted), Counter()) == naive
    assert [each.tokens for each in counted] == [len(tokenize(text)) for text in texts]
    for size in (3, 5, 100):
        expected = sorted(naive, key=lambda word: (-naive[word], word))[: size - 2]
        for order in (counted, counted[::-1]):
            total = sum((Counter(each.words) for each in order), Counter())
            assert streamed.most_frequent(total, size).words == ("<eos>", "<unk>", *expected)


@given(SHARDS, st.integers(1, 40))
def test_ids_are_those_of_the_whole_text_whatever_the_block(folder: Path, texts: list[str], block: int) -> None:
    words = Vocabulary(["<eos>", "<unk>", "the", "cat", "."])
    for text, path in zip(texts, write(folder, texts).values(), strict=True):
        expected = [words.ids.get(token, 1) for token in tokenize(text.lower())]
        assert np.concatenate(list(streamed.encode(path, words, block))).tolist() == expected


class Killed(Exception):
    pass


def tokenise(work: Path, paths: dict[str, Path], stop: int | None = None, *, halfway: bool = False) -> list[str]:
    """Tokenise all shards but the last two as training text; dies at shard ``stop``. Returns what was said."""
    said: list[str] = []
    tokens, counts = streamed.count_shards(work, paths, set(paths), said.append)
    words = streamed.most_frequent(counts, 6)
    splits = dict(zip(reversed(paths), ("test", "valid"), strict=False))
    parts = [streamed.Part(name, splits.get(name, "train"), tokens[name]) for name in paths]  # type: ignore[arg-type]

    def encoded(part: streamed.Part) -> Iterator[streamed.Ids]:
        if part.name == f"shard-{stop}":
            if halfway:
                yield np.full(part.tokens - 1, 7, np.int32)
            raise Killed
        yield from streamed.encode(paths[part.name], words)

    streamed.write_parts(work, parts, encoded, said.append)
    streamed.finish(work, work.with_name("done"), words, {part.name: {"tokens": part.tokens} for part in parts})
    return said


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=12)
@given(st.lists(TEXTS.filter(bool), min_size=3, max_size=6), st.data(), st.booleans())
def test_interrupted_at_any_shard_it_resumes_to_the_same_bytes(
    texts: list[str], data: st.DataObject, halfway: bool
) -> None:
    stop = data.draw(st.integers(0, len(texts) - 1))
    with tempfile.TemporaryDirectory() as name:
        whole, cut = Path(name, "whole"), Path(name, "cut")
        for place in (whole, cut):
            (place / "work").mkdir(parents=True)
        paths = write(Path(name), texts)
        tokenise(whole / "work", paths)
        with pytest.raises(Killed):
            tokenise(cut / "work", paths, stop, halfway=halfway)
        assert not (cut / "done").exists()
        said = tokenise(cut / "work", paths)
        assert contents(cut / "done") == contents(whole / "done")
        # Nothing that was whole is done again.
        assert said == [f"tokenising shard-{i} ({i + 1} of {len(texts)})" for i in range(stop, len(texts))]


@given(st.lists(TEXTS.filter(lambda text: len(tokenize(text)) > 1), min_size=3, max_size=5), st.integers(1, 5))
@settings(max_examples=12)
def test_every_pair_of_neighbours_is_scored_once_across_shards(texts: list[str], columns: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        work = Path(name, "work")
        work.mkdir()
        tokenise(work, write(Path(name), texts))
        streams = streamed.load(Path(name, "done"), "the test", [].append)
        assert streams is not None
        train = [token for text in texts[:-2] for token in tokenize(text.lower())]
        assert [len(streams[split]) for split in SPLITS] == [len(train), *(len(tokenize(text)) for text in texts[-2:])]
        inputs, targets, mask = complete_columns(streams["train"], columns)
        pairs = list(zip(inputs.T[mask.T].tolist(), targets.T[mask.T].tolist(), strict=True))
        assert pairs == list(zip(streams["train"][:-1].tolist(), streams["train"][1:].tolist(), strict=True))


def test_a_part_that_was_damaged_after_it_was_marked_is_made_again(tmp_path: Path) -> None:
    paths = write(tmp_path, ["a b c\n", "d e\n", "a\n", "b\n"])
    (tmp_path / "work").mkdir()
    with pytest.raises(Killed):
        tokenise(tmp_path / "work", paths, 2)
    damaged = np.load(tmp_path / "work/train.npy", mmap_mode="r+")
    damaged[1] += 1
    del damaged
    assert tokenise(tmp_path / "work", paths)[0] == "tokenising shard-0 (1 of 4)"


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    words = [f"word{number}" for number in range(500)]
    peaks = []
    for lines in (4_000, 16_000):
        text = "\n".join(" ".join(words[i] for i in row) for row in rng.integers(0, 500, (lines, 10))) + "\n"
        path = tmp_path / f"{lines}"
        path.write_text(text)
        tokens = 11 * lines
        del text
        (tmp_path / f"work-{lines}").mkdir()
        tracemalloc.start()
        counted = streamed.count(path, 1 << 16)
        dictionary = streamed.most_frequent(counted.words, 100)
        streamed.write_parts(
            tmp_path / f"work-{lines}",
            [streamed.Part(split, split, tokens) for split in SPLITS],
            lambda _part, path=path, words=dictionary: streamed.encode(path, words, 1 << 16),  # type: ignore[misc]
            [].append,
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert counted.tokens == tokens
    # The larger corpus has 16,000 x 11 tokens a split: 0.7 MB as int32, 1.3 MB as text, over 10 MB as Python words.
    assert peaks[1] < 1.2 * peaks[0]
    assert peaks[1] < 4e6


def test_the_counts_of_one_shard_are_held_at_a_time(tmp_path: Path) -> None:
    text = " ".join(f"word{number}" for number in range(5_000))
    peaks = []
    for shards in (2, 8):
        work = tmp_path / f"{shards}"
        work.mkdir()
        paths = write(work, [text] * shards)
        tracemalloc.start()
        tokens, counts = streamed.count_shards(work, paths, {"shard-0"}, [].append)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        # Shards that are not for training are measured and their words left out.
        assert set(tokens.values()) == {5_001}
        assert counts == Counter(text.split())
    assert peaks[1] < 1.1 * peaks[0]


def test_a_shard_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        streamed.write_parts(
            tmp_path, [streamed.Part("news-1", "train", 3)], lambda _: iter([np.zeros(5, np.int32)]), [].append
        )
    assert str(caught.value) == "news-1: 5 tokens instead of 3; the file changed while it was read"


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "shard").write_bytes(b"fine\n\xe9t\xe9\n")
    with pytest.raises(DataError) as caught:
        streamed.count(tmp_path / "shard")
    assert str(caught.value) == f"{tmp_path / 'shard'}: not UTF-8: byte 0xe9; replace the file"
