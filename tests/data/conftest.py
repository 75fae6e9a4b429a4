"""The made-up corpus as a dataset, with a cache of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_corpus import Lines, make_corpus

from suite.data import corpora
from suite.data.sources import Corpus, Mirror


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The suite's cache folder, empty and in ``tmp_path``; no SUITE_DATA."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SUITE_DATA", raising=False)
    return tmp_path / "cache" / "softmax-bottleneck-suite"


@pytest.fixture
def tiny(cache: Path, monkeypatch: pytest.MonkeyPatch) -> type[corpora.PennTreebank]:
    """A dataset component for the made-up corpus, known to ``verify`` and ``fetch``."""

    class Tiny(corpora.PennTreebank):
        corpus = make_corpus()

    monkeypatch.setattr(corpora, "_CORPORA", {"tiny": Tiny.corpus})
    return Tiny


@pytest.fixture
def said() -> Lines:
    return Lines()


@pytest.fixture
def with_mirrors(tiny: type[corpora.PennTreebank], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Corpus]:
    """Give the made-up corpus mirrors."""

    def give(*mirrors: Mirror) -> Corpus:
        corpus = replace(tiny.corpus, mirrors=mirrors)
        monkeypatch.setattr(tiny, "corpus", corpus)
        monkeypatch.setattr(corpora, "_CORPORA", {"tiny": corpus})
        return corpus

    return give
