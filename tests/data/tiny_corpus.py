"""A made-up corpus small enough to read, with everything a real one has: blank lines, <unk>, outer blanks."""

from __future__ import annotations

import hashlib
from pathlib import Path

from suite.data.base import SPLITS, DataAccess, Split
from suite.data.sources import Corpus, Mirror, SplitFacts

TEXTS: dict[Split, str] = {
    "train": " the <unk> cat sat on the mat\n \n a dog <unk> saw N cats \n" * 40 + " then it slept for N years \n",
    "valid": " a cat saw the dog \n\n <unk> slept \n" * 5,
    "test": " the dog sat on a new <unk> \n" * 7,
}


def facts(text: str) -> SplitFacts:
    """Counts as the line-by-line definition gives them, independent of the code under test."""
    tokens = [token for line in text.removesuffix("\n").split("\n") for token in [*line.split(), "<eos>"]]
    data = text.encode()
    return SplitFacts(
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        tokens=len(tokens),
        content=hashlib.sha256(" ".join(tokens).encode()).hexdigest(),
    )


def make_corpus(mirrors: tuple[Mirror, ...] = ()) -> Corpus:
    return Corpus(
        name="tiny",
        title="Tiny Corpus",
        vocabulary_size=len({word for text in TEXTS.values() for word in text.split()} | {"<eos>"}),
        lower_case=True,
        splits={split: facts(text) for split, text in TEXTS.items()},
        layouts=("tiny/tiny.{split}.txt", "old/{split}.txt", "tiny.{split}.txt"),
        mirrors=mirrors,
    )


def write_corpus(folder: Path, template: str = "tiny/tiny.{split}.txt", **texts: str | bytes) -> Path:
    """Write the three files in one layout, some replaced by ``texts``; returns ``folder``."""
    for split in SPLITS:
        path = folder / template.format(split=split)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = texts.get(split, TEXTS[split])
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


class Lines(list[str]):
    """Collects what is said."""

    def access(self, data_dir: Path | None = None, *, offline: bool = True) -> DataAccess:
        return DataAccess(data_dir=data_dir, offline=offline, say=self.append)
