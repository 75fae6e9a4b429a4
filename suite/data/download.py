"""Fetching a corpus: mirrors in turn, every failure explained, one process at a time, whole or not at all."""

from __future__ import annotations

import os
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from suite.data.base import SPLITS, Split
from suite.data.diagnosis import is_html
from suite.data.sources import Corpus, Location, Mirror, examine
from suite.errors import DataError, Problem
from suite.records.files import file_lock, sync_folder

# Some hosts refuse the default agents of Python's clients.
USER_AGENT = "softmax-bottleneck-suite (research; corpus download)"


@dataclass(frozen=True)
class Patience:
    """How long and how much a mirror may take, in seconds, attempts and bytes."""

    connect: float = 10.0
    read: float = 30.0
    total: float = 900.0
    retries: int = 2
    most_bytes: int = 256 << 20
    lock: float = 3600.0


class _Unusable(Exception):
    """A mirror cannot be used; the message says why."""


def download(corpus: Corpus, folder: Path, say: Callable[[str], None], patience: Patience | None = None) -> None:
    """Put the corpus's files into ``folder`` in its first layout, from the first mirror that serves the right ones.

    Another process that downloads the same corpus is waited for, and its files are used.

    Raises:
        DataError: every mirror failed (each with its reason), or the folder cannot be written.
    """
    patience = patience or Patience()
    target = corpus.files(corpus.layouts[0], folder)
    lock_path = folder / f".{corpus.name}.lock"
    try:
        with file_lock(lock_path) as lock:
            if lock is not None:
                return _from_mirrors(corpus, target, say, patience)
        say(f"waiting for another process that downloads {corpus.title}")
        with file_lock(lock_path, wait=patience.lock) as lock:
            if lock is None:
                raise DataError(Problem(f"another process has held this lock for {patience.lock:g} s", str(lock_path)))
            return _from_mirrors(corpus, target, say, patience)
    except OSError as error:
        raise DataError(Problem(f"the cache cannot be written: {error.strerror or error}", str(folder))) from None


def _from_mirrors(corpus: Corpus, target: Mapping[Split, Path], say: Callable[[str], None], patience: Patience) -> None:
    if all(path.is_file() and examine(corpus, split, path).problem is None for split, path in target.items()):
        return
    folder = target["train"].parent
    folder.mkdir(parents=True, exist_ok=True)
    problems = []
    for mirror in corpus.mirrors:
        site = urlsplit(mirror["train"].url)
        say(f"downloading {corpus.title} from {site.netloc}")
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
            try:
                files = _from_mirror(corpus, mirror, Path(temporary), patience)
            except _Unusable as error:
                say(f"{site.netloc}: {error}")
                problems.append(Problem(str(error), where=mirror["train"].url))
                continue
            for split in SPLITS:
                os.replace(files[split], target[split])
        sync_folder(folder)
        return
    wanted = corpus.layouts[0].format(split="{train,valid,test}")
    raise DataError(
        f"{corpus.title} could not be downloaded",
        *problems,
        f"get the files yourself and give --data-dir (or SUITE_DATA) the folder that holds {wanted}",
    )


def _from_mirror(corpus: Corpus, mirror: Mirror, folder: Path, patience: Patience) -> dict[Split, Path]:
    """Download and check one mirror's files; in ``folder``."""
    fetched: dict[str, Path] = {}
    files: dict[Split, Path] = {}
    for split in SPLITS:
        location = mirror[split]
        if location.url not in fetched:
            fetched[location.url] = _retrieve(location.url, folder, f"download-{len(fetched)}", patience)
        files[split] = _unpacked(location, fetched[location.url], folder / split, patience)
        found = examine(corpus, split, files[split])
        if found.problem:
            raise _Unusable(f"{split}: {found.problem}")
    return files


def download_archive(
    title: str,
    url: str,
    members: Mapping[str, Path],
    folder: Path,
    say: Callable[[str], None],
    patience: Patience,
) -> None:
    """Put members of an archive (by their names in it) where ``members`` says; each is there whole or not at all.

    Members that are there already stay, so that an interrupted unpacking is not repeated. ``folder`` holds the archive
    while it is read.

    Raises:
        DataError: it cannot be downloaded or lacks a member; the message says which, and what to do.
    """
    wanted = {name: path for name, path in members.items() if not path.is_file()}
    if not wanted:
        return
    try:
        with file_lock(folder / f".{Path(url).name}.lock", wait=patience.lock) as lock:
            if lock is None:
                raise DataError(Problem(f"another process has held the download for {patience.lock:g} s", str(folder)))
            reason = _from_archive(title, url, wanted, folder, say, patience)
    except OSError as error:
        raise DataError(Problem(f"the cache cannot be written: {error.strerror or error}", str(folder))) from None
    if reason:
        raise DataError(
            f"{title} could not be downloaded",
            Problem(reason, where=url),
            "get the archive yourself, unpack it, and give --data-dir (or SUITE_DATA) the folder that holds its own "
            "top folder",
        )


def _from_archive(
    title: str, url: str, wanted: Mapping[str, Path], folder: Path, say: Callable[[str], None], patience: Patience
) -> str | None:
    """Download and unpack; the reason why it cannot be done, or None."""
    say(f"downloading {title} from {urlsplit(url).netloc}")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
        try:
            archive = _retrieve(url, Path(temporary), "archive", patience)
            say(f"unpacking {len(wanted)} files of {title}")
            _unpack_all(archive, wanted, Path(temporary) / "member", patience)
        except _Unusable as error:
            return str(error)
    return None


def _unpack_all(archive: Path, members: Mapping[str, Path], temporary: Path, patience: Patience) -> None:
    """Copy the members to their places in one pass over the archive; no other member is touched."""
    left = dict(members)

    def keep(name: str, source: Any) -> None:
        target = left.pop(name)
        _copy(source, temporary, patience)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(temporary, target)

    with _reading_archive(archive):
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                for name in set(left) & set(file.namelist()):
                    with file.open(name) as member:
                        keep(name, member)
        else:
            with tarfile.open(archive, "r|*") as tar:
                for info in tar:
                    if (name := info.name.removeprefix("./")) in left and info.isfile():
                        keep(name, tar.extractfile(info))
                    if not left:
                        break
    if left:
        raise _Unusable(f"the archive has no {next(iter(left))}")


@contextmanager
def _reading_archive(path: Path) -> Iterator[None]:
    """Turn what reading a broken archive raises into one reason."""
    with path.open("rb") as file:
        if is_html(file.read(1000)):
            raise _Unusable("an HTML page instead of an archive")
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise _Unusable(f"the archive is damaged: {error}") from None


def _retrieve(url: str, folder: Path, name: str, patience: Patience) -> Path:
    """Download one URL into ``folder/name``."""
    # Slow to import, and needed only here.
    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")
    guard = _Guard(patience)
    inner = pooch.HTTPDownloader(
        headers={"User-Agent": USER_AGENT},
        timeout=(patience.connect, patience.read),
        chunk_size=1 << 16,
        progressbar=guard,
    )

    def downloader(url: str, output_file: Any, pooch: Any) -> None:
        guard.path = output_file
        try:
            inner(url, output_file, pooch)
        except requests.HTTPError as error:
            # Only a server's own trouble may pass; asking again for what is refused or absent is pointless.
            if error.response is None or error.response.status_code >= 500:
                raise
            raise _Unusable(str(error).partition(" for url")[0]) from None

    keeper = pooch.create(
        path=folder, base_url="", registry={name: None}, urls={name: url}, retry_if_failed=patience.retries
    )
    try:
        return Path(keeper.fetch(name, downloader=downloader))
    except requests.HTTPError as error:
        raise _Unusable(str(error).partition(" for url")[0]) from None
    except requests.Timeout:
        raise _Unusable(f"no answer within {patience.read:g} s") from None
    except requests.exceptions.SSLError:
        raise _Unusable("its TLS certificate was not accepted") from None
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
        raise _Unusable("the connection failed or was cut") from None
    except (requests.RequestException, ValueError) as error:
        raise _Unusable(f"{type(error).__name__}: {error}") from None


class _Guard:
    """Stops a download that trickles or never ends; takes the place of pooch's progress bar."""

    def __init__(self, patience: Patience) -> None:
        self.total = 0
        self.path = ""
        self._patience = patience
        self._deadline = time.monotonic() + patience.total

    def update(self, count: int) -> None:
        # ``count`` is the size of a full chunk whatever came; the file tells what did.
        if os.path.getsize(self.path) > self._patience.most_bytes:
            raise _Unusable(f"more than {self._patience.most_bytes:,} bytes")
        if time.monotonic() > self._deadline:
            raise _Unusable(f"not finished after {self._patience.total:g} s")

    def reset(self) -> None:
        """Nothing is counted here."""

    def close(self) -> None:
        """Nothing to close."""


def _unpacked(location: Location, path: Path, target: Path, patience: Patience) -> Path:
    """The file itself, or the archive's member copied to ``target``; no other member is touched."""
    if location.member is None:
        return path
    with _reading_archive(path):
        try:
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive, archive.open(location.member) as member:
                    _copy(member, target, patience)
            else:
                with tarfile.open(path) as tar:
                    extracted = tar.extractfile(location.member)
                    if extracted is None:
                        raise KeyError(location.member)
                    _copy(extracted, target, patience)
        except KeyError:
            raise _Unusable(f"the archive has no {location.member}") from None
    return target


def _copy(source: Any, target: Path, patience: Patience) -> None:
    with target.open("wb") as file:
        while chunk := source.read(1 << 20):
            file.write(chunk)
            if file.tell() > patience.most_bytes:
                raise _Unusable(f"the archive's member is larger than {patience.most_bytes:,} bytes")
