"""MLflow dies, stalls, refuses or answers late at any request: a sync later the registry has every run once, whole."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tallies import TORTURE, Tally, times

from suite.records.record import Record
from suite.records.registry import RegistryUnavailable
from suite.records.store import Store
from suite.records.tracking import Registry, sync

pytest.importorskip("mlflow")

pytestmark = [
    # As in tests/records/test_tracking.py.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    pytest.mark.filterwarnings("ignore:unclosed database in:ResourceWarning"),
    # MLflow's server, which here runs in this process.
    pytest.mark.filterwarnings("ignore:starlette.middleware.wsgi is deprecated"),
]

Counted = Callable[[str, str], Tally]
PATIENCE = 1  # seconds a client waits here; a late answer comes after more


class Faulty:
    """MLflow's own server application, where request number ``at``, and those after it unless ``once``, go wrong."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self.kind = ""
        self.at = 0
        self.once = False
        self.count = 0

    def arm(self, kind: str, at: int, once: bool) -> None:
        self.kind, self.at, self.once, self.count = kind, at, once, 0

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        self.count += 1
        hit = self.kind and (self.count == self.at if self.once else self.count >= self.at)
        if hit and self.kind == "dies":
            environ["werkzeug.socket"].close()
            raise ConnectionError
        if hit and self.kind == "breaks":
            start("500 Internal Server Error", [("Content-Length", "0")])
            return [b""]
        if hit and self.kind == "refuses":
            body = b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "not that one"}'
            start("400 Bad Request", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
            return [body]
        answer: Iterable[bytes] = self._application(environ, start)
        if hit and self.kind == "late":
            time.sleep(1.3 * PATIENCE)
        return answer


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry that knows the experiment and no run."""
    store = Store(tmp_path_factory.mktemp("registry"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sync(store)
    with closing(sqlite3.connect(store.root / "mlflow.db")) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return store.root / "mlflow.db"


@contextmanager
def serving(database: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Faulty, str]]:
    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", f"sqlite:///{database}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")  # the server overwrites it
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", (database.parent / "artifacts").as_uri())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.server.handlers as handlers
        from mlflow.server import app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *_arguments: Any) -> None:
            pass

    monkeypatch.setattr(handlers, "_tracking_store", None)
    faulty = Faulty(app.wsgi_app)
    server = make_server("127.0.0.1", 0, faulty, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield faulty, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def held(database: Path) -> list[tuple[Any, ...]]:
    """Every run that is not in the trash, with its numbers, parameters and delivery mark."""
    with closing(sqlite3.connect(database)) as connection:
        runs = connection.execute("select run_uuid, name, status from runs where lifecycle_stage = 'active'").fetchall()
        return sorted(
            (
                name,
                status,
                sorted(connection.execute("select key, value, step from metrics where run_uuid = ?", (run,))),
                sorted(connection.execute("select key, value from params where run_uuid = ?", (run,))),
                connection.execute(
                    "select count(*) from tags where key = 'suite.record_sha256' and run_uuid = ?", (run,)
                ).fetchone(),
            )
            for run, name, status in runs
        )


KINDS = {
    "dies": ("MLflow dies while it is written to", "the connection breaks at request n and from then on", False),
    "breaks": ("MLflow answers 500", "from request n on", False),
    "refuses": ("MLflow refuses a value", "400 at request n alone", True),
    "late": ("MLflow answers late", "request n is done and answered after the client's patience", True),
}


@pytest.mark.filterwarnings("ignore:Exception in thread")
@pytest.mark.parametrize("kind", KINDS if TORTURE else ["late"])
def test_a_server(
    kind: str,
    made: Callable[[int], Record],
    template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tally: Counted,
) -> None:
    for name, value in (("MAX_RETRIES", "1"), ("TIMEOUT", str(PATIENCE)), ("BACKOFF_FACTOR", "0")):
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", value)
    fault, how, once = KINDS[kind]
    row = tally(fault, how)
    store = Store(tmp_path / "results")
    for seed in (1, 2):
        store.write(made(seed))
    counted, whole = undisturbed(store, template, tmp_path / "whole", monkeypatch)
    assert len(whole) == 2
    # The first to make a run, which must not be made twice, is the third; then every one.
    for at in [3, *range(1, counted + 1)][: times(1, counted + 1)]:
        database = tmp_path / str(at) / "mlflow.db"
        database.parent.mkdir(exist_ok=True)
        shutil.copy(template, database)
        with serving(database, monkeypatch) as (server, address):
            server.arm(kind, at, once)
            with suppress(RegistryUnavailable):
                Registry(store, address).sync()
            server.arm("", 0, False)
            time.sleep(0.4 * PATIENCE if kind == "late" else 0)
            report = Registry(store, address).sync()
        row.tried += 1
        row.lost += not (report.failed == {} and held(database) == whole)
        assert row.lost == 0, (at, report, held(database))


def undisturbed(
    store: Store, template: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, list[tuple[Any, ...]]]:
    """How many requests a delivery takes, and what the registry then holds."""
    folder.mkdir()
    database = Path(shutil.copy(template, folder / "mlflow.db"))
    with serving(database, monkeypatch) as (server, address):
        Registry(store, address).sync()
    return server.count, held(database)


HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not TORTURE, reason="MLflow tries for 20 seconds: make torture")
def test_a_database_that_another_process_locks(
    made: Callable[[int], Record], template: Path, tmp_path: Path, tally: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    row = tally("MLflow's database is locked by another process", "an exclusive transaction is held in SQLite")
    for name, value in (("TIMEOUT", "1"), ("RETRY_INTERVAL", "1")):
        monkeypatch.setenv(f"MLFLOW_SQLALCHEMYSTORE_{name}", value)
    for place in range(5):
        store = Store(tmp_path / str(place))
        store.write(made(1))
        database = Path(shutil.copy(template, store.root / "mlflow.db"))
        registry = Registry(store)
        failed = ""
        with subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            try:
                failed = str(registry.sync().failed)
            except RegistryUnavailable as error:
                failed = str(error)
            other.communicate("")
        report = sync(store)
        row.tried += 1
        row.lost += not ("locked" in failed and len(report.created) == 1 and len(held(database)) == 1)
        assert row.lost == 0, (failed, report)


@pytest.fixture
def made() -> Callable[[int], Record]:
    """A made-up finished record of a seed."""
    from records_factory import make_record

    return lambda seed: make_record(seed=seed, costs={"seconds_per_epoch": 2.0})
