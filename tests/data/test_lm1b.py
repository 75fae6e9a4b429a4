from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from tiny_corpus import Lines

from suite.data import corpora, lm1b
from suite.data.base import SPLITS, Split
from suite.data.download import Patience, _unpack_all, _Unusable  # type: ignore[attr-defined]
from suite.data.lm1b import OneBillionWord, Shard, ShardedCorpus
from suite.errors import DataError, InputError

TEXTS: dict[str, tuple[Split, str]] = {
    "news-1": ("train", "The cat sat on the mat .\nA dog sat .\n"),
    "news-2": ("train", "The dog saw a cat .\n"),
    "held-0": ("valid", "The zebra sat .\n"),
    "held-1": ("test", "A dog saw the mat .\nThe end\n"),
}


class Tiny(OneBillionWord):
    corpus = ShardedCorpus(
        name="tiny-billion",
        title="Tiny Billion",
        shards=tuple(
            Shard(split, f"deep/{name}", hashlib.md5(text.encode()).hexdigest())
            for name, (split, text) in TEXTS.items()
        ),
        layouts=("tiny/{path}", "flat/{name}"),
    )


def write(folder: Path, layout: str = "tiny/deep/{}", **texts: str) -> Path:
    for name, (_, text) in TEXTS.items():
        path = folder / layout.format(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(texts.get(name.replace("-", "_"), text))
    return folder


@pytest.mark.parametrize("layout", ["tiny/deep/{}", "flat/{}"])
@pytest.mark.usefixtures("cache")
def test_lower_cased_with_the_most_frequent_words_of_the_training_shards(
    tmp_path: Path, said: Lines, layout: str
) -> None:
    data = Tiny(vocabulary=8).load(said.access(write(tmp_path / "data", layout)))
    # Counts: the 3, "." 3, then a, cat, dog, sat twice each, cut after eight.
    words = ["<eos>", "<unk>", ".", "the", "a", "cat", "dog", "sat"]
    known = {word: index for index, word in enumerate(words)}
    for split in SPLITS:
        text = "".join(text for part, text in TEXTS.values() if part == split)
        tokens = [token for line in text.lower().splitlines() for token in [*line.split(), "<eos>"]]
        assert data.streams[split].tolist() == [known.get(token, 1) for token in tokens]
        assert isinstance(data.streams[split], np.memmap)
        assert data.streams[split].dtype == np.int32
        assert not data.streams[split].flags.writeable
    assert data.vocabulary_size == 8
    assert data.unit == "word"


def test_tokenised_once_with_counts_and_digests_of_every_shard(tmp_path: Path, cache: Path, said: Lines) -> None:
    access = said.access(write(tmp_path / "data"))
    first = Tiny(vocabulary=8).load(access)
    assert said[0] == "counting words: news-1 (1 of 4)"
    said.clear()
    again = Tiny(vocabulary=8).load(access)
    assert said == []
    assert again.digests == first.digests
    (folder,) = (cache / "tokenized").glob("tiny-billion-*")
    assert sorted(path.name for path in folder.iterdir()) == [
        "manifest.json",
        "parts.json",
        "test.npy",
        "train.npy",
        "valid.npy",
        "vocabulary.json",
    ]
    facts = json.loads((folder / "parts.json").read_text())
    assert [(name, fact["split"], fact["tokens"]) for name, fact in facts.items()] == [
        ("news-1", "train", 13),
        ("news-2", "train", 7),
        ("held-0", "valid", 5),
        ("held-1", "test", 10),
    ]
    for split in SPLITS:
        assert first.digests[split] == hashlib.sha256((folder / f"{split}.npy").read_bytes()).hexdigest()
    # A dictionary of another size is another corpus.
    Tiny(vocabulary=6).load(access)
    assert len(list((cache / "tokenized").glob("tiny-billion-*"))) == 2


def test_a_damaged_copy_is_made_again(tmp_path: Path, cache: Path, said: Lines) -> None:
    access = said.access(write(tmp_path / "data"))
    expected = Tiny(vocabulary=8).load(access).streams["train"].tolist()
    (folder,) = (cache / "tokenized").glob("tiny-billion-*")
    content = (folder / "train.npy").read_bytes()
    (folder / "train.npy").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    said.clear()
    assert Tiny(vocabulary=8).load(access).streams["train"].tolist() == expected
    assert said[0] == f"the tokenised copy of Tiny Billion in {folder} is damaged; it is made again"


@pytest.mark.usefixtures("cache")
def test_a_wrong_shard_is_refused_by_its_published_digest(tmp_path: Path, said: Lines) -> None:
    access = said.access(write(tmp_path / "data", news_2="other words\n"))
    found = hashlib.md5(b"other words\n").hexdigest()
    problem = f"not news-2 as published: md5 {found} instead of {Tiny.corpus.shards[1].md5}"
    with pytest.raises(DataError) as caught:
        Tiny(vocabulary=8).load(access)
    path = tmp_path / "data/tiny/deep/news-2"
    assert str(caught.value) == f"{path}: {problem}. Replace the file, or move it away"
    lines = lm1b.verify(Tiny.corpus, access)
    assert [(line.part, line.problem, line.published) for line in lines] == [
        ("train news-1", None, True),
        ("train news-2", problem, False),
        ("valid held-0", None, True),
        ("test held-1", None, True),
    ]


@pytest.mark.usefixtures("cache")
def test_too_few_types_for_the_dictionary(tmp_path: Path, said: Lines) -> None:
    with pytest.raises(DataError) as caught:
        Tiny(vocabulary=50).load(said.access(write(tmp_path / "data")))
    assert str(caught.value) == (
        "Tiny Billion: its training shards have 11 types with <eos> and <unk>, fewer than the vocabulary of 50; give "
        "vocabulary: 11 or less"
    )
    with pytest.raises(InputError) as problem:
        Tiny(vocabulary=2)
    assert str(problem.value) == "vocabulary: 2 leaves no word beside <eos> and <unk>; give at least 3"


def test_what_to_say_when_it_is_not_there(tmp_path: Path, cache: Path, said: Lines) -> None:
    with pytest.raises(DataError) as caught:
        Tiny(vocabulary=8).load(said.access(tmp_path))
    assert str(caught.value) == (
        f"Tiny Billion was not found in {tmp_path}, {cache / 'corpora'}. Give --data-dir (or SUITE_DATA) a folder that "
        "holds one of: tiny/deep/news-1, flat/news-1 (the first of 4 files; held-1 is the last)"
    )
    write(tmp_path / "data")
    for name in ("news-1", "news-2", "held-0"):
        (tmp_path / f"data/tiny/deep/{name}").unlink()
    with pytest.raises(DataError) as part:
        Tiny(vocabulary=8).load(said.access(tmp_path / "data"))
    assert str(part.value) == (
        f"{tmp_path / 'data/tiny/deep'}: news-1 and news-2 and held-0 missing beside held-1; add what is missing"
    )
    with pytest.raises(DataError, match=r"was not found in .* Run 'suite data fetch lm1b' where there is a network"):
        corpora.fetch("lm1b", said.access(tmp_path))


def test_a_disk_that_cannot_be_written_says_what_to_do(tmp_path: Path, cache: Path, said: Lines) -> None:
    folder = lm1b.tokenized_folder(Tiny.corpus, 8)
    folder.parent.mkdir(parents=True)
    folder.with_name(f".{folder.name}.work").write_text("a file where the folder should be")
    with pytest.raises(DataError) as caught:
        Tiny(vocabulary=8).load(said.access(write(tmp_path / "data")))
    assert str(caught.value) == (
        f"{cache / 'tokenized'}: the tokenised Tiny Billion cannot be written: File exists; free some space, or set "
        "XDG_CACHE_HOME to a disk that has it, and repeat the command: it goes on where it stopped"
    )


def test_the_shards_are_those_of_the_paper() -> None:
    shards = OneBillionWord.corpus.shards
    assert len({shard.md5 for shard in shards}) == len({shard.path for shard in shards}) == len(shards) == 104
    names = {split: [shard.name for shard in shards if shard.split == split] for split in SPLITS}
    assert names["train"] == [f"news.en-{number:05d}-of-00100" for number in range(1, 100)]
    assert names["valid"] == [f"news.en.heldout-{number:05d}-of-00050" for number in (0, 10)]
    assert names["test"] == [f"news.en.heldout-{number:05d}-of-00050" for number in (20, 30, 40)]


def test_chosen_members_are_unpacked_in_one_pass(tmp_path: Path) -> None:
    archive = tmp_path / "archive.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("./top/a", "top/other", "top/b"):
            info = tarfile.TarInfo(name)
            info.size = len(name)
            tar.addfile(info, io.BytesIO(name.encode()))
    places = {"top/a": tmp_path / "x/a", "top/b": tmp_path / "y/b"}
    _unpack_all(archive, places, tmp_path / "member", Patience())
    assert [path.read_text() for path in places.values()] == ["./top/a", "top/b"]
    assert not (tmp_path / "member").exists()
    with pytest.raises(_Unusable, match="the archive has no top/c"):
        _unpack_all(archive, {"top/c": tmp_path / "c"}, tmp_path / "member", Patience())
    archive.write_bytes(archive.read_bytes()[:60])
    with pytest.raises(_Unusable, match="the archive is damaged: "):
        _unpack_all(archive, {"top/b": tmp_path / "c"}, tmp_path / "member", Patience())
