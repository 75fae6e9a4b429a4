"""Write the lock files anew: every package that pyproject.toml leads to, one version each, with its hashes.

* ``suite.lock``: what ``make`` installs everywhere, the builder of the package itself included.
* ``cuda.lock``: what torch wants besides where it is a CUDA build; gigabytes, so apart.
* ``cpu.lock``: torch without CUDA, of the same version; not every place has that build.
* ``audit.lock``: what ``make audit`` runs, in an environment of its own.

Versions stay unless pyproject.toml forbids them or ``--upgrade`` is given. The hashes of torch's wheels without CUDA,
which lie elsewhere than the rest, are added with ``--cpu WHEEL`` and stay while torch's version does. The files name no
place to download from: that is for whoever installs to say.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
# The wheels that torch's CUDA builds ask for; nvidia-ml-py, which reads what a GPU is doing, is not one of them.
_CUDA = re.compile(r"(cuda-|nvidia-(?!ml-py)|triton==)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")

Entries = dict[str, str]
"""Text of each requirement, its hashes with it, by ``name==version``."""


def read(path: Path) -> Entries:
    """The entries of a lock file; none where there is no file."""
    if not path.exists():
        return {}
    return split(path.read_text(encoding="utf-8"))


def split(text: str) -> Entries:
    """The entries in the text of a lock file."""
    blocks = re.split(r"\n(?=\S)", "\n".join(line for line in text.splitlines() if not line.startswith("#")).strip())
    return {block.split()[0]: block for block in blocks if block}


def compile_lock(requirements: list[str], keep: Entries, *, upgrade: bool = False) -> Entries:
    """What uv resolves for every platform and Python from 3.11, staying with the versions in ``keep``."""
    with tempfile.TemporaryDirectory() as scratch:
        out, wanted = Path(scratch) / "lock.txt", Path(scratch) / "wanted.in"
        # uv stays with the versions it finds in its output file.
        out.write_text("" if upgrade else "\n".join(keep.values()) + "\n", encoding="utf-8")
        wanted.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "uv", "pip", "compile", str(wanted), "--universal", "--python-version", "3.11"]
        command += ["--generate-hashes", "--no-header", "--no-annotate", "--quiet", "--output-file", str(out)]
        subprocess.run(command, check=True)
        return read(out)


def without_cuda(torch: str, before: Entries, wheels: list[Path]) -> Entries:
    """The entry of cpu.lock: its hashes of before, if torch is what it was, and those of ``wheels``."""
    key = f"{torch}+cpu"
    hashes = {*_HASH.findall(before.get(key, "")), *(hashlib.sha256(path.read_bytes()).hexdigest() for path in wheels)}
    if not hashes:
        return {}
    return {key: " \\\n".join([key, *(f"    --hash=sha256:{value}" for value in sorted(hashes))])}


def write(name: str, about: str, entries: Entries) -> None:
    """Write one lock file."""
    head = f"# {about}\n# Written by `make lock`.\n"
    (HERE / name).write_text(head + "\n".join(entries[key] for key in sorted(entries)) + "\n", encoding="utf-8")
    print(f".ci/requirements/{name}: {len(entries)} packages")


def main() -> None:
    """Write all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that pyproject.toml allows")
    parser.add_argument("--cpu", action="append", type=Path, default=[], metavar="WHEEL", help="torch without CUDA")
    options = parser.parse_args()
    project = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["project"]["dependencies"], *extras["dev"], *project["build-system"]["requires"]]
    before = {**read(HERE / "suite.lock"), **read(HERE / "cuda.lock")}
    found = compile_lock(wanted, before, upgrade=options.upgrade)
    torch = next(key for key in found if key.startswith("torch=="))
    suite = {key: entry for key, entry in found.items() if not _CUDA.match(key)}
    write("suite.lock", "What the suite is tested with.", suite)
    write(
        "cuda.lock",
        "What torch wants besides where it is a CUDA build.",
        {k: found[k] for k in found.keys() - suite.keys()},
    )
    cpu = without_cuda(torch, read(HERE / "cpu.lock"), options.cpu)
    write("cpu.lock", "Torch without CUDA.", cpu)
    # The same versions as above where both need a package.
    audit = compile_lock(extras["audit"], {**read(HERE / "audit.lock"), **found})
    write("audit.lock", "What `make audit` runs.", audit)


if __name__ == "__main__":
    main()
