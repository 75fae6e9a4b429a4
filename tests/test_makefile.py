"""The scripts that make runs find what they import: here no other test loads them, and some need a GPU to run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()
SCRIPTS = sorted(set(re.findall(r"^\t@(?:PYTHONPATH=(\S+) )?\$\(BIN\)/python (\S+\.py)", MAKEFILE, re.M)))
# Triton is installed where a GPU is; to load what uses it, anything by its name will do.
LOAD = """
import importlib.util, runpy, sys
from unittest.mock import MagicMock
if importlib.util.find_spec("triton") is None:
    sys.modules.update({f"triton{part}": MagicMock() for part in ("", ".language", ".language.extra")})
sys.path[0] = sys.argv[1]
runpy.run_path(sys.argv[2], run_name="loaded")
"""


def test_every_script_is_seen() -> None:
    named = {word for word in re.split(r"\s", MAKEFILE) if re.fullmatch(r"(tests|\.ci)/\S+\.py", word)}
    assert {script for _, script in SCRIPTS} == {word for word in named if not Path(word).name.startswith("test_")}


@pytest.mark.parametrize(("path", "script"), SCRIPTS)
def test_a_script_loads_by_the_path_that_make_gives_it(path: str, script: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str((ROOT / script).parent), script],
        cwd=ROOT,
        env=environment | ({"PYTHONPATH": path} if path else {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
