"""Arguments of the verbs around records (query, compare, export, import), and the types that options share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Protocol


class AddVerb(Protocol):
    """What makes a verb's parser from its name, its line in the overview and what its own help says first."""

    def __call__(self, name: str, summary: str, *, description: str = "") -> argparse.ArgumentParser:
        """The verb's parser, to be given its arguments."""
        ...


def positive(text: str) -> int:
    """A whole number above 0, as an option's value."""
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 10 and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)


def duration(text: str) -> float:
    """A number above 0, as an option's value."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text!r}")
    return value


def add_record_verbs(verb: AddVerb) -> None:
    """Add query, compare, export and import."""
    one = verb(
        "query",
        "the records that pass some conditions, as a table, CSV or JSON",
        description="List the records that pass every condition, one a row. Several = or ~ conditions on one key widen "
        "each\nother. Quote < and > from the shell.\n\n"
        "  suite query head=mos dataset=ptb 'test.ppl<60'\n"
        "  suite query 'head~*plif*' seed=1 --sort test.ppl:desc --columns head,test.ppl,lr,commit --format csv",
    )
    one.add_argument(
        "conditions",
        nargs="*",
        metavar="CONDITION",
        help="KEY OPERATOR VALUE without spaces; operators: = != < <= > >= and ~ (a glob)",
    )
    one.add_argument(
        "--columns", action="append", default=[], metavar="KEY,...", help="what to show (default: labels, scores, time)"
    )
    one.add_argument(
        "--sort", action="append", default=[], metavar="KEY[:desc],...", help="the first key counts most; repeatable"
    )
    one.add_argument("--limit", type=positive, metavar="N", help="the first N rows only")
    one.add_argument("--format", choices=["table", "markdown", "csv", "json"], default="table", help="default: table")
    one.add_argument("--keys", action="store_true", help="list the keys that the records have, and stop")

    one = verb(
        "compare",
        "runs side by side: what differs in their specs, metrics, curves, costs",
        description="Set runs side by side: the keys in which their specs differ, the metrics with the paired "
        "difference over\nshared seeds and its 95 % interval, the curves, and the costs as ratios to the first.\n\n"
        "  suite compare 1a2b3c4d 5e6f7a8b\n"
        "  suite compare task=demo,head=softmax task=demo,head=mos task=demo,head=plif",
    )
    one.add_argument(
        "sides",
        nargs="+",
        metavar="SIDE",
        help="two or more: first digits of a run key, a record file, or conditions as for query (KEY=VALUE,...) "
        "that leave one cell, all its seeds taken together",
    )

    one = verb(
        "export",
        "runs as one file to hand on, or the weights of a run",
        description="Write runs into a bundle: a zip file with their records, specs, environments and event logs, and "
        "a manifest with\nthe SHA-256 of each. The same runs give the same bytes; `suite import` verifies and adds "
        "them.",
    )
    one.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="first digits of a run key, a record file, or conditions as for query (KEY=VALUE,...)",
    )
    one.add_argument("--out", type=Path, metavar="FILE.zip", help="the bundle, a new file")
    one.add_argument(
        "--weights", type=Path, metavar="DIR", help="the weights of one run as sharded safetensors, in a new folder"
    )
    one.add_argument("--dtype", choices=["float16", "float32"], help="of the weights (default: float32)")
    one.add_argument("--shard-mib", type=duration, metavar="M", help="every file of weights under this (default 16)")

    one = verb(
        "import",
        "add records made on another machine",
        description="Add bundles, records and event logs made elsewhere. Everything is verified first, nothing in them "
        "is run, and a\ndifferent record that is here already is kept unless --replace.",
    )
    one.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="bundles, record files, folders of either, or the events.jsonl of a run that left no record",
    )
    one.add_argument("--replace", action="store_true", help="take the new one where a different record is here")
