"""The tokenised form of a corpus: one int32 array a split, memory-mapped, checked before it is trusted."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from suite.data.base import SPLITS, Split
from suite.data.sources import Corpus, file_digests
from suite.data.vocabulary import Vocabulary
from suite.records.files import file_lock, sync_folder

FORMAT = 1
_MANIFEST = "manifest.json"
VOCABULARY = "vocabulary.json"
# Tokenising takes seconds; whoever holds the lock longer than this is stuck, and the work is done without the cache.
_LOCK_SECONDS = 60.0

Streams = dict[Split, npt.NDArray[np.int32]]


def folder_of(cache: Path, corpus: Corpus) -> Path:
    """Where the tokenised corpus lies: named by its content and this format, so no two contents share a folder."""
    parts = [str(FORMAT), *(corpus.splits[split].content for split in SPLITS)]
    return cache / "tokenized" / f"{corpus.name}-{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:16]}"


def load(folder: Path, corpus: Corpus, say: Callable[[str], None]) -> Streams | None:
    """The memory-mapped streams, or None when they are not there or damaged (which is said).

    Every byte is checked against the digests of the manifest: some 30 ms for WikiText-2.
    """
    expected = {split: facts.tokens for split, facts in corpus.splits.items()}
    return load_folder(folder, corpus.title, say, expected=expected)


def load_folder(
    folder: Path,
    title: str,
    say: Callable[[str], None],
    *,
    expected: Mapping[Split, int] | None = None,
    names: Sequence[str] = (),
) -> Streams | None:
    """As :func:`load`, for a folder with further files ``names``; ``expected`` are the tokens of each split."""
    try:
        manifest = read_manifest(folder)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        manifest = None
    try:
        if manifest != {name: _sha256(folder / name) for name in (*_names(), *names)}:
            raise ValueError
        streams: Streams = {}
        for split in SPLITS:
            stream = np.load(folder / f"{split}.npy", mmap_mode="r", allow_pickle=False)
            if stream.dtype != np.int32 or stream.ndim != 1 or (expected and len(stream) != expected[split]):
                raise ValueError
            streams[split] = stream
    except (OSError, ValueError):
        say(f"the tokenised copy of {title} in {folder} is damaged; it is made again")
        return None
    return streams


def read_manifest(folder: Path) -> Any:
    """The sha256 of each file of a tokenised corpus, by name.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON.
    """
    return json.loads((folder / _MANIFEST).read_bytes())


def seal(folder: Path, target: Path, names: Sequence[str] = ()) -> None:
    """Write the manifest of a folder whose files are complete, and put it in the place of ``target`` in one step.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    manifest = {name: _sha256(folder / name) for name in (*_names(), *names)}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    for name in (*manifest, _MANIFEST):
        _sync(folder / name)
    # Readers keep the files they have mapped; only the names go.
    shutil.rmtree(target, ignore_errors=True)
    os.replace(folder, target)
    sync_folder(target.parent)


def store(folder: Path, corpus: Corpus, streams: Mapping[Split, npt.NDArray[np.int32]], words: Vocabulary) -> None:
    """Write the streams and the dictionary as one folder that is there whole or not at all.

    Raises:
        OSError: the cache cannot be written, or another process holds its lock for too long.
    """
    parent = folder.parent
    with file_lock(parent / f".{corpus.name}.lock", wait=_LOCK_SECONDS) as lock:
        if lock is None:
            raise TimeoutError(f"another process holds the lock in {parent}")
        # Nobody else writes now: what a killed process left behind can go.
        for stale in parent.glob(f".{corpus.name}-*.tmp"):
            shutil.rmtree(stale, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(dir=parent, prefix=f".{corpus.name}-", suffix=".tmp"))
        try:
            for split in SPLITS:
                np.save(temporary / f"{split}.npy", np.asarray(streams[split], np.int32), allow_pickle=False)
            (temporary / VOCABULARY).write_text(words.to_json(), encoding="utf-8")
            seal(temporary, folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _names() -> tuple[str, ...]:
    return (*(f"{split}.npy" for split in SPLITS), VOCABULARY)


def _sha256(path: Path) -> str:
    return file_digests(path, "sha256")[0]


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
