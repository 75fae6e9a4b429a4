"""What is installed is locked with hashes, and can be looked up among known advisories."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / ".ci/requirements"


def tool(name: str) -> ModuleType:
    found = importlib.util.spec_from_file_location(f"requirements_{name}", LOCKS / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    return tool("audit")


@pytest.mark.parametrize("name", ["suite.lock", "cuda.lock", "audit.lock"])
def test_a_lock_names_versions_and_hashes(name: str) -> None:
    entries = tool("lock").read(LOCKS / name)
    assert len(entries) > 10
    for key, entry in entries.items():
        assert re.fullmatch(r"[a-z0-9-]+==[A-Za-z0-9.]+", key), key
        first, *hashes = entry.splitlines()
        assert hashes, key
        assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in hashes), key
        assert re.fullmatch(rf"{re.escape(key)}( ; [^\\]+)? \\", first), key


def test_torch_without_cuda_is_of_the_same_version(audit: ModuleType) -> None:
    (key,) = tool("lock").read(LOCKS / "cpu.lock")
    assert key == f"torch=={audit.locked([LOCKS / 'suite.lock'])['torch']}+cpu"


def test_hashes_of_torch_without_cuda_stay_while_its_version_does(tmp_path: Path) -> None:
    made = wheel(tmp_path, "x = 1\n")
    sha = hashlib.sha256(made.read_bytes()).hexdigest()
    lock = tool("lock")
    first = lock.without_cuda("torch==1.0", {}, [made])
    assert first == {"torch==1.0+cpu": f"torch==1.0+cpu \\\n    --hash=sha256:{sha}"}
    assert lock.without_cuda("torch==1.0", first, []) == first
    assert lock.without_cuda("torch==1.1", first, []) == {}


@pytest.mark.parametrize("path", sorted(LOCKS.glob("*.lock")), ids=lambda path: path.name)
def test_a_lock_names_no_place(path: Path) -> None:
    text = path.read_text()
    assert "://" not in text
    assert "-index" not in text
    assert "find-links" not in text


def test_the_lock_holds_what_the_project_asks_for(audit: ModuleType) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["dev"]]
    wanted += project["build-system"]["requires"]
    versions = audit.locked([LOCKS / "suite.lock"])
    for text in wanted:
        requirement = Requirement(text)
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{text} against {version}: make lock"
    assert not [name for name in versions if name.startswith(("cuda-", "triton", "nvidia-c"))]


def test_mlflow_is_no_release_with_known_advisories(audit: ModuleType) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (mlflow,) = [Requirement(text) for text in project["project"]["dependencies"] if text.startswith("mlflow")]
    assert not mlflow.specifier.contains("3.17.1")
    assert mlflow.specifier.contains("3.17.2")
    assert Version(audit.locked([LOCKS / "suite.lock"])["mlflow"]) >= Version("3.17.2")


def test_make_installs_nothing_without_a_hash() -> None:
    makefile = (ROOT / "Makefile").read_text()
    installs = [line for line in makefile.splitlines() if "pip install" in line and "uv" not in line]
    assert installs == ["INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps"]
    assert "HASHED := $(INSTALL) --require-hashes -r\n" in makefile
    uses = [line.strip() for line in makefile.splitlines() if "$(INSTALL)" in line and ":=" not in line]
    assert uses == ["@$(INSTALL) --no-build-isolation -e ."]


def wheel(folder: Path, content: str) -> Path:
    path = folder / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("tiny.py", content)
        file.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        file.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr("tiny-1.0.dist-info/RECORD", "")
    return path


def test_a_package_that_was_altered_is_not_installed(tmp_path: Path) -> None:
    sha = hashlib.sha256(wheel(tmp_path, "x = 1\n").read_bytes()).hexdigest()
    lock = tmp_path / "x.lock"
    lock.write_text(f"tiny==1.0 \\\n    --hash=sha256:{sha}\n")
    command = [sys.executable, "-m", "pip", "install", "--isolated", "--no-index", "--no-cache-dir", "--no-deps"]
    command += ["--find-links", str(tmp_path), "--target", str(tmp_path / "into"), "--require-hashes", "-r", str(lock)]
    wheel(tmp_path, "x = 2\n")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert not (tmp_path / "into").exists()


def advisory(**changed: object) -> dict[str, object]:
    package = {"ecosystem": "PyPI", "name": "Some_Package"}
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "1.0"}, {"fixed": "1.4"}]}]
    return {"id": "X-1", "summary": "Bad.", "affected": [{"package": package, "ranges": ranges}], **changed}


@pytest.mark.parametrize(
    ("version", "hit"), [("0.9", False), ("1.0", True), ("1.3.9", True), ("1.4rc1", True), ("1.4", False)]
)
def test_a_range_of_an_advisory_holds_its_versions(audit: ModuleType, tmp_path: Path, version: str, hit: bool) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.json").write_text(json.dumps(advisory()))
    found = audit.in_folder(tmp_path, {"some-package": version})
    assert found == (1, [("some-package", version, "X-1", "Bad.")] if hit else [])


def test_versions_withdrawals_other_systems_and_other_files(audit: ModuleType, tmp_path: Path) -> None:
    listed = {"package": {"ecosystem": "PyPI", "name": "p"}, "versions": ["2"]}
    last = {
        "package": {"ecosystem": "PyPI", "name": "q"},
        "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"last_affected": "3"}]}],
    }
    files = {
        "a.yaml": "id: Y\nsummary: Listed.\naffected:\n- package: {ecosystem: PyPI, name: p}\n  versions: ['2']\n",
        "b.json": json.dumps(advisory(id="W", affected=[listed], withdrawn="2026-01-01T00:00:00Z")),
        "c.json": json.dumps(advisory(id="N", affected=[{**listed, "package": {"ecosystem": "npm", "name": "p"}}])),
        "d.json": json.dumps(advisory(id="L", affected=[last])),
        "e.json": "{",
        "f.yaml": "a: [",
        "README.md": "not one",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    count, found = audit.in_folder(tmp_path, {"p": "2", "q": "3"})
    assert (count, found) == (4, [("p", "2", "Y", "Listed."), ("q", "3", "L", "Bad.")])
    assert audit.in_folder(tmp_path, {"p": "2.1", "q": "3.1"})[1] == []


def test_the_audit_says_what_it_found_and_what_it_could_not(
    audit: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*arguments: str) -> tuple[int, str]:
        code = audit.main(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    count = len(audit.locked([LOCKS / "suite.lock", LOCKS / "cuda.lock"]))
    none = f"error: {tmp_path}: holds no advisory; give a folder of OSV files\n"
    assert said("--folder", str(tmp_path)) == (2, none)
    path = tmp_path / "x.json"
    path.write_text(json.dumps(advisory()))
    assert said("--folder", str(tmp_path)) == (
        0,
        f"no known advisories for {count} locked packages, by the advisories of {tmp_path} (1)\n",
    )
    package = {"ecosystem": "PyPI", "name": "mlflow"}
    version = audit.locked([LOCKS / "suite.lock"])["mlflow"]
    path.write_text(json.dumps(advisory(affected=[{"package": package, "versions": [version]}])))
    assert said("--folder", str(tmp_path)) == (
        1,
        f"mlflow {version}: X-1: Bad.\n"
        f"1 known advisory for {count} locked packages, by the advisories of {tmp_path} (1)\n",
    )

    answers: dict[str, Callable[..., subprocess.CompletedProcess[str]]] = {}

    def run(command: list[object], **_options: object) -> subprocess.CompletedProcess[str]:
        return answers["now"](command)

    monkeypatch.setattr(audit.subprocess, "run", run)
    monkeypatch.setattr(audit.venv, "create", lambda *_a, **_k: None)
    rest = f"Nothing is known of the {count} locked packages; ADVISORIES=DIR looks them up in a folder\n"

    def cannot_install(command: list[object]) -> subprocess.CompletedProcess[str]:
        raise subprocess.CalledProcessError(1, "pip", stderr="warning\nERROR: No matching distribution\n")

    answers["now"] = cannot_install
    absent = ("--environment", str(tmp_path / "absent"))
    assert said(*absent) == (
        0,
        f"audit skipped: pip-audit cannot be installed (ERROR: No matching distribution). {rest}",
    )
    answers["now"] = lambda command: subprocess.CompletedProcess(command, 1, "", "x\nConnectionError: no route\n")
    assert said(*absent) == (
        0,
        f"audit skipped: the advisory service gave no answer (ConnectionError: no route). {rest}",
    )
    hits = {"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "V", "description": "Worse.\nMore."}]}]}
    answers["now"] = lambda command: subprocess.CompletedProcess(command, 1, json.dumps(hits), "")
    assert said(*absent) == (
        1,
        f"a 1: V: Worse.\na 1: V: Worse.\n2 known advisories for {count} locked packages, by the advisory service\n",
    )
