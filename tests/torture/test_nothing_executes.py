"""Files from strangers are read and never run: no pickle, no tags, no code, wherever a file is opened."""

from __future__ import annotations

import ast
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tallies import Tally, times
from tiny_tasks import CUBIC, ONE, Desk, one_record

import suite
from suite.errors import InputError, RunFailed
from suite.models.weights import load_tensors
from suite.spec.task import load_task

PACKAGE = Path(suite.__file__).parent
# Modules whose files run code when they are read.
EXECUTING = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "yaml"}
SAFE = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False), "numpy.load": ("allow_pickle", False)}


def unsafe(tree: ast.AST) -> Iterator[str]:
    """What in a module could run a file's content."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (f"{node.lineno}: imports {name}" for name in names if name.split(".")[0] in EXECUTING)
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("eval", "exec"):
                yield f"{node.lineno}: calls {called}"
            if called in SAFE:
                name, value = SAFE[called]
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                if given.get(name) != str(value):
                    yield f"{node.lineno}: {called} without {name}={value}"


def test_no_reader_of_the_suite_can_run_what_it_reads() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{said}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for said in unsafe(ast.parse(path.read_text()))
    ]
    assert found == []


def test_a_planted_reader_of_each_kind_is_found() -> None:
    planted = "import pickle\nfrom yaml import load\ntorch.load(x)\nnp.load(x, allow_pickle=True)\neval(x)\n"
    planted += "torch.load(x, weights_only=True)\nnp.load(x, allow_pickle=False)\n"
    assert sorted(unsafe(ast.parse(planted))) == [
        "1: imports pickle",
        "2: imports yaml",
        "3: torch.load without weights_only=True",
        "4: np.load without allow_pickle=False",
        "5: calls eval",
    ]


class Payload:
    """Pickled, it runs a command when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def plain_pickle(path: Path, mark: Path) -> None:
    path.write_bytes(pickle.dumps({"format": 2, "model": Payload(mark)}))


def within_torch(path: Path, mark: Path) -> None:
    torch.save({"format": 2, "model": Payload(mark), "w": torch.zeros(3)}, path)


def old_torch(path: Path, mark: Path) -> None:
    torch.save({"model": Payload(mark)}, path, _use_new_zipfile_serialization=False)


def torch_script(path: Path, mark: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/constants.pkl", pickle.dumps(Payload(mark)))
        archive.writestr("x/data.pkl", pickle.dumps(Payload(mark)))
        archive.writestr("x/version", "3\n")


HOSTILE = (plain_pickle, within_torch, old_torch, torch_script)


def test_no_checkpoint_executes_anything(desk: Desk, tmp_path: Path, tally: Callable[[str, str], Tally]) -> None:
    row = tally("a checkpoint that would run code", "pickles of four kinds as checkpoint and as weights; lost: it ran")
    for write in HOSTILE:
        mark = tmp_path / f"{write.__name__}-ran"
        path = tmp_path / "weights.pt"
        write(path, mark)
        with pytest.raises(RunFailed) as caught:
            load_tensors(path, torch.device("cpu"))
        assert str(caught.value).startswith("weights.pt is damaged (")
        row.tried += 1
        row.lost += mark.exists()
    # The same where a run takes up its work: it says so and starts from the beginning.
    assert desk.run(*ONE)[0] == 0
    record = one_record(desk.results)
    folder = desk.results / "runs" / record.run_key[:16]
    for write in HOSTILE[: times(1, len(HOSTILE))]:
        mark = tmp_path / f"{write.__name__}-ran"
        write(folder / "checkpoint.pt", mark)
        code, out, err = desk.run(*ONE, "--rerun")
        assert (code, err) == (0, "")
        assert "checkpoint.pt is damaged (" in out
        assert one_record(desk.results).metrics == record.metrics
        write(folder / "weights.pt", mark)
        code, _, err = desk.suite("export", record.run_key[:8], "--weights", "w")
        assert code == 2
        assert err.startswith(f"error: run {record.run_key[:12]} has no weights that can be exported: weights.pt is ")
        row.tried += 2
        row.lost += mark.exists()
    assert row.lost == 0


TAGS = (
    "!!python/object/apply:os.mkdir [{mark}]",
    "!!python/object/new:os.mkdir [{mark}]",
    "!!python/name:os.mkdir",
    "!<tag:yaml.org,2002:python/object/apply:os.mkdir> [{mark}]",
    "!include {mark}",
)


def test_no_tag_of_a_task_file_executes_anything(tmp_path: Path, tally: Callable[[str, str], Tally]) -> None:
    row = tally("a task file with tags that would run code", "five tags as title, head and option; lost: it ran")
    for tag in TAGS:
        for line in ("title: {}", "head: {}", "head: {{name: softmax, dimension: {}}}"):
            mark, path = tmp_path / "ran", tmp_path / "x.yaml"
            path.write_text(line.format(tag.format(mark=mark)) + "\nversion: 1\n")
            with pytest.raises(
                InputError, match=r"tags are not allowed; write a plain value|not valid YAML: .* while scanning a tag"
            ):
                load_task(path)
            row.tried += 1
            row.lost += mark.exists()
    assert row.lost == 0


def test_a_strangers_plugin_is_looked_at_and_not_run(desk: Desk, tally: Callable[[str, str], Tally]) -> None:
    row = tally("a task file with a plugin", "list and plan of a task whose plugin marks that it ran; lost: it ran")
    desk.write("plugins/mine.py", "import os\nos.mkdir('ran')\n" + CUBIC)
    task = (desk.root / "tasks/tiny.yaml").read_text()
    desk.write("tasks/tiny.yaml", task + "plugins: [../plugins/mine.py]\n")
    for arguments in (("list", "tasks"), ("plan", "tiny")):
        code, _, err = desk.suite(*arguments)
        assert (code, err) == (0, "")
        row.tried += 1
        row.lost += Path("ran").exists()
    assert row.lost == 0
