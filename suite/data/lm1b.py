"""One Billion Word (Chelba et al. 2014) as Yang et al. 2018 used it, and a small sample for trying things."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from suite.data import streamed, tokenized
from suite.data.base import DataAccess, Split, TextData
from suite.data.download import Patience, download_archive
from suite.data.lm1b_digests import HELDOUT, TRAINING
from suite.data.sources import CheckLine, absent, cache_folder, download_folder, file_digests, first_complete
from suite.errors import DataError, InputError, Problem
from suite.spec.types import PositiveInt

_ARCHIVE = "http://www.statmt.org/lm-benchmark/1-billion-word-language-modeling-benchmark-r13output.tar.gz"
_TOP = "1-billion-word-language-modeling-benchmark-r13output"
# Four gigabytes of text in an archive of 1.7 GB.
_PATIENCE = Patience(total=6 * 3600.0, most_bytes=4 << 30)


@dataclass(frozen=True)
class Shard:
    """One file of the benchmark: ``path`` as in its archive, and its published md5."""

    split: Split
    path: str
    md5: str

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class ShardedCorpus:
    """A corpus that comes in shards, the layouts it may lie in, and the archive that holds it, if there is one.

    ``layouts`` are templates of a shard's place with ``{path}`` (as in the archive) or ``{name}``.
    """

    name: str
    title: str
    shards: Sequence[Shard]
    layouts: Sequence[str]
    archive: str | None = None

    def files(self, layout: str, folder: Path) -> dict[str, Path]:
        """The place of each shard under ``folder``, by the shard's name."""
        return {shard.name: folder / layout.format(path=shard.path, name=shard.name) for shard in self.shards}

    def locate(self, access: DataAccess) -> dict[str, Path] | None:
        """The shards in the first folder that has them all, else None."""
        return first_complete(lambda folder: [self.files(layout, folder) for layout in self.layouts], access)

    def not_found(self, access: DataAccess) -> DataError:
        """What to say when no folder holds the shards."""
        first, last = self.shards[0], self.shards[-1]
        layouts = [layout.format(path=first.path, name=first.name) for layout in self.layouts]
        wanted = f"{', '.join(layouts)} (the first of {len(self.shards)} files; {last.name} is the last)"
        advice = f"Run 'suite data fetch {self.name}' where there is a network, or give" if self.archive else "Give"
        return absent(self.title, advice, wanted, access)


def _training(number: int) -> Shard:
    path = f"training-monolingual.tokenized.shuffled/news.en-{number:05d}-of-00100"
    return Shard("train", path, TRAINING[number - 1])


def _heldout(split: Split, number: int) -> Shard:
    path = f"heldout-monolingual.tokenized.shuffled/news.en.heldout-{number:05d}-of-00050"
    return Shard(split, path, HELDOUT[number])


class OneBillionWord:
    """One Billion Word, lower-cased, with the most frequent words of the training shards (Yang et al. 2018, table 3).

    Train: the archive's 99 training shards (the hundredth is what its held-out shards were cut from); valid: held-out
    shards 0 and 10; test: 20, 30 and 40; so not the usual test set. Sentences in the order of the files, ``<eos>``
    after each. ``vocabulary`` counts ``<eos>`` and ``<unk>``; which words the paper kept is not told, here it is the
    most frequent of the training shards, ties by spelling. Nothing is held in memory but the counts of the words.
    """

    corpus: ClassVar[ShardedCorpus] = ShardedCorpus(
        name="lm1b",
        title="One Billion Word",
        shards=(
            *(_training(number) for number in range(1, 100)),
            *(_heldout("valid", number) for number in (0, 10)),
            *(_heldout("test", number) for number in (20, 30, 40)),
        ),
        layouts=("lm1b/{path}", f"{_TOP}/{{path}}", f"lm1b/{_TOP}/{{path}}", "{path}"),
        archive=_ARCHIVE,
    )
    contexts: int | None = None

    def __init__(self, *, vocabulary: PositiveInt = 100_000) -> None:
        if vocabulary < 3:
            raise InputError(f"vocabulary: {vocabulary} leaves no word beside <eos> and <unk>; give at least 3")
        self.vocabulary_size = vocabulary

    def load(self, access: DataAccess) -> TextData:
        """Memory-mapped streams of word ids; the shards are tokenised once, resumably, into the user's cache.

        Raises:
            DataError: shards are missing or damaged, the cache cannot be written, or there are too few words.
        """
        corpus, size = self.corpus, self.vocabulary_size
        folder = tokenized_folder(corpus, size)
        streams = streamed.load(folder, corpus.title, access.say)
        if streams is None:
            files = corpus.locate(access) or _download(corpus, access)
            folder.parent.mkdir(parents=True, exist_ok=True)
            with streamed.workplace(folder, corpus.title) as work:
                # Another process may have made it while this one waited for the lock.
                streams = streamed.load(folder, corpus.title, access.say)
                if streams is None:
                    _check(corpus, files)
                    _tokenize(corpus, files, size, work, folder, access)
                    streams = streamed.load(folder, corpus.title, access.say)
        if streams is None:
            raise DataError(Problem(f"the tokenised {corpus.title} changed while it was read; try again", str(folder)))
        return TextData(streams=streams, vocabulary_size=size, digests=streamed.digests(folder))


class OneBillionWordSample(OneBillionWord):
    """Four held-out shards of One Billion Word, for tests and smoke runs; no number of it compares with any other.

    Train: held-out shards 10 and 11; valid: 12; test: 13; otherwise as ``lm1b``, through the same code.
    """

    corpus = ShardedCorpus(
        name="lm1b-sample",
        title="the sample of One Billion Word",
        shards=(_heldout("train", 10), _heldout("train", 11), _heldout("valid", 12), _heldout("test", 13)),
        layouts=("lm1b-sample/{name}", "lm1b/{path}", f"{_TOP}/{{path}}", "{name}"),
        archive=_ARCHIVE,
    )

    def __init__(self, *, vocabulary: PositiveInt = 10_000) -> None:
        super().__init__(vocabulary=vocabulary)


def tokenized_folder(corpus: ShardedCorpus, vocabulary: int) -> Path:
    """Where the tokenised corpus lies: named by the published digests of its shards and the dictionary's size."""
    facts = [[shard.split, shard.name, shard.md5] for shard in corpus.shards]
    key = hashlib.sha256(json.dumps([tokenized.FORMAT, vocabulary, facts]).encode()).hexdigest()[:16]
    return cache_folder() / "tokenized" / f"{corpus.name}-{key}"


def _tokenize(
    corpus: ShardedCorpus, files: Mapping[str, Path], size: int, work: Path, folder: Path, access: DataAccess
) -> None:
    training = {shard.name for shard in corpus.shards if shard.split == "train"}
    tokens, counts = streamed.count_shards(work, files, training, access.say)
    words = streamed.most_frequent(counts, size)
    if len(words) < size:
        raise DataError(
            f"{corpus.title}: its training shards have {len(words):,} types with <eos> and <unk>, fewer than the "
            f"vocabulary of {size:,}; give vocabulary: {len(words)} or less"
        )
    parts = [streamed.Part(shard.name, shard.split, tokens[shard.name]) for shard in corpus.shards]
    written = streamed.write_parts(work, parts, lambda part: streamed.encode(files[part.name], words), access.say)
    md5 = {shard.name: shard.md5 for shard in corpus.shards}
    facts = {
        part.name: {
            "split": part.split,
            "bytes": files[part.name].stat().st_size,
            "md5": md5[part.name],
            "tokens": part.tokens,
            "ids_sha256": written[part.name],
        }
        for part in parts
    }
    streamed.finish(work, folder, words, facts)


def _check(corpus: ShardedCorpus, files: Mapping[str, Path]) -> None:
    problems = [
        Problem(f"{line.problem}. Replace the file, or move it away", str(line.path))
        for line in _examine(corpus, files)
        if line.problem
    ]
    if problems:
        raise DataError(*problems)


def _examine(corpus: ShardedCorpus, files: Mapping[str, Path]) -> list[CheckLine]:
    lines = []
    for shard in corpus.shards:
        path = files[shard.name]
        try:
            size = path.stat().st_size
            md5, sha256 = file_digests(path, "md5", "sha256")
        except OSError as error:
            reason = f"cannot be read: {error.strerror}"
            lines.append(CheckLine(f"{shard.split} {shard.name}", path, 0, None, "", False, reason))
            continue
        problem = None if md5 == shard.md5 else f"not {shard.name} as published: md5 {md5} instead of {shard.md5}"
        lines.append(CheckLine(f"{shard.split} {shard.name}", path, size, None, sha256, problem is None, problem))
    return lines


def verify(corpus: ShardedCorpus, access: DataAccess) -> list[CheckLine]:
    """Compare every shard with its published md5; nothing is downloaded or tokenised.

    Raises:
        DataError: the shards are not found.
    """
    files = corpus.locate(access)
    if files is None:
        raise corpus.not_found(access)
    return _examine(corpus, files)


def fetch(corpus: ShardedCorpus, access: DataAccess) -> Path:
    """The folder that holds the verified shards; downloaded into the cache when no other folder has them.

    Raises:
        DataError: shards that were found are damaged, or they cannot be downloaded.
    """
    files = corpus.locate(access) or _download(corpus, access)
    _check(corpus, files)
    return next(iter(files.values())).parent


def _download(corpus: ShardedCorpus, access: DataAccess) -> dict[str, Path]:
    if access.offline or corpus.archive is None:
        raise corpus.not_found(access)
    files = corpus.files(corpus.layouts[0], download_folder())
    members = {f"{_TOP}/{shard.path}": files[shard.name] for shard in corpus.shards}
    download_archive(corpus.title, corpus.archive, members, download_folder(), access.say, _PATIENCE)
    return files
