"""Where the registry is, what a sync reports, and how a registry that cannot be used is described; no MLflow here."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from suite.errors import SuiteError
from suite.records.store import Store


class RegistryUnavailable(SuiteError):
    """MLflow is not installed, does not answer, or refuses its database; records are unaffected."""


@dataclass
class SyncReport:
    """What a sync did, by run key; ``failed``, by its first 12 digits, says why. A later sync sends what failed."""

    created: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def registry_uri(store: Store) -> str:
    """``MLFLOW_TRACKING_URI``, or the SQLite file ``mlflow.db`` in the results folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{store.root.resolve() / 'mlflow.db'}"


def artifact_folder(store: Store) -> Path:
    """Where a local registry keeps artifacts."""
    return store.root.resolve() / "mlartifacts"


def unavailable(uri: str, error: Exception) -> str:
    """The message of a registry that cannot be used: which, why, and what to do."""
    if uri.startswith("sqlite:"):
        remedy = "records are safe; move the file away and run `suite sync` to rebuild it from them"
    else:
        remedy = "records are safe; run `suite sync` when it is back"
    reason = telling_line(error)
    # requests wraps the cause in a paragraph of its own; the cause stands last.
    cause = re.search(r"\] (Connection refused|No route to host|Name or service not known)|(timed out)", reason)
    reason = (cause[1] or cause[2]).lower() if cause else reason
    return without_password(f"MLflow at {uri} is not available: {reason}; {remedy}")


def without_password(text: str) -> str:
    """``text`` without the user and password of any address in it."""
    return re.sub(r"://[^/@\s]*@", "://", text)


def telling_line(error: Exception) -> str:
    """The first line of an error's message that tells something, or its type when it has none."""
    # SQLAlchemy says when it noticed before it says what, which is that another process holds the database.
    lines = [line for line in str(error).strip().splitlines() if not line.startswith("(raised as a result of")]
    return lines[0] if lines else type(error).__name__
