from __future__ import annotations

import io
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from tiny_corpus import TEXTS, Lines, make_corpus, write_corpus

from suite.data import corpora
from suite.data.base import SPLITS
from suite.data.download import Patience, download, download_archive
from suite.data.sources import Corpus, Location, Mirror
from suite.errors import DataError

QUICK = Patience(connect=2.0, read=0.3, total=5.0, retries=0)


def archive(kind: str, members: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as file:
            for name, text in members.items():
                file.writestr(name, text)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for name, text in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(text.encode())
                tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


class Handler(BaseHTTPRequestHandler):
    """Serves the made-up corpus: ``/good/``, and every way in which a mirror fails."""

    server: Server

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers["User-Agent"]))
        kind, _, name = self.path[1:].partition("/")
        members = {f"./tiny/{split}.txt": text for split, text in TEXTS.items()}
        if kind == "hang":
            self.server.released.wait(5)
            return None
        if kind in ("404", "503") or (kind == "flaky" and len(self.server.requests) == 1):
            return self.send_error(503 if kind == "flaky" else int(kind))
        if kind == "picky" and "Python" in self.headers["User-Agent"]:
            return self.send_error(403)
        body = {
            "html": b"<!doctype html><title>Sign in</title>",
            "wrong": b" some other text with an <unk> \n" * 200,
            "zip": archive("zip", members),
            "tgz": archive("tgz", members),
            "notzip": b"PK\x03\x04 but then nonsense",
        }.get(kind) or TEXTS[name].encode()  # type: ignore[index]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) + (99 if kind == "cut" else 0)))
        self.end_headers()
        try:
            for start in range(0, len(body), 400):
                self.wfile.write(body[start : start + 400])
                if kind in ("trickle", "slow"):
                    self.wfile.flush()
                    self.server.released.wait(0.1)
        except OSError:
            self.close_connection = True
        return None

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test output clean."""


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str]] = []
        self.released = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"

    def mirror(self, kind: str) -> Mirror:
        return {split: Location(self.url(f"{kind}/{split}")) for split in SPLITS}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


def check_files(folder: Path) -> None:
    assert {split: (folder / f"tiny.{split}.txt").read_text() for split in SPLITS} == TEXTS
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"tiny.{split}.txt" for split in SPLITS)


def test_load_downloads_what_no_folder_has(
    server: Server, tiny: Any, cache: Path, with_mirrors: Callable[..., Corpus], said: Lines
) -> None:
    with_mirrors(server.mirror("picky"))
    data = tiny().load(said.access(offline=False))
    assert len(data.streams["valid"]) == tiny.corpus.splits["valid"].tokens
    check_files(cache / "corpora/tiny")
    assert said == [f"downloading Tiny Corpus from 127.0.0.1:{server.server_port}"]
    assert len(server.requests) == 3
    assert corpora.fetch("tiny", said.access()) == cache / "corpora/tiny"


def test_offline_never_asks_a_mirror(
    server: Server, tiny: Any, with_mirrors: Callable[..., Corpus], said: Lines
) -> None:
    with_mirrors(server.mirror("good"))
    with pytest.raises(DataError, match="was not found in"):
        tiny().load(said.access(offline=True))
    assert server.requests == []


FAILURES = {
    "404": "404 Client Error: Not Found",
    "503": "503 Server Error: Service Unavailable",
    "html": "train: an HTML page instead of text, such as a sign-in or error page",
    "hang": "no answer within 0.3 s",
    "cut": "the connection failed or was cut",
    "wrong": None,
}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_bad_mirror_is_left_with_the_reason_for_the_next(
    server: Server, tmp_path: Path, said: Lines, kind: str
) -> None:
    corpus = make_corpus((server.mirror(kind), server.mirror("good")))
    download(corpus, tmp_path, said.append, QUICK)
    check_files(tmp_path / "tiny")
    site = f"127.0.0.1:{server.server_port}"
    reason = FAILURES[kind] or "train: 1,400 tokens with <eos> (200 lines) instead of 647"
    trying = f"downloading Tiny Corpus from {site}"
    assert said == [trying, f"{site}: {reason}", trying]


@pytest.mark.parametrize(("kind", "attempts"), [("404", 1), ("503", 2), ("flaky", 2)])
def test_only_what_may_pass_is_tried_again(
    server: Server, tmp_path: Path, said: Lines, kind: str, attempts: int
) -> None:
    corpus = make_corpus((server.mirror(kind), server.mirror("good")))
    download(corpus, tmp_path, said.append, Patience(retries=1))
    assert [path for path, _ in server.requests].count(f"/{kind}/train") == attempts
    assert (kind == "flaky") == (len(said) == 1)


def test_endless_and_oversized_answers_are_cut_off(server: Server, tmp_path: Path, said: Lines) -> None:
    corpus = make_corpus((server.mirror("trickle"),))
    with pytest.raises(DataError, match=r"not finished after 0\.1 s"):
        download(corpus, tmp_path, said.append, Patience(total=0.1, retries=0))
    corpus = make_corpus((server.mirror("wrong"),))
    with pytest.raises(DataError, match="more than 1,000 bytes"):
        download(corpus, tmp_path, said.append, Patience(most_bytes=1000, retries=0))


def test_when_all_mirrors_fail_each_is_named_with_its_reason(server: Server, tmp_path: Path, said: Lines) -> None:
    closed = {split: Location("http://127.0.0.1:9/x") for split in SPLITS}
    corpus = make_corpus((server.mirror("404"), closed))
    with pytest.raises(DataError) as caught:
        download(corpus, tmp_path, said.append, QUICK)
    assert str(caught.value).splitlines() == [
        "Tiny Corpus could not be downloaded",
        f"{server.url('404/train')}: 404 Client Error: Not Found",
        "http://127.0.0.1:9/x: the connection failed or was cut",
        "get the files yourself and give --data-dir (or SUITE_DATA) the folder that holds "
        "tiny/tiny.{train,valid,test}.txt",
    ]
    assert list((tmp_path / "tiny").iterdir()) == []


def from_archive(server: Server, kind: str, member: str = "./tiny/{split}.txt") -> Corpus:
    location = {split: Location(server.url(kind), member.format(split=split)) for split in SPLITS}
    return make_corpus((location,))


@pytest.mark.parametrize("kind", ["zip", "tgz"])
def test_an_archive_is_downloaded_once_for_all_splits(server: Server, tmp_path: Path, said: Lines, kind: str) -> None:
    download(from_archive(server, kind), tmp_path, said.append, QUICK)
    check_files(tmp_path / "tiny")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("html", "an HTML page instead of an archive"),
        ("notzip", "the archive is damaged: file could not be opened successfully"),
        ("zip", "the archive has no other/train"),
        ("tgz", "the archive has no other/train"),
    ],
)
def test_an_archive_that_does_not_hold_the_files(
    server: Server, tmp_path: Path, said: Lines, kind: str, reason: str
) -> None:
    corpus = from_archive(server, kind, "other/{split}" if kind != "html" else "./tiny/{split}.txt")
    with pytest.raises(DataError) as caught:
        download(corpus, tmp_path, said.append, QUICK)
    assert caught.value.problems[1].message.startswith(reason)


def test_a_member_that_unpacks_to_too_much(server: Server, tmp_path: Path, said: Lines) -> None:
    packed = len(archive("tgz", {f"./tiny/{split}.txt": text for split, text in TEXTS.items()}))
    assert packed < 1000 < len(TEXTS["train"])
    with pytest.raises(DataError, match="the archive's member is larger than 1,000 bytes"):
        download(from_archive(server, "tgz"), tmp_path, said.append, Patience(most_bytes=1000, retries=0))


def test_a_damaged_or_partial_download_is_replaced(
    server: Server, tiny: Any, cache: Path, with_mirrors: Callable[..., Corpus], said: Lines
) -> None:
    with_mirrors(server.mirror("good"))
    write_corpus(cache / "corpora", valid=TEXTS["valid"][:50])
    with pytest.raises(DataError, match="not the valid split"):
        corpora.fetch("tiny", said.access())
    corpora.fetch("tiny", said.access(offline=False))
    check_files(cache / "corpora/tiny")
    assert said[0] == "the downloaded copy of Tiny Corpus is damaged; it is downloaded again"
    (cache / "corpora/tiny/tiny.test.txt").unlink()
    corpora.fetch("tiny", said.access(offline=False))
    check_files(cache / "corpora/tiny")


def test_a_folder_that_cannot_be_written_is_a_clear_error(server: Server, tmp_path: Path, said: Lines) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError) as caught:
        download(make_corpus((server.mirror("good"),)), tmp_path / "file", said.append, QUICK)
    assert str(caught.value).startswith(f"{tmp_path / 'file'}: the cache cannot be written: ")


def _download(folder: Path, mirror: Mirror) -> list[str]:
    said: list[str] = []
    download(make_corpus((mirror,)), folder, said.append)
    return said


def test_processes_that_need_the_same_corpus_download_it_once(server: Server, tmp_path: Path) -> None:
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        results = [pool.submit(_download, tmp_path, server.mirror("slow")) for _ in range(3)]
        told = [result.result(timeout=60) for result in results]
    assert len(server.requests) == 3
    assert sum("downloading" in line for lines in told for line in lines) == 1
    check_files(tmp_path / "tiny")


def test_a_lock_that_is_never_let_go_is_reported(tmp_path: Path, said: Lines) -> None:
    import fcntl

    with (tmp_path / ".tiny.lock").open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        began = time.monotonic()
        with pytest.raises(DataError) as caught:
            download(make_corpus(), tmp_path, said.append, Patience(lock=0.2))
    assert time.monotonic() - began < 5
    assert str(caught.value) == f"{tmp_path / '.tiny.lock'}: another process has held this lock for 0.2 s"
    assert said == ["waiting for another process that downloads Tiny Corpus"]


def test_every_real_mirror_serves_all_three_splits_of_one_site() -> None:
    for name in corpora.names():
        corpus = corpora._CORPORA[name]
        assert len(corpus.mirrors) >= 2
        for mirror in corpus.mirrors:
            assert set(mirror) == set(SPLITS)
            assert all(split in (mirror[split].member or mirror[split].url) for split in SPLITS)


@pytest.mark.parametrize("kind", ["zip", "tgz"])
def test_members_of_an_archive_are_put_in_their_places_once(server: Server, tmp_path: Path, kind: str) -> None:
    prefix = "./" if kind == "zip" else ""
    places = {f"{prefix}tiny/{split}.txt": tmp_path / "cache" / f"own/{split}" for split in ("train", "test")}
    said = Lines()
    for _ in range(2):
        download_archive("Tiny Corpus", server.url(f"{kind}/all"), places, tmp_path / "cache", said.append, QUICK)
    assert [path.read_text() for path in places.values()] == [TEXTS["train"], TEXTS["test"]]
    assert len(server.requests) == 1
    assert said == [f"downloading Tiny Corpus from 127.0.0.1:{server.server_port}", "unpacking 2 files of Tiny Corpus"]
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [".all.lock", "own"]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("404", "404 Client Error: Not Found"),
        ("html", "an HTML page instead of an archive"),
        ("tgz", "the archive has no tiny/absent.txt"),
    ],
)
def test_an_archive_that_cannot_be_had_says_what_to_do(server: Server, tmp_path: Path, kind: str, reason: str) -> None:
    url = server.url(f"{kind}/all")
    with pytest.raises(DataError) as caught:
        download_archive("Tiny Corpus", url, {"tiny/absent.txt": tmp_path / "x"}, tmp_path, [].append, QUICK)
    assert str(caught.value) == (
        f"Tiny Corpus could not be downloaded\n{url}: {reason}\nget the archive yourself, unpack it, and give "
        "--data-dir (or SUITE_DATA) the folder that holds its own top folder"
    )
    assert not (tmp_path / "x").exists()
