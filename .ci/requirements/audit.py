"""Look the locked packages up among known advisories: in a folder of them, or at the service that pip-audit asks.

Exit code 0 where none is known, 1 where some are, 2 where the folder cannot be used. Where the service cannot be
reached, one line says that the audit was skipped and why, and the exit code is 0: nothing is known then, which is said.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

HERE = Path(__file__).parent
LOCKS = ("suite.lock", "cuda.lock")
_SECONDS = 300
_LARGEST = 4_000_000

Found = list[tuple[str, str, str, str]]
"""Name, version, advisory and what it says."""


def locked(paths: Sequence[Path]) -> dict[str, str]:
    """The version of every locked package by its name."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    return {canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.M)}


def advisories(folder: Path) -> Iterator[dict[str, Any]]:
    """The advisories in a folder and those below it: OSV files, JSON or YAML. What is none is passed over."""
    for path in sorted(folder.rglob("*")):
        if path.suffix not in (".json", ".yaml", ".yml") or not path.is_file() or path.stat().st_size > _LARGEST:
            continue
        try:
            text = path.read_text(encoding="utf-8")
            content = json.loads(text) if path.suffix == ".json" else YAML(typ="safe", pure=True).load(text)
        except (ValueError, YAMLError, RecursionError):
            continue
        if isinstance(content, dict) and "id" in content and isinstance(content.get("affected"), list):
            yield content


def affects(affected: Mapping[str, Any], version: str) -> bool:
    """Whether an entry of an advisory names a version: in its list, or within one of its ranges."""
    if version in affected.get("versions", ()):
        return True
    return any(
        _within(entry.get("events", ()), version)
        for entry in affected.get("ranges", ())
        if entry.get("type") == "ECOSYSTEM"
    )


def _within(events: Sequence[Mapping[str, str]], version: str) -> bool:
    ours, inside = Version(version), False
    for event in sorted(events, key=lambda event: Version(next(iter(event.values())))):
        kind, bound = next(iter(event.items()))
        if kind == "introduced":
            inside = inside or ours >= Version(bound)
        elif kind == "fixed":
            inside = inside and ours < Version(bound)
        elif kind == "last_affected":
            inside = inside and ours <= Version(bound)
    return inside


def in_folder(folder: Path, packages: Mapping[str, str]) -> tuple[int, Found]:
    """How many advisories a folder holds, and those that name a locked version."""
    count, found = 0, []
    for advisory in advisories(folder):
        count += 1
        if advisory.get("withdrawn"):
            continue
        for affected in advisory["affected"]:
            package = affected.get("package", {})
            name = canonicalize_name(str(package.get("name", "")))
            if package.get("ecosystem") != "PyPI" or name not in packages:
                continue
            try:
                hit = affects(affected, packages[name])
            except InvalidVersion:
                hit = True  # a bound that cannot be read: for a person to judge
            if hit:
                said = str(advisory.get("summary") or advisory.get("details") or "").strip()
                found.append((name, packages[name], str(advisory["id"]), (said.splitlines() or [""])[0][:200]))
    return count, sorted(set(found))


def from_service(environment: Path, lock: Path) -> Found | str:
    """What pip-audit finds, or why it found nothing out."""
    tool = environment / "bin" / "pip-audit"
    try:
        if not tool.exists():
            venv.create(environment, with_pip=True)
            install = [environment / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps"]
            install += ["--disable-pip-version-check", "--require-hashes", "-r", HERE / "audit.lock"]
            subprocess.run(install, check=True, capture_output=True, text=True, timeout=_SECONDS)
        command = [tool, "--requirement", lock, "--disable-pip", "--require-hashes", "--format", "json"]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return f"no answer within {_SECONDS} s"
    except (OSError, subprocess.CalledProcessError) as error:
        return f"pip-audit cannot be installed ({_last(getattr(error, 'stderr', '') or str(error))})"
    try:
        packages = json.loads(done.stdout)["dependencies"]
        return [
            (one["name"], one["version"], hit["id"], (hit["description"].splitlines() or [""])[0][:200])
            for one in packages
            for hit in one.get("vulns", ())
        ]
    except (ValueError, KeyError, TypeError):
        return f"the advisory service gave no answer ({_last(done.stderr)})"


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no message"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what is known; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, metavar="DIR", help="OSV files, such as a copy of PyPI's advisories")
    parser.add_argument("--environment", type=Path, default=Path(".venv/audit"), metavar="DIR", help="for pip-audit")
    options = parser.parse_args(arguments)
    packages = locked([HERE / name for name in LOCKS])
    if options.folder is not None:
        count, found = in_folder(options.folder, packages) if options.folder.is_dir() else (0, [])
        if not count:
            print(f"error: {options.folder}: holds no advisory; give a folder of OSV files", file=sys.stderr)
            return 2
        where = f"the advisories of {options.folder} ({count:,})"
    else:
        answers = [from_service(options.environment, HERE / name) for name in LOCKS]
        unknown = next((answer for answer in answers if isinstance(answer, str)), None)
        if unknown is not None:
            print(
                f"audit skipped: {unknown}. Nothing is known of the {len(packages)} locked packages; "
                "ADVISORIES=DIR looks them up in a folder"
            )
            return 0
        found = [hit for answer in answers if not isinstance(answer, str) for hit in answer]
        where = "the advisory service"
    for name, version, advisory, said in found:
        print(f"{name} {version}: {advisory}: {said}")
    total = f"{len(found) or 'no'} known advisor{'y' if len(found) == 1 else 'ies'}"
    print(f"{total} for {len(packages)} locked packages, by {where}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
