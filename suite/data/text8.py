"""text8 (Mahoney): 27 symbols, a to z and the space, scored in bits per character; and a sample for trying things."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from suite.data import streamed, tokenized
from suite.data.base import SPLITS, DataAccess, Split, TextData
from suite.data.download import Patience, download_archive
from suite.data.sources import CheckLine, absent, cache_folder, download_folder, file_digests, first_complete
from suite.data.vocabulary import Vocabulary
from suite.errors import DataError, Problem

SYMBOLS = " abcdefghijklmnopqrstuvwxyz"

_ALIEN = 255
_ID_OF_BYTE = np.full(256, _ALIEN, np.uint8)
_ID_OF_BYTE[list(SYMBOLS.encode())] = np.arange(len(SYMBOLS))
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class CharacterFile:
    """One file of characters: its size, its layouts, the digests that are known of it, and its archive.

    ``sha1`` is the published digest; ``sha256`` that of the one copy in use where none was published, which shows that
    two people read the same file and nothing more.
    """

    name: str
    title: str
    characters: int
    layouts: tuple[str, ...]
    sha1: str | None = None
    sha256: str | None = None
    archive: str | None = None
    hint: str = ""

    def locate(self, access: DataAccess) -> Path | None:
        """The file in the first folder that has it, else None."""
        found = first_complete(lambda folder: [{"file": folder / layout} for layout in self.layouts], access)
        return found["file"] if found else None

    def not_found(self, access: DataAccess) -> DataError:
        """What to say when no folder holds the file."""
        return absent(self.title, self.hint, ", ".join(self.layouts), access)

    def sizes(self) -> dict[Split, int]:
        """Characters of each split: 90, 5 and 5 hundredths, in this order."""
        part = self.characters // 20
        return {"train": self.characters - 2 * part, "valid": part, "test": part}


class Text8:
    """text8, all 100,000,000 characters: the first 90 million train, the next 5 million valid, the last 5 million test.

    The split of Yang et al. 2018, table 12. No ``<eos>``: the text is one line. Published sha1 of the file as GluonNLP
    lists it (``gluonnlp.data.Text8``).
    """

    source: ClassVar[CharacterFile] = CharacterFile(
        name="text8",
        title="text8",
        characters=100_000_000,
        layouts=("text8/text8", "text8"),
        sha1="0dc3edebc970dcc96137e7deda4d9995af9d93de",
        archive="http://mattmahoney.net/dc/text8.zip",
        hint="Run 'suite data fetch text8' where there is a network, or give",
    )
    contexts: int | None = None

    def __init__(self) -> None:
        self.vocabulary_size = len(SYMBOLS)

    def load(self, access: DataAccess) -> TextData:
        """Memory-mapped streams of symbol ids, 0 for the space and 1 to 26 for the letters.

        Raises:
            DataError: the file is missing, damaged or another one; the message says which and what to do.
        """
        source = self.source
        path = source.locate(access) or _download(source, access)
        line = examine(source, path)
        if line.problem:
            raise DataError(Problem(f"{line.problem}. Replace the file, or move it away", str(path)))
        key = hashlib.sha256(f"{tokenized.FORMAT} {line.sha256}".encode()).hexdigest()[:16]
        folder = cache_folder() / "tokenized" / f"{source.name}-{key}"
        streams = streamed.load(folder, source.title, access.say)
        if streams is None:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with streamed.workplace(folder, source.title) as work:
                streams = streamed.load(folder, source.title, access.say)
                if streams is None:
                    _tokenize(source, path, work, folder, access)
                    streams = streamed.load(folder, source.title, access.say)
        if streams is None:
            raise DataError(Problem(f"the tokenised {source.title} changed while it was read; try again", str(folder)))
        return TextData(
            streams=streams,
            vocabulary_size=self.vocabulary_size,
            digests={source.name: line.sha256, **streamed.digests(folder)},
            unit="character",
        )


class Text8Sample(Text8):
    """The first 2,500,000 characters of text8, cut 90:5:5 like the whole; no published number is of this.

    For tests and smoke runs. Nobody publishes a digest of it; a copy is judged by its size and its symbols.
    """

    source = CharacterFile(
        name="text8-sample",
        title="the sample of text8",
        characters=2_500_000,
        layouts=("text8/text8.first2500000", "text8-sample/text8.first2500000", "text8.first2500000"),
        sha256="ed21a8b2883e405079d00e88847e25d3f74ed77b18828137859ba196f1f962fe",
        hint="Make it from the whole file with 'head -c 2500000 text8 > text8.first2500000', and give",
    )


def examine(source: CharacterFile, path: Path) -> CheckLine:
    """Compare a file with what is known of it, a block at a time; never raises for what it holds."""
    basis = None
    try:
        size = path.stat().st_size
        if size != source.characters:
            problem: str | None = f"not {source.title}: {size:,} bytes instead of {source.characters:,}" + (
                "; a sample is the dataset text8-sample" if size < source.characters and source.sha1 else ""
            )
            return CheckLine("all", path, size, None, "", False, problem)
        sha1, sha256 = file_digests(path, "sha1", "sha256")
        problem = _alien(path)
    except OSError as error:
        return CheckLine("all", path, 0, None, "", False, f"cannot be read: {error.strerror}")
    if problem is None and source.sha1 is not None and sha1 != source.sha1:
        problem = f"not {source.title} as published: sha1 {sha1} instead of {source.sha1}"
    if source.sha1 is None:
        known = "its sha256 is the known one" if sha256 == source.sha256 else "its sha256 is another than the known one"
        basis = f"right size and symbols; {known}, and none is published"
    return CheckLine("all", path, size, size, sha256, problem is None and source.sha1 is not None, problem, basis)


def _alien(path: Path) -> str | None:
    offset = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            wrong = np.flatnonzero(_ID_OF_BYTE[np.frombuffer(block, np.uint8)] == _ALIEN)
            if len(wrong):
                first = int(wrong[0])
                return f"byte 0x{block[first]:02x} at offset {offset + first:,} is none of the 27 symbols"
            offset += len(block)
    return None


def _tokenize(source: CharacterFile, path: Path, work: Path, folder: Path, access: DataAccess) -> None:
    sizes = source.sizes()
    starts = {"train": 0, "valid": sizes["train"], "test": sizes["train"] + sizes["valid"]}
    parts = [streamed.Part(split, split, sizes[split]) for split in SPLITS]

    def encoded(part: streamed.Part) -> Iterator[streamed.Ids]:
        with path.open("rb") as file:
            file.seek(starts[part.split])
            left = part.tokens
            while left and (block := file.read(min(_BLOCK_BYTES, left))):
                left -= len(block)
                yield _ID_OF_BYTE[np.frombuffer(block, np.uint8)].astype(np.int32)

    written = streamed.write_parts(work, parts, encoded, access.say)
    facts = {p.name: {"start": starts[p.split], "tokens": p.tokens, "ids_sha256": written[p.name]} for p in parts}
    streamed.finish(work, folder, Vocabulary(SYMBOLS), facts)


def verify(source: CharacterFile, access: DataAccess) -> list[CheckLine]:
    """Examine the file where it is found; never downloads.

    Raises:
        DataError: the file is not found.
    """
    path = source.locate(access)
    if path is None:
        raise source.not_found(access)
    return [examine(source, path)]


def fetch(source: CharacterFile, access: DataAccess) -> Path:
    """The folder that holds the verified file; downloaded into the cache when no other folder has it.

    Raises:
        DataError: the file that was found is not the right one, or it cannot be downloaded.
    """
    path = source.locate(access) or _download(source, access)
    problem = examine(source, path).problem
    if problem:
        raise DataError(Problem(f"{problem}. Replace the file, or move it away", str(path)))
    return path.parent


def _download(source: CharacterFile, access: DataAccess) -> Path:
    if access.offline or source.archive is None:
        raise source.not_found(access)
    path = download_folder() / source.layouts[0]
    download_archive(source.title, source.archive, {source.name: path}, download_folder(), access.say, Patience())
    return path
