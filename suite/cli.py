"""The command line: parses, calls a verb, prints errors and chooses the exit code; no other place does the last two."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from suite import __version__
from suite.arguments import add_record_verbs, duration, positive
from suite.errors import InputError, Interrupted, SuiteError, did_you_mean

EXIT_CODES = """\
exit codes:
  0    done
  1    a run failed, or a check did not hold
  2    the input was wrong: a task file, an option, a corpus, a record
  130  interrupted; the last checkpoint is whole and the same command goes on from it
"""

_OVERVIEW = """\
Train and evaluate output heads as task files describe them, and compare the results with published numbers.

A task file pairs datasets, encoders and heads with a recipe and seeds. Each combination is a cell; a finished cell
leaves one record, results/records/*.json, and is never run twice. Tables and the MLflow registry are made of records.
"""

_START = """\
to begin:
  suite list                          what there is to run
  suite plan demo                     the cells of tasks/demo.yaml, which are done, how long the rest takes
  suite run demo                      run them; interrupt at any time, the same command goes on
  suite report                        our numbers beside the published ones
  suite ui                            compare runs in the browser
"""


class _Parser(argparse.ArgumentParser):
    """Reports a wrong option like any other wrong input: one line, what to do, exit code 2."""

    def error(self, message: str) -> None:  # type: ignore[override]
        # Python's own wording of a wrong choice changes between releases and offers nothing similar.
        wrong = re.fullmatch(r"argument (.+): invalid choice: '(.*)' \(choose from (.*)\)", message)
        if wrong is not None:
            name, given, allowed = wrong.groups()
            message = (
                f"unknown {name.lower()} {given!r}.{did_you_mean(given, allowed.replace(chr(39), '').split(', '))}"
            )
        stop = "" if message.endswith((".", "?")) else "."
        raise InputError(f"{message}{stop} See `{self.prog} --help`.")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, but what is left over is refused here, where the verb and its options are known."""
        options, left = super().parse_known_args(args, namespace)
        if left and left[0].startswith("-"):
            known = re.findall(r"--[a-z][a-z-]*", self.format_usage())
            self.error(f"unknown option {left[0]}.{did_you_mean(left[0].partition('=')[0], known)}")
        elif left:
            self.error(f"unexpected argument {left[0]!r}")
        return options, left


def _cells(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tasks", nargs="+", metavar="TASK", help="task file, folder of task files, or name in tasks/")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="dataset=, encoder= or head=, globs allowed; repeatable",
    )
    parser.add_argument("--seed", action="append", type=int, default=[], metavar="N", help="this seed only; repeatable")
    parser.add_argument(
        "--max-epochs", type=positive, metavar="N", help="shorten the recipe; its record counts as a short run"
    )


def _data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="where corpora lie (default: SUITE_DATA, then the user's cache)"
    )
    parser.add_argument("--offline", action="store_true", help="never download")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = _Parser(
        prog="suite",
        description=_OVERVIEW,
        epilog=_START + "\n" + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"suite {__version__}")
    common = _Parser(add_help=False)
    common.add_argument(
        "--results",
        type=Path,
        default=Path(os.environ.get("SUITE_RESULTS", "results")),
        metavar="DIR",
        help="where records and run folders are kept (default: SUITE_RESULTS, else results)",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=_Parser)

    def verb(name: str, summary: str, *, description: str = "") -> argparse.ArgumentParser:
        return verbs.add_parser(
            name,
            parents=[common],
            help=summary,
            description=description or summary[0].upper() + summary[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    one = verb("list", "tasks, components with their options, and published numbers")
    one.add_argument(
        "what",
        nargs="?",
        choices=["tasks", "components", "published"],
        metavar="LIST",
        help="tasks, components or published (default: all three)",
    )
    one.add_argument("--schema", action="store_true", help="print the JSON Schema of task files, for editors")

    one = verb(
        "validate",
        "check task files, and build every model once without memory",
        description="Check task files: every error with its place, then every cell's model is built on a device "
        "without memory, so that sizes that do not fit are found before anything is trained.",
    )
    one.add_argument("tasks", nargs="*", metavar="TASK", help="task files or names (default: all of tasks/)")

    one = verb(
        "plan",
        "the cells a run would take, which are done, and how long the rest may take",
        description="What `suite run` would do, a line for the seeds of a dataset and method. The estimate of a run is "
        "the total of one that differs in the seed alone; else its epochs at the time of an epoch of the likest run "
        "(~ of other arithmetic or output function, packed, or of a single epoch; ≤ a bound: of a larger one, or with "
        "finetuning, which may stop sooner), and its validations.",
    )
    _cells(one)
    one.add_argument("--all", action="store_true", help="a line for every seed, with its run key")

    one = verb(
        "profile",
        "where the time of a cell's training step goes",
        description="Train one cell for a few steps, print the time of each part of a step, and write a chrome trace.",
    )
    _cells(one)
    _data(one)
    one.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is a GPU")
    one.add_argument("--steps", type=positive, default=20, metavar="N", help="how many are looked at (default 20)")
    one.add_argument("--out", type=Path, metavar="DIR", help="for the traces (default: .profile/RUN)")

    one = verb(
        "run",
        "train and evaluate the cells of tasks",
        description="Train and evaluate every cell that has no finished record. Ctrl-C stops at the next step with a "
        "checkpoint; the same command goes on from there.",
    )
    _cells(one)
    _data(one)
    one.add_argument(
        "--max-minutes",
        type=duration,
        metavar="M",
        help="stop cleanly at a checkpoint after this long; run again to go on",
    )
    one.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is a GPU")
    one.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: one a core that it may use)")
    one.add_argument(
        "--pack", type=positive, default=1, metavar="S", help="S runs at once on one GPU; their costs do not count"
    )
    one.add_argument("--eager", action="store_true", help="launch every kernel from Python, replay no CUDA graph")
    one.add_argument("--rerun", action="store_true", help="run finished cells again and replace their records")
    one.add_argument(
        "--train-from",
        type=Path,
        metavar="DIR",
        help="of one cell, whose train stage is not repeated: go on with that of a run that trained alike, from what "
        "`suite export RUN --weights DIR` wrote",
    )
    one.add_argument("--no-mlflow", action="store_true", help="write records only; `suite sync` can mirror them later")
    one.add_argument(
        "--checkpoint-seconds",
        type=duration,
        default=30.0,
        metavar="S",
        help="how often a run saves its state (default 30)",
    )

    one = verb(
        "check",
        "the gate: small tasks measured again, compared with their baselines",
        description="Run the tasks of tasks/ci on the CPU and compare with baselines/ci: perplexity within an interval "
        "learned\nfrom seeds, parameters and operations exactly, time and memory of a step as multiples of a plain "
        "torch step's.\nA change that is meant: --update --reason TEXT, and commit the baselines with it.",
    )
    one.add_argument("names", nargs="*", metavar="NAME", help="of a file in tasks/ci, without .yaml (default: all)")
    one.add_argument("--update", action="store_true", help="learn the baselines anew; needs --reason")
    one.add_argument("--reason", metavar="TEXT", help="why the numbers may change, kept in the baseline")
    one.add_argument("--format", choices=["table", "markdown"], default="table", help="default: table")

    one = verb("report", "the leaderboard: our records beside the published numbers")
    one.add_argument("--all", action="store_true", help="also the published tables we have no run for")
    one.add_argument(
        "--task", action="append", default=[], metavar="NAME", help="records of this task only; repeatable"
    )
    one.add_argument(
        "--write",
        action="store_true",
        help="write LEADERBOARD.md, leaderboard.csv and .tex, CLAIMS.md, COSTS.md, HEADS.md, REPRODUCE.md and the web "
        "page site/index.html into the results folder",
    )
    one.add_argument(
        "--write-into",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help="with --write: also put our tables between the leaderboard markers of this Markdown file; repeatable",
    )
    one.add_argument("--csv", action="store_true", help="print the table as CSV")
    one.add_argument(
        "--figures", action="store_true", help="draw the figures that the records allow into the results folder"
    )

    one = verb("show", "one record: what was asked, what came out, what it cost, where it ran")
    one.add_argument("run", metavar="RUN", help="first digits of the run key, or a record file")

    add_record_verbs(verb)

    verb("sync", "bring the MLflow registry up to date with the records")

    one = verb("data", "verify or fetch corpora")
    one.add_argument("action", choices=["verify", "fetch"])
    one.add_argument("names", nargs="*", metavar="CORPUS", help="default: all")
    _data(one)

    one = verb(
        "ui", "open the MLflow UI on the runs", description="Mirror the records and serve the MLflow UI on 127.0.0.1."
    )
    one.add_argument("--port", type=positive, default=5000, metavar="N", help="on 127.0.0.1 (default 5000)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the ``suite`` command; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    earlier = signal.signal(signal.SIGTERM, _ended) if threading.current_thread() is threading.main_thread() else None
    try:
        options = build_parser().parse_args(arguments)
        if options.results.exists() and not options.results.is_dir():
            raise InputError(f"--results {options.results}: not a folder; name the one that holds the results")
        # Imported here so that --help answers at once.
        from suite import verbs

        code = verbs.call(options.verb, options, arguments)
        sys.stdout.flush()  # here, where a reader that has gone is still expected
        return code
    except InputError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return error.exit_code
    except Interrupted as error:
        print(f"stopped: {error}. The same command goes on from the last checkpoint.", file=sys.stderr)
        return error.exit_code
    except SuiteError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        return Interrupted.exit_code
    except BrokenPipeError:
        # The reader of a pipe (head, less) closed it: not an error, and nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # The machine's affair (a full disk, a folder that cannot be written), which a traceback would not explain.
        print(f"error: {error.filename or 'the system'}: {error.strerror or error}", file=sys.stderr)
        return SuiteError.exit_code
    finally:
        if earlier is not None:
            signal.signal(signal.SIGTERM, earlier)


def _ended(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM where nothing is under way that has a way of its own to stop: while torch is imported, say."""
    raise Interrupted("asked to end")


if __name__ == "__main__":
    sys.exit(main())
