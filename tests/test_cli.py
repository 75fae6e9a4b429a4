"""The command line: help, wrong input, and the verbs that only look."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_tasks import TINY, Desk, one_record

from suite.cli import build_parser
from suite.verbs import VERBS


@pytest.mark.parametrize("verb", [None, *VERBS])
def test_every_verb_explains_itself(verb: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        build_parser().parse_args([*([verb] if verb else []), "--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: suite {verb or '[-h]'}")
    if verb is None:
        assert all(re.search(rf"^    {name} ", text, re.MULTILINE) for name in VERBS)
        assert "exit codes:\n  0    done\n  1    " in text
    for line in text.splitlines():
        # An option without a word of explanation is no help.
        assert not re.fullmatch(r"  --[a-z-]+( [A-Z]+)?", line) or text.split(line + "\n")[1].startswith("      ")


def test_every_verb_has_a_parser_and_every_parser_a_verb() -> None:
    assert set(re.findall(r"^    ([a-z]+) ", build_parser().format_help(), re.MULTILINE)) == set(VERBS)


HEADS = "Labels: softmax, mos-2"
KEYS = "Allowed: dataset, encoder, head."
NO_FOLDER = "not a folder; name the one that holds the results"


@pytest.mark.parametrize(
    ("line", "message", "see"),
    [
        ("", "the following arguments are required: VERB.", ""),
        ("rnu tiny", "unknown verb 'rnu'. Did you mean 'run'?", ""),
        ("--quiet list", "unknown option --quiet. Allowed: --version.", ""),
        ("run", "the following arguments are required: TASK.", "run"),
        ("run tiny --sed 1", "unknown option --sed. Did you mean '--seed'?", "run"),
        ("run tiny --resutls=x", "unknown option --resutls=x. Did you mean '--results'?", "run"),
        ("run tiny --seed x", "argument --seed: invalid int value: 'x'.", "run"),
        ("run tiny --seed 9", "--seed 9: no run has it. Seeds: 1, 2", None),
        ("run tiny --max-epochs 0", "argument --max-epochs: expected a positive integer, got '0'.", "run"),
        ("run tiny --max-minutes nan", "argument --max-minutes: expected a positive number, got 'nan'.", "run"),
        ("run tiny --max-minutes soon", "argument --max-minutes: expected a positive number, got 'soon'.", "run"),
        ("plan tiny --max-epochs 1.5", "argument --max-epochs: expected a positive integer, got '1.5'.", "plan"),
        ("run tiny --device gpu", "unknown --device 'gpu'. Did you mean 'cpu'?", "run"),
        ("run tinny", "no task file 'tinny'. Did you mean 'tiny'? Allowed: tiny.", None),
        ("plan tiny --only hed=mos", f"--only hed=mos: unknown key 'hed'. Did you mean 'head'? {KEYS}", None),
        ("plan tiny --only head=mso", f"--only head=mso: no head matches 'mso'. {HEADS}", None),
        ("plan tiny --only mos", "--only mos: expected key=value, for example head=mos", None),
        ("run tiny --data-dir nowhere", "--data-dir nowhere: no such folder", None),
        ("list tsks", "unknown list 'tsks'. Did you mean 'tasks'?", "list"),
        ("list tasks heads", "unexpected argument 'heads'.", "list"),
        ("data look", "unknown action 'look'. Allowed: fetch, verify.", "data"),
        ("data verify pbt", "unknown corpus 'pbt'. Did you mean 'ptb'?", None),
        ("report --task tiny", "no records of task tiny in results; there are records of: none", None),
        ("report --results tasks/tiny.yaml", f"--results tasks/tiny.yaml: {NO_FOLDER}", None),
        ("query head=mos", "no records in results: `suite run demo` makes some, `suite import` adds others'", None),
        ("query --sort a:up", "no records in results: `suite run demo` makes some, `suite import` adds others'", None),
        ("query --format xls", "unknown --format 'xls'. Allowed: csv, json, markdown, table.", "query"),
        ("compare 12ab", "compare sets 2 to 26 sides beside each other, not 1", None),
        ("show 1234", "no record matches '1234': results/records holds none; run a task first", None),
        ("ui --port http", "argument --port: expected a positive integer, got 'http'.", "ui"),
    ],
)  # fmt: skip
def test_wrong_input_gets_one_line_that_says_what_to_do(desk: Desk, line: str, message: str, see: str | None) -> None:
    more = "" if see is None else f" See `{' '.join(['suite', *see.split()])} --help`."
    assert desk.suite(*line.split()) == (2, "", f"error: {message}{more}\n")
    assert not desk.results.exists()


def test_every_error_of_a_task_file_is_told_at_once(desk: Desk) -> None:
    desk.write("tasks/tiny.yaml", TINY.replace("experts: 2", "expert: 2").replace("bptt: 20", "bptt: no"))
    code, out, err = desk.run("tiny")
    assert (code, out) == (2, "")
    first, second = err.splitlines()
    assert first.startswith("error: tasks/tiny.yaml:8:17: heads[1].expert: unknown key. Did you mean 'experts'?")
    assert second.startswith("error: tasks/tiny.yaml:12:9: recipe.bptt: expected ")


def test_a_head_that_does_not_exist(desk: Desk) -> None:
    desk.write("tasks/tiny.yaml", TINY.replace("name: mos,", "name: mso,"))
    code, _, err = desk.suite("plan", "tiny")
    known = "Did you mean 'mos'? Allowed: moc, mos, softmax."
    assert (code, err) == (2, f"error: tasks/tiny.yaml:8:12: heads[1].name: unknown head 'mso'. {known}\n")


def test_sizes_that_do_not_fit_are_found_before_anything_is_trained(desk: Desk) -> None:
    tied = "{name: lstm, embedding: 6, hidden: [8], tied: true}"
    text = TINY.replace("{name: lstm, embedding: 6, hidden: [8], tied: false}", tied)
    desk.write("tasks/tiny.yaml", text.replace("dimension: 3, ", "").replace(", dimension: 3", ""))
    message = (
        "error: tiny: hidden-markov lstm/softmax: head: the tied output embeddings have size 6, and the head's is 8. "
        "Make the encoder's last layer 6, give the head dimension: 6 (a linear projection), or untie them with "
        "tied: false.\n"
    )
    for verb in ("validate", "run"):
        assert desk.suite(verb, "tiny") == (2, "", message)
    assert not desk.results.exists()


def test_a_folder_that_cannot_be_written_is_no_traceback(with_run: Desk) -> None:
    with_run.write("results/LEADERBOARD.md/in-the-way", "")
    code, _, err = with_run.suite("report", "--write")
    assert (code, err) == (2, "error: results/LEADERBOARD.md: cannot be read: Is a directory\n")
    with_run.write("results/runs-file", "")
    shutil.rmtree("results/runs")
    Path("results/runs-file").rename("results/runs")
    code, _, err = with_run.run("tiny", "--only", "head=mos")
    assert code == 1
    assert re.fullmatch(
        r"error: results/runs(/\w+)?: (Not a directory|File exists)\. What was there before is whole; once that is "
        r"mended, the same command goes on from the last checkpoint\n",
        err,
    ), err


QUICK = """
import sys
from suite.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as left:
    code = left.code
print(code, sorted({"torch", "mlflow"} & set(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "line",
    [
        "--help", "list", "plan tiny", "report", "report --csv", "show {key}", "run --help", "query head=softmax",
        "compare {key} head=softmax", "export {key} --out b.zip",
    ],
)  # fmt: skip
def test_what_only_looks_imports_neither_torch_nor_mlflow(with_run: Desk, line: str) -> None:
    line = line.format(key=one_record(with_run.results).run_key[:8])
    done = subprocess.run([sys.executable, "-c", QUICK, *line.split()], capture_output=True, text=True)
    assert done.stderr == "0 []\n"
    assert done.stdout


def test_list(desk: Desk) -> None:
    code, out, err = desk.suite("list")
    assert (code, err) == (0, "")
    assert "tiny    full     4 (2 seeds)           Small enough to be run many times" in out
    assert "\nencoders\n" in out
    assert "\n      experts: " in out
    assert "Yang et al. 2018" in out
    assert desk.suite("list", "tasks")[1] == out.split("\n\n")[0] + "\n\n"
    schema = json.loads(desk.suite("list", "--schema")[1])
    assert schema["type"] == "object"


@pytest.mark.parametrize("line", ["list tasks", "query --format json"])
def test_a_reader_that_leaves_is_no_error(with_run: Desk, line: str) -> None:
    process = with_run.process(*line.split())  # so little that it is written at the very end
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr as errors:
        assert (errors.read(), process.wait(timeout=60)) == ("", 0)
