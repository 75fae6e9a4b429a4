"""Files that are either whole or not there, and locks that die with their holder."""

from __future__ import annotations

import fcntl
import gc
import glob
import io
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

_SCRATCH = ".tmp"


def sync_folder(folder: Path) -> None:
    """Flush the folder's own entries to disk, so that a rename or removal survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Gives an OSError of the block the path it was about: a failed write names no file, or a temporary one."""
    try:
        yield
    except OSError as error:
        named = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else None
        if error.errno is not None and (named is None or named.endswith(_SCRATCH)):
            error.filename = str(path)
        raise


class _Scratch(io.FileIO):
    """A file that remembers why it could not be written: torch.save turns that into an error of its own."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of ``path`` in one step once the block ends; its folder need not exist.

    A reader, or a machine that loses power, sees the old file or the new one and never a part. What a killed writer of
    ``path`` left behind is removed.

    Raises:
        OSError: it cannot be written; ``filename`` is ``path``, which is as it was.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, path.name)
        raw, temporary = _locked_scratch(path)
        try:
            try:
                with raw, io.BufferedWriter(raw) as file:
                    yield cast(BinaryIO, file)
                    file.flush()
                    # mkstemp makes private files; results are shared like any other file of the checkout.
                    os.fchmod(raw.fileno(), 0o666 & ~_umask())
                    os.fsync(raw.fileno())
                    os.replace(temporary, path)
            except Exception as error:
                if raw.failure is not None and error is not raw.failure:
                    raise raw.failure from error
                raise
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def atomic_write(path: Path, content: bytes | str) -> None:
    """Replace ``path`` by ``content`` (text as UTF-8) in one step; see :func:`replacing`."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove what killed writers of the file ``name``, of any file by default, left in a folder."""
    for left in folder.glob((glob.escape(_prefix(name)) if name else ".") + f"*{_SCRATCH}"):
        with suppress(FileNotFoundError), left.open("rb") as file:
            # A writer at work holds the lock of its own.
            if _acquire(file.fileno(), 0.0):
                left.unlink()


def _prefix(name: str) -> str:
    # Hidden and not *.json, so that a copy left by a kill is never taken for a record; a name has at most 255 bytes.
    return f".{name[-48:]}."


def _locked_scratch(path: Path) -> tuple[_Scratch, Path]:
    while True:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path.name), suffix=_SCRATCH)
        raw = _Scratch(descriptor, "wb")
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return raw, Path(temporary)
        raw.close()  # taken for a leftover in the instant before it was locked


@contextmanager
def no_collection() -> Iterator[None]:
    """Leave garbage alone while thousands of objects are made that all stay: looking for it takes a third longer."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _umask() -> int:
    # The mask can only be read by setting it; Linux also tells it in /proc, which no other thread can observe.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o022


@contextmanager
def file_lock(path: Path, wait: float = 0.0) -> Iterator[int | None]:
    """Hold an exclusive advisory lock on ``path``, trying for at most ``wait`` seconds.

    Yields the open file descriptor, or None when another process holds the lock. The kernel drops the lock when the
    holder ends, however it ends; the file itself stays, since removing it would let two processes lock two files.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield descriptor if _acquire(descriptor, wait) else None
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, wait: float) -> bool:
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        else:
            return True
