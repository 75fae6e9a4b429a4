"""A process that has imported everything and forks victims: a JSON list of orders in, a list of endings out.

An order holds ``folder`` (the victim's working directory), ``commands`` (lists of arguments of `suite`, run until one
does not give 0) and ``fault``, one of

* ``{}``: none;
* ``{"kill": n}``: SIGKILL before the n-th file operation below the folder;
* ``{"seconds": s}``: SIGKILL after that long;
* ``{"fail": n, "errno": e, "last": m}``: operations n to m (n alone by default) are refused with that error;
* ``{"largest": bytes}``: no file can grow beyond (RLIMIT_FSIZE: what a disk that fills up does to a write).

File operations are opening to write, making, renaming, removing, flushing to disk. The answer holds the exit ``status``
(negative: the signal), ``operations``, ``out`` and ``err``.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import pkgutil
import resource
import select
import signal
import sys
import threading
import time
import warnings
from typing import Any

from suite.measurement.environment import Revision

# Imported by torch and by us on their first use.
_LATE = ["torch._dynamo", "torch._functorch.config", "numpy.random", "encodings.utf_8_sig"]
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Operations:
    """Counts file operations below a folder, and makes one of them, or several, go wrong."""

    def __init__(self, folder: str, fault: dict[str, Any]) -> None:
        self.count = 0
        self._folder = folder
        self._kill = fault.get("kill")
        self._first, self._errno = fault.get("fail"), fault.get("errno", errno.ENOSPC)
        self._last = fault.get("last", self._first)
        self._flush = os.fsync
        sys.addaudithook(self._heard)
        os.fsync = self._flushed

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not flags & _WRITES:
                return
        elif event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            path = arguments[0]
        else:
            return
        if isinstance(path, (str, bytes, os.PathLike)):
            self._met(os.fsdecode(path))

    def _flushed(self, descriptor: int) -> None:
        self._met(os.readlink(f"/proc/self/fd/{descriptor}"), None)
        self._flush(descriptor)

    def _met(self, path: str, *named: None) -> None:
        if not os.path.abspath(path).startswith(self._folder):
            return
        self.count += 1
        if self.count == self._kill:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._first and self._first <= self.count <= self._last:
            raise OSError(self._errno, os.strerror(self._errno), *(named or (path,)))


def _revision() -> Revision:
    """Instead of asking git, which takes longer than the rest of a trial."""
    return Revision(None, None, None)


def _victim(order: dict[str, Any], said: tuple[int, int], counted: int) -> int:
    from suite import attempt, cli

    attempt.revision = _revision  # type: ignore[assignment]
    folder = os.path.realpath(order["folder"])
    os.chdir(folder)
    for number, descriptor in enumerate(said, 1):
        os.dup2(descriptor, number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    fault = order["fault"]
    operations = Operations(folder + os.sep, fault)
    if "largest" in fault:
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault["largest"], fault["largest"]))
    code = 0
    try:
        for command in order["commands"]:
            code = cli.main(command)
            if code:
                break
    finally:
        os.write(counted, str(operations.count).encode())
    return code


def _drain(descriptors: dict[int, str], pid: int, seconds: float | None) -> dict[str, str]:
    """What the victim writes, until it is gone; killed after ``seconds``."""
    text = dict.fromkeys(descriptors.values(), b"")
    deadline = None if seconds is None else time.monotonic() + seconds
    while descriptors:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select(list(descriptors), [], [], left)
        if not ready:
            os.kill(pid, signal.SIGKILL)
            deadline = None
        for descriptor in ready:
            data = os.read(descriptor, 65536)
            text[descriptors[descriptor]] += data
            if not data:
                os.close(descriptor)
                del descriptors[descriptor]
    return {name: content.decode() for name, content in text.items()}


def begin(order: dict[str, Any]) -> tuple[int, dict[int, str]]:
    """Fork a victim; its process id, and where it can be read by name."""
    pipes = {name: os.pipe() for name in ("out", "err", "operations")}
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            code = _victim(order, (pipes["out"][1], pipes["err"][1]), pipes["operations"][1])
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    for _, write in pipes.values():
        os.close(write)
    return pid, {read: name for name, (read, _) in pipes.items()}


def run(orders: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fork a victim an order, all at once, and say what became of each. Only the first may have a time to die at."""
    endings = []
    for order, (pid, descriptors) in [(order, begin(order)) for order in orders]:
        said = _drain(descriptors, pid, order["fault"].get("seconds"))
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        endings.append({**said, "operations": int(said["operations"] or 0), "status": code})
    return endings


def _import_everything(also: list[str]) -> None:
    """What victims import, so that they need not."""
    import suite

    names = [module.name for module in pkgutil.walk_packages(suite.__path__, "suite.")]
    for name in [*names, *_LATE, *also]:
        if name.endswith("__main__"):
            continue
        with contextlib.suppress(ImportError):  # what needs a GPU's compiler
            importlib.import_module(name)


def main() -> None:
    """Serve orders until there are no more; the first line names further modules to import."""
    warnings.simplefilter("ignore")
    _import_everything(json.loads(sys.stdin.readline()))
    # A fork copies one thread alone.
    assert threading.active_count() == 1
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
