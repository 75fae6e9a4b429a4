"""Corpora too large for memory: read in blocks and encoded, part by part, into memory-mapped int32 files.

An interrupted run goes on with the part it was at and ends with the same bytes: each part has its own place in the
file of its split, and a finished part carries the digest of what was written there.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
import numpy.typing as npt

from suite.data import tokenized
from suite.data.base import SPLITS, Split
from suite.data.diagnosis import UNKNOWN
from suite.data.vocabulary import EOS, Vocabulary, tokenize
from suite.errors import DataError, Problem
from suite.records.files import atomic_write, file_lock

Ids = npt.NDArray[np.int32]

# What every streamed corpus records beside its tokens: counts and digests of its parts.
PARTS = "parts.json"
_BLOCK_BYTES = 1 << 20
# The wait for another process that tokenises the same corpus: an hour is far more than One Billion Word takes.
_LOCK_SECONDS = 3600.0


@dataclass(frozen=True)
class Part:
    """A stretch of one split: a shard, or a slice of a file. ``name`` is unique in its corpus."""

    name: str
    split: Split
    tokens: int


def text_blocks(path: Path, size: int = _BLOCK_BYTES) -> Iterator[str]:
    """The text of a file in blocks of about ``size`` bytes, each of whole lines.

    Raises:
        DataError: the file is not UTF-8.
        OSError: it cannot be read.
    """
    kept = b""
    with path.open("rb") as file:
        while block := file.read(size):
            head, newline, tail = (kept + block).rpartition(b"\n")
            if newline:
                yield _text(head + newline, path)
            kept = tail
    if kept:
        yield _text(kept, path)


def _text(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"not UTF-8: byte 0x{data[error.start]:02x}; replace the file"
        raise DataError(Problem(message, str(path))) from None


@dataclass(frozen=True)
class Counted:
    """Words of a text with how often each occurs, lower-cased; ``tokens`` counts them and one ``<eos>`` a line."""

    tokens: int
    words: Mapping[str, int]


def count(path: Path, size: int = _BLOCK_BYTES) -> Counted:
    """Count one shard in a single pass; memory grows with its distinct words alone.

    Raises:
        DataError: the file is not UTF-8.
    """
    words: Counter[str] = Counter()
    tokens = 0
    for block in text_blocks(path, size):
        found = tokenize(block.lower())
        tokens += len(found)
        words.update(found)
    return Counted(tokens, {word: times for word, times in words.items() if word not in (EOS, UNKNOWN)})


def most_frequent(counts: Mapping[str, int], size: int) -> Vocabulary:
    """A dictionary of ``size`` words: ``<eos>``, ``<unk>``, then by falling count, ties by spelling.

    The order of the shards makes no difference. Fewer words where there are no more.
    """
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return Vocabulary([EOS, UNKNOWN, *ranked[: max(0, size - 2)]])


def encode(path: Path, words: Vocabulary, size: int = _BLOCK_BYTES) -> Iterator[Ids]:
    """The ids of one shard, lower-cased, a block at a time; what the dictionary lacks is ``<unk>``."""
    unknown = words.ids[UNKNOWN]
    for block in text_blocks(path, size):
        tokens = tokenize(block.lower())
        yield np.fromiter(map(words.ids.get, tokens, repeat(unknown)), dtype=np.int32, count=len(tokens))


def count_shards(
    work: Path, shards: Mapping[str, Path], training: Collection[str], say: Callable[[str], None]
) -> tuple[dict[str, int], Counter[str]]:
    """Count every shard, keeping each count in ``work`` so that an interrupted pass goes on.

    Returns:
        The tokens of each shard, and how often each word occurs in those named by ``training``. No more than one
        shard's words and this sum are in memory at a time.

    Raises:
        DataError: a shard is not UTF-8.
        OSError: ``work`` cannot be written.
    """
    tokens: dict[str, int] = {}
    words: Counter[str] = Counter()
    for number, (name, path) in enumerate(shards.items(), 1):
        kept = work / f"{name}.count"
        try:
            counted = Counted(**json.loads(kept.read_bytes()))
        except (OSError, ValueError, TypeError):
            say(f"counting words: {name} ({number} of {len(shards)})")
            counted = count(path)
            atomic_write(kept, json.dumps({"tokens": counted.tokens, "words": dict(counted.words)}))
        tokens[name] = counted.tokens
        if name in training:
            words.update(counted.words)
    return tokens, words


def write_parts(
    work: Path, parts: Sequence[Part], encoded: Callable[[Part], Iterator[Ids]], say: Callable[[str], None]
) -> dict[str, str]:
    """Encode every part into its place in ``work/SPLIT.npy`` (int32), skipping those that are whole already.

    Returns:
        The sha256 of each part's ids, little-endian, by name.

    Raises:
        DataError: a part has another number of tokens than it should.
        OSError: the disk is full, or ``work`` cannot be written.
    """
    totals = {split: sum(part.tokens for part in parts if part.split == split) for split in SPLITS}
    starts = dict.fromkeys(SPLITS, 0)
    digests = {}
    for number, part in enumerate(parts, 1):
        start = starts[part.split]
        starts[part.split] += part.tokens
        stream = _open(work / f"{part.split}.npy", totals[part.split])
        place = stream[start : start + part.tokens]
        mark = work / f"{part.name}.done"
        digest = mark.read_text() if mark.exists() else ""
        if digest != _digest(place):
            say(f"tokenising {part.name} ({number} of {len(parts)})")
            _fill(place, encoded(part), part.name)
            stream.flush()
            digest = _digest(place)
            atomic_write(mark, digest)
        digests[part.name] = digest
    return digests


def _open(path: Path, tokens: int) -> np.memmap[tuple[int], np.dtype[np.int32]]:
    """The file of one split, made where it is missing or was cut short."""
    try:
        stream = np.load(path, mmap_mode="r+", allow_pickle=False)
        if stream.shape == (tokens,) and stream.dtype == np.int32:
            return stream  # type: ignore[no-any-return]
    except (OSError, ValueError):
        pass
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype("<i4"), shape=(tokens,))


def _fill(place: Ids, blocks: Iterator[Ids], name: str) -> None:
    filled = 0
    for ids in blocks:
        if filled + len(ids) <= len(place):
            place[filled : filled + len(ids)] = ids
        filled += len(ids)
    if filled != len(place):
        raise DataError(f"{name}: {filled:,} tokens instead of {len(place):,}; the file changed while it was read")


def _digest(ids: Ids) -> str:
    digest = hashlib.sha256()
    for start in range(0, len(ids), _BLOCK_BYTES):
        digest.update(np.ascontiguousarray(ids[start : start + _BLOCK_BYTES], "<i4").tobytes())
    return digest.hexdigest()


def finish(work: Path, folder: Path, words: Vocabulary, facts: Mapping[str, Mapping[str, object]]) -> None:
    """Write dictionary, ``facts`` of the parts and manifest, drop the marks, and put ``work`` in ``folder``'s place."""
    (work / tokenized.VOCABULARY).write_text(words.to_json(), encoding="utf-8")
    (work / PARTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    for mark in (*work.glob("*.done"), *work.glob("*.count")):
        mark.unlink()
    tokenized.seal(work, folder, (PARTS,))


def load(folder: Path, title: str, say: Callable[[str], None]) -> tokenized.Streams | None:
    """The memory-mapped streams, every byte checked (some seconds for gigabytes); None when they are to be made."""
    return tokenized.load_folder(folder, title, say, names=(PARTS,))


def digests(folder: Path) -> dict[str, str]:
    """The sha256 of each split's file, from the manifest of a folder that :func:`load` has checked."""
    manifest = tokenized.read_manifest(folder)
    return {split: manifest[f"{split}.npy"] for split in SPLITS}


@contextmanager
def workplace(folder: Path, title: str) -> Iterator[Path]:
    """The folder in which ``folder`` is made, this process's alone; what an interrupted run left there is kept.

    Raises:
        DataError: it cannot be written, or another process holds it for too long.
    """
    work = folder.with_name(f".{folder.name}.work")
    lock_path = folder.with_name(f".{folder.name}.lock")
    try:
        with file_lock(lock_path, wait=_LOCK_SECONDS) as lock:
            if lock is None:
                raise DataError(Problem(f"another process has held this lock for {_LOCK_SECONDS:g} s", str(lock_path)))
            work.mkdir(exist_ok=True)
            yield work
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            Problem(
                f"the tokenised {title} cannot be written: {reason}; free some space, or set XDG_CACHE_HOME to a disk "
                "that has it, and repeat the command: it goes on where it stopped",
                str(folder.parent),
            )
        ) from None
