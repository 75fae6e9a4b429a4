"""The MLflow registry: a mirror of the records that can be rebuilt from them at any time. The only importer of mlflow.

Runs are told apart by the tag ``suite.run_key``. Everything is sent at most once: what a run already holds is read
back before anything is added, and the tag that marks a delivery complete is set last. Registries append and never
overwrite, so a run that was *continued* is continued there too, while one that was *done again* with another outcome
gets a fresh entry and the old one goes to the registry's trash, tagged ``suite.superseded``.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from suite.errors import InputError, SuiteError
from suite.records.difference import Held, changes, contradicts, is_delivered
from suite.records.files import file_lock
from suite.records.payload import Payload, Point, batches
from suite.records.registry import (
    RegistryUnavailable,
    SyncReport,
    artifact_folder,
    registry_uri,
    telling_line,
    unavailable,
    without_password,
)
from suite.records.sources import Source, find_sources, read_payload
from suite.records.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "softmax-bottleneck"
_METRICS_PER_BATCH = 500  # the registry takes 1000 metrics, 100 parameters, 100 tags and 1 MB at a time
_PAIRS_PER_BATCH = 100
_TAG_LENGTH = 5000  # some backends hold no longer tag
_BULK_LOOKUP = 8  # above this many changed runs, one listing of all is cheaper than a search for each

Say = Callable[[str], None]
Outcome = Literal["created", "updated", "unchanged"]


@dataclass
class _Sent:
    """What this process knows of one run's entry: its sources when last delivered, and the points it holds."""

    sources: tuple[Source, ...] = ()
    live: bool = False
    points: dict[tuple[str, int], float] | None = None


def sync(store: Store, uri: str | None = None, *, say: Say = lambda _message: None, wait: float = 600.0) -> SyncReport:
    """Bring the registry up to date with every record and every run that left only events.

    Waits at most ``wait`` seconds for another sync of the same results.

    Raises:
        RegistryUnavailable: MLflow cannot be imported or reached, or another sync did not end in time.
    """
    return Registry(store, uri).sync(say=say, wait=wait)


class Registry:
    """A connection to MLflow for one store; keeps what it has learnt, so that repeated syncs cost little.

    Raises:
        RegistryUnavailable: MLflow cannot be imported, or does not answer.
    """

    def __init__(self, store: Store, uri: str | None = None) -> None:
        self.store = store
        self.uri = uri or registry_uri(store)
        self._sent: dict[str, _Sent] = {}
        self._token = uuid.uuid4().bytes
        try:
            self.client, self.experiment_id = _connect(store, self.uri)
        except ImportError as error:
            raise RegistryUnavailable(
                f"MLflow cannot be imported ({error}); records are written all the same"
            ) from error
        except SuiteError:
            raise
        except Exception as error:  # MLflow, SQLAlchemy, sqlite3 and requests each raise their own
            raise RegistryUnavailable(unavailable(self.uri, error)) from error

    @cached_property
    def _takes_artifacts(self) -> bool:
        """False for a server that keeps artifacts in a folder that only its own machine can write."""
        location = str(self.client.get_experiment(self.experiment_id).artifact_location)
        is_folder = location.startswith(("/", "file:"))
        return not (self.uri.startswith("http") and is_folder) or Path(urlsplit(location).path).is_dir()

    def sync(self, *, say: Say = lambda _message: None, wait: float = 0.0) -> SyncReport:
        """Deliver what changed since the last call; see :func:`sync`."""
        with self._exclusively(wait):
            report = SyncReport()
            changed = {key: sources for key, sources in find_sources(self.store).items() if self._is_due(key, sources)}
            try:
                known = self._entries() if len(changed) > _BULK_LOOKUP else None
            except Exception as error:  # as above
                raise RegistryUnavailable(unavailable(self.uri, error)) from error
            for short_key, sources in changed.items():
                try:
                    self._sync_one(short_key, sources, known, report, say)
                except Exception as error:  # one bad run, whatever is wrong with it, must not stop the others
                    self._sent.pop(short_key, None)  # part of it may have arrived; read back next time
                    report.failed[short_key] = without_password(telling_line(error))
                    if _is_lost_connection(error):
                        raise RegistryUnavailable(unavailable(self.uri, error)) from error
            return report

    @contextmanager
    def _exclusively(self, wait: float) -> Iterator[None]:
        with file_lock(self.store.root / "sync.lock", wait=wait) as descriptor:
            if descriptor is None:
                raise RegistryUnavailable("another sync of these results is still at work; try again later")
            # Points another process delivered in between are not in this one's memory.
            if os.pread(descriptor, 16, 0) != self._token:
                for sent in self._sent.values():
                    sent.points = None
                os.pwrite(descriptor, self._token, 0)
            yield

    def _is_due(self, short_key: str, sources: tuple[Source, ...]) -> bool:
        sent = self._sent.get(short_key)
        return sent is None or sent.live or sent.sources != sources

    def _entries(self, query: str = "") -> dict[str, Run]:
        entries: dict[str, Run] = {}
        token = None
        while True:
            page = self.client.search_runs([self.experiment_id], query, max_results=1000, page_token=token)
            for run in page:
                if "suite.run_key" in run.data.tags:
                    self._take(run, entries)
            token = page.token
            if not token:
                return entries

    def _take(self, run: Run, entries: dict[str, Run]) -> None:
        """Enter a run. A request that was answered late is repeated and may make two: the fuller one counts."""
        known = entries.setdefault(run.data.tags["suite.run_key"], run)
        if known is not run:
            kept, spare = sorted((known, run), key=_fullness, reverse=True)
            entries[run.data.tags["suite.run_key"]] = kept
            self._retire(spare.info.run_id)

    def _retire(self, run_id: str) -> None:
        self.client.set_tag(run_id, "suite.superseded", "true")
        self.client.delete_run(run_id)

    def run_id(self, run_key: str) -> str | None:
        """MLflow's own name of a run's entry; None when it has none."""
        entry = self._entries(f"tags.`suite.run_key` = '{run_key}'").get(run_key)
        return str(entry.info.run_id) if entry else None

    def store_view(self, key: str, state: Mapping[str, Any]) -> bool:
        """Store a state of the UI's runs page under a name that a link can ask for; False when that is refused."""
        from mlflow.exceptions import MlflowException

        text = json.dumps(state, separators=(",", ":"))
        try:
            self.client.set_experiment_tag(self.experiment_id, f"mlflow.sharedViewState.{key}", text)
        except MlflowException:  # not documented, limited in length: whoever asks has a plain link to fall back on
            return False
        return True

    def _sync_one(
        self, short_key: str, sources: tuple[Source, ...], known: dict[str, Run] | None, report: SyncReport, say: Say
    ) -> None:
        payload = read_payload(self.store, sources)
        if payload is None:
            self._sent[short_key] = _Sent(sources)
            return
        key = payload.run_key
        entry = (self._entries(f"tags.`suite.run_key` = '{key}'") if known is None else known).get(key)
        sent = self._sent.setdefault(short_key, _Sent())
        held = Held.of(entry) if entry else None
        if held is not None and not is_delivered(payload, held):
            points = sent.points if sent.points is not None else self._points(held, payload)
            held = replace(held, points=points)
            if contradicts(payload, held):
                self._retire(held.run_id)
                held = None
        outcome = self._deliver(payload, held)
        getattr(report, outcome).append(key)
        if outcome != "unchanged":
            say(f"{outcome} {payload.name}")
        sent.sources, sent.live = sources, payload.live
        delivered = {(point.key, point.step): point.value for row in payload.rows for point in row}
        sent.points = {**delivered, **(held.points if held else {})} if payload.live else None

    def _points(self, held: Held, payload: Payload) -> dict[tuple[str, int], float]:
        keys = {point.key for row in payload.rows for point in row} & held.metrics.keys()
        history = self.client.get_metric_history
        return {(m.key, m.step): m.value for key in sorted(keys) for m in history(held.run_id, key)}

    def _deliver(self, payload: Payload, held: Held | None) -> Outcome:
        """Send what the entry lacks, in an order that leaves a killed delivery resumable."""
        if held is not None and is_delivered(payload, held):
            return "unchanged"
        missing = changes(payload, held)
        if held is None:
            tags = {key: value[:_TAG_LENGTH] for key, value in payload.tags.items()}
            run = self.client.create_run(self.experiment_id, payload.start, tags, payload.name)
            run_id, status = str(run.info.run_id), "RUNNING"
        else:
            run_id, status = held.run_id, held.status
            self._send_tags(run_id, missing.tags)
            if held.name != payload.name:
                self.client.update_run(run_id, name=payload.name)
        self._send_params(run_id, missing.params)
        if payload.dataset and not (held and held.has_dataset):
            self._send_dataset(run_id, payload.dataset)
        self._send_points(run_id, missing.points + missing.finals)
        self._send_points(run_id, [self._later(run_id, point) for point in missing.corrections])
        if payload.live:
            if status != "RUNNING":
                self.client.update_run(run_id, status="RUNNING")
        else:
            if self._takes_artifacts:
                for name, content in payload.artifacts.items():
                    self.client.log_text(run_id, content.decode("utf-8", "replace"), name)
            self.client.set_terminated(run_id, payload.status, payload.end)
            self.client.set_tag(run_id, *payload.marker)
        if held is None:
            return "created"
        return "updated" if missing or not payload.live else "unchanged"

    def _later(self, run_id: str, point: Point) -> Point:
        """The registry shows the latest time's value, and a run may go on where the clock is behind."""
        last = max(metric.timestamp for metric in self.client.get_metric_history(run_id, point.key))
        return point._replace(timestamp=max(point.timestamp, last + 1))

    def _send_params(self, run_id: str, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        for batch in batches([Param(*pair) for pair in params.items()], _PAIRS_PER_BATCH):
            self.client.log_batch(run_id, params=batch)

    def _send_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        for batch in batches([RunTag(key, value[:_TAG_LENGTH]) for key, value in tags.items()], _PAIRS_PER_BATCH):
            self.client.log_batch(run_id, tags=batch)

    def _send_points(self, run_id: str, points: Iterable[Point]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(point.key, point.value, point.timestamp, point.step) for point in points]
        for batch in batches(metrics, _METRICS_PER_BATCH):
            self.client.log_batch(run_id, metrics=batch)

    def _send_dataset(self, run_id: str, dataset: tuple[str, str]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        # The source may be licensed and lies on another machine; the checksums that identify it are the run's tags.
        described = Dataset(*dataset, source_type="local", source=json.dumps({"sha256": "tags suite.data.*"}))
        self.client.log_inputs(run_id, [DatasetInput(described, [InputTag("mlflow.data.context", "training")])])


def _fullness(run: Run) -> tuple[int, str]:
    return len(run.data.tags) + len(run.data.params) + len(run.data.metrics), run.info.run_id


def _connect(store: Store, uri: str) -> tuple[MlflowClient, str]:
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        # MLflow's own patience is many minutes, too long to tell a user that a server is away.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    }.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    logging.getLogger("alembic").setLevel(logging.WARNING)
    if uri.startswith("http"):
        client = MlflowClient(tracking_uri=uri)
        return client, _experiment(client, None)
    if not uri.startswith("sqlite:///"):
        raise InputError(f"MLFLOW_TRACKING_URI is {uri!r}; give an http(s) address or a sqlite:/// file")
    database = Path(uri.removeprefix("sqlite:///"))
    with ExitStack() as stack:
        # Two processes that create the tables of one file leave it broken for every later one.
        if stack.enter_context(file_lock(Path(f"{database}.lock"), wait=60)) is None:
            raise RegistryUnavailable(f"another process holds {database}.lock for more than a minute")
        if not database.exists():
            _make_database(database)
        client = MlflowClient(tracking_uri=uri)
        artifacts = artifact_folder(store)
        artifacts.mkdir(parents=True, exist_ok=True)  # its presence tells a client of a server that it may write here
        experiment_id = _experiment(client, artifacts.as_uri())
        connection = stack.enter_context(closing(sqlite3.connect(database)))
        connection.execute("PRAGMA journal_mode=WAL")  # readers and one writer at a time; stays with the file
    return client, experiment_id


def _make_database(path: Path) -> None:
    """Have MLflow make its tables in one step: killed in the middle, it leaves a file that it never opens again."""
    from mlflow import MlflowClient

    scratch = path.with_name(f".{path.name}.new")
    for left in (scratch, scratch.with_name(scratch.name + "-journal")):
        left.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    MlflowClient(tracking_uri=f"sqlite:///{scratch}")._tracking_client.store.engine.dispose()
    os.replace(scratch, path)


def _experiment(client: MlflowClient, artifacts: str | None) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None and found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    elif found is None:
        tags = {"mlflow.experimentKind": "custom_model_development"}  # else the UI opens on traces and judges
        try:
            return str(client.create_experiment(EXPERIMENT, artifacts, tags))
        except MlflowException as error:
            # Another machine may have created it a moment ago on the same server.
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return _experiment(client, artifacts)
    return str(found.experiment_id)


def _is_lost_connection(error: Exception) -> bool:
    from mlflow.exceptions import MlflowException, RestException

    return isinstance(error, MlflowException) and not isinstance(error, RestException) and "API request" in str(error)
