"""What a published corpus is, where its files lie, and whether a file really is what the papers used."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from platformdirs import user_cache_dir

from suite.data.base import SPLITS, DataAccess, Split
from suite.data.diagnosis import difference, not_text
from suite.data.vocabulary import tokenize
from suite.errors import DataError, Problem

K = TypeVar("K")

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class SplitFacts:
    """What is known of one split: the published file's size and sha256, and its tokens with ``<eos>``.

    ``content`` is the authority: the sha256 of all tokens joined by single spaces. Files that differ in line ends or
    outer blanks alone have the same tokens and are the same corpus.
    """

    bytes: int
    sha256: str
    tokens: int
    content: str


@dataclass(frozen=True)
class Location:
    """Where a mirror keeps a split: a file's URL, or an archive's URL (zip or tar) and the member's name."""

    url: str
    member: str | None = None


Mirror = Mapping[Split, Location]


@dataclass(frozen=True)
class Corpus:
    """A published corpus: what it must contain, the file layouts it comes in, and where to download it."""

    name: str
    title: str
    vocabulary_size: int
    lower_case: bool
    splits: Mapping[Split, SplitFacts]
    layouts: Sequence[str]
    mirrors: Sequence[Mirror]

    def files(self, layout: str, folder: Path) -> dict[Split, Path]:
        """The three paths of one layout, a template such as ``ptb/ptb.{split}.txt``, under ``folder``."""
        return {split: folder / layout.format(split=split) for split in SPLITS}


@dataclass(frozen=True)
class Examined:
    """What was found in a file: ``tokens`` unless it is no text; ``problem`` says why it is refused, else None."""

    path: Path
    bytes: int
    sha256: str
    tokens: Sequence[str] | None
    problem: str | None


@dataclass(frozen=True)
class CheckLine:
    """What verifying one file found.

    ``part`` is the split, or the shard of it. ``published`` says that the file is byte for byte the published one;
    ``problem`` is None when its content is (line ends may differ), else the reason why it is refused. ``basis`` says
    what the check rests on where no published digest covers the file. ``tokens`` counts ``<eos>``; None when they were
    not counted or the file is no text.
    """

    part: str
    path: Path
    bytes: int
    tokens: int | None
    sha256: str
    published: bool
    problem: str | None
    basis: str | None = None


def file_digests(path: Path, *algorithms: str) -> tuple[str, ...]:
    """Hexadecimal digests of a file by several algorithms, read once and a block at a time.

    Raises:
        OSError: the file cannot be read.
    """
    hashes = [hashlib.new(algorithm) for algorithm in algorithms]
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            for each in hashes:
                each.update(block)
    return tuple(each.hexdigest() for each in hashes)


def token_digest(tokens: Sequence[str]) -> str:
    """sha256 of the tokens joined by single spaces: the content of a file whatever its line ends and blanks."""
    return hashlib.sha256(" ".join(tokens).encode()).hexdigest()


def examine(corpus: Corpus, split: Split, path: Path) -> Examined:
    """Read a file and compare its tokens with the published ones; never raises for what the file holds."""
    expected = corpus.splits[split]
    try:
        size = path.stat().st_size
        # A file of another order of magnitude is not worth reading, and might not fit.
        if size > 4 * expected.bytes + (1 << 20):
            return Examined(path, size, "", None, f"far too large: {size:,} bytes instead of {expected.bytes:,}")
        data = path.read_bytes()
    except OSError as error:
        return Examined(path, 0, "", None, f"cannot be read: {error.strerror}")
    sha256 = hashlib.sha256(data).hexdigest()
    reason = not_text(data)
    if reason:
        return Examined(path, size, sha256, None, reason)
    tokens = tokenize(data.decode("utf-8"))
    content = token_digest(tokens)
    if content == expected.content and len(tokens) == expected.tokens:
        return Examined(path, size, sha256, tokens, None)
    others = [other for other in SPLITS if other != split and corpus.splits[other].content == content]
    if others:
        return Examined(path, size, sha256, tokens, f"this is the {others[0]} split")
    reason = difference(
        tokens,
        size=size,
        lower_case=corpus.lower_case,
        expected_bytes=expected.bytes,
        expected_tokens=expected.tokens,
    )
    return Examined(path, size, sha256, tokens, reason)


def is_published(corpus: Corpus, files: Mapping[Split, Path]) -> bool:
    """Whether all three files are, byte for byte, the published ones; a few milliseconds, nothing is tokenised."""
    try:
        return all(
            files[split].stat().st_size == facts.bytes
            and hashlib.sha256(files[split].read_bytes()).hexdigest() == facts.sha256
            for split, facts in corpus.splits.items()
        )
    except OSError:
        return False


def read_tokens(corpus: Corpus, files: Mapping[Split, Path]) -> dict[Split, Sequence[str]]:
    """The tokens of all three splits.

    Raises:
        DataError: a file is not what the papers used; one problem a file, with the reason and what to do.
    """
    problems = []
    texts: dict[Split, Sequence[str]] = {}
    for split in SPLITS:
        found = examine(corpus, split, files[split])
        if found.problem:
            message = (
                f"not the {split} split of {corpus.title} as the papers use it: {found.problem}. Replace the file, "
                f"or move it away and run 'suite data fetch {corpus.name}'"
            )
            problems.append(Problem(message, where=str(found.path)))
        elif found.tokens is not None:
            texts[split] = found.tokens
    if problems:
        raise DataError(*problems)
    return texts


def cache_folder() -> Path:
    """The suite's folder in the user's cache."""
    return Path(user_cache_dir("softmax-bottleneck-suite", appauthor=False))


def download_folder() -> Path:
    """Where downloads are kept: a data folder like any other, searched last."""
    return cache_folder() / "corpora"


def locate(corpus: Corpus, access: DataAccess) -> dict[Split, Path] | None:
    """The corpus's files in the first of ``access.data_dir``, ``SUITE_DATA`` and the cache that has them, else None.

    Raises:
        DataError: a folder the user named does not exist, or holds only a part of the corpus.
    """
    return first_complete(lambda folder: [corpus.files(layout, folder) for layout in corpus.layouts], access)


def first_complete(layouts: Callable[[Path], Sequence[dict[K, Path]]], access: DataAccess) -> dict[K, Path] | None:
    """The first layout, in the first folder that may be searched, all of whose files are there; else None.

    Args:
        layouts: the files by part that each layout would have under a folder, the preferred layout first.
        access: where to look.

    Raises:
        DataError: a folder the user named does not exist, or holds only some of the files.
    """
    for source, folder in _places(access):
        if source and not os.path.isdir(folder):
            raise DataError(Problem(f"{source}: no such folder; name the one that holds the corpora", str(folder)))
        candidates = layouts(folder)
        missing = [[part for part, path in files.items() if not os.path.isfile(path)] for files in candidates]
        fewest = min(range(len(candidates)), key=lambda index: len(missing[index]))
        if not missing[fewest]:
            return candidates[fewest]
        # In the cache a part is a download that was killed; it is simply done again.
        if source and len(missing[fewest]) < len(candidates[fewest]):
            first, *others = [candidates[fewest][part].name for part in missing[fewest]]
            names = " and ".join([first, *others]) if len(others) < 3 else f"{first} and {len(others)} other files"
            present = next(path for path in candidates[fewest].values() if os.path.isfile(path))
            raise DataError(Problem(f"{names} missing beside {present.name}; add what is missing", str(present.parent)))
    return None


def not_found(corpus: Corpus, access: DataAccess) -> DataError:
    """What to say when no folder holds the corpus and it is not to be downloaded."""
    wanted = ", ".join(layout.format(split="{train,valid,test}") for layout in corpus.layouts)
    return absent(
        corpus.title, f"Run 'suite data fetch {corpus.name}' where there is a network, or give", wanted, access
    )


def absent(title: str, advice: str, wanted: str, access: DataAccess) -> DataError:
    """``title`` was looked for in vain; ``advice`` ends where the folder that holds ``wanted`` is to be given."""
    looked = ", ".join(str(folder) for _, folder in _places(access))
    return DataError(
        f"{title} was not found in {looked}. {advice} --data-dir (or SUITE_DATA) a folder that holds one of: {wanted}"
    )


def _places(access: DataAccess) -> list[tuple[str, Path]]:
    """Folders to search in order, each with how the user named it (empty for the cache, which may not exist yet)."""
    places = [("--data-dir", access.data_dir)] if access.data_dir is not None else []
    if os.environ.get("SUITE_DATA"):
        places.append(("SUITE_DATA", Path(os.environ["SUITE_DATA"]).expanduser()))
    return [*places, ("", download_folder())]
