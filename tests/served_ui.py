"""``suite ui`` in a process of its own, and what its pages show in a browser."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from browser import Browser
from tallies import confined

# What a run of the tests or of `make screenshot` leaves to be looked at; ignored by git.
SCREENSHOTS = Path(__file__).parents[1] / ".screenshots"
_ROWS = """(() => {
  const rows = {};
  for (const cell of document.querySelectorAll('[role=gridcell]')) {
    const row = rows[cell.closest('[role=row]').getAttribute('row-index')] ??= {};
    const text = cell.innerText.split('\\n').filter((line) => !line.startsWith('#')).join(' ');
    row[cell.getAttribute('col-id').replace(/^[a-z]+\\.`(.*)`$/, '$1')] = text;
  }
  return Object.entries(rows).sort((a, b) => a[0] - b[0]).map((entry) => entry[1]);
})()"""
_CHARTS = """[...document.querySelectorAll('.js-plotly-plot')].filter((plot) => plot.data && plot.data.length).map(
  (plot) => [plot.data[0].type, plot.data.map((one) => [[...one.x || []], [...one.y || []]])])"""


@dataclass(frozen=True)
class Served:
    """A running ``suite ui``: its process, its port, and every line that it has printed."""

    process: subprocess.Popen[str]
    port: int
    lines: list[str]

    @property
    def links(self) -> dict[tuple[str, str], str]:
        """Addresses by heading and title."""
        found, heading = {}, ""
        for line in self.lines:
            match = re.fullmatch(r"  (.+?) {2,}(http\S+)", line)
            if match:
                found[heading, match[1]] = match[2]
            elif line:
                heading = line
        return found


@contextmanager
def served(results: Path) -> Iterator[Served]:
    """``suite ui`` on a results folder, once it says that it is ready; confined to this machine.

    What it and its children try to reach elsewhere is refused and written to ``results/sockets``.
    """
    environment = confined(results / "sockets")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    code = (
        # A test runner in the background of a shell passes on that it ignores Ctrl-C.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pathlib import Path; from suite.records.store import Store; from suite.records.ui import serve\n"
        f"serve(Store(Path({str(results)!r})), {port})"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            lines: list[str] = []
            while not lines or "Ctrl-C" not in lines[-1]:
                line = process.stdout.readline()
                assert line, process.stderr.read()
                lines.append(line.rstrip())
            yield Served(process, port, lines)
        finally:
            process.terminate()


def read(port: int, path: str, host: str) -> tuple[int, str]:
    """Status and body of a page that is asked for under a host's name."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path, headers={"Host": host})
    reply = connection.getresponse()
    body = reply.read().decode()
    connection.close()
    return reply.status, body


def write(port: int, path: str, content: object, origin: str) -> int:
    """Status of a change that a page of another origin asks for."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Host": f"127.0.0.1:{port}", "Origin": origin, "Content-Type": "application/json"}
    connection.request("POST", path, json.dumps(content), headers)
    status = connection.getresponse().status
    connection.close()
    return status


def listening(port: int) -> set[str]:
    """The addresses of this machine at which somebody listens on a port."""
    found = psutil.net_connections("inet")
    return {one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN and one.laddr.port == port}


def visit(tab: Browser, address: str) -> None:
    """Open a page of the UI as on any visit but the first, when MLflow opens its Assistant beside it."""
    tab.call(
        "Page.addScriptToEvaluateOnNewDocument",
        source="localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')",
    )
    tab.open(address)


def table(tab: Browser, count: int) -> list[dict[str, str]]:
    """The rows of the table of runs once there are so many, top to bottom: the text of each by the column's name."""
    tab.until(f"{_ROWS}.length === {count} && {_ROWS}.every((row) => Object.keys(row).length > 5)")
    rows: list[dict[str, str]] = tab.evaluate(_ROWS)
    return rows


def charts(tab: Browser, count: int) -> list[tuple[str, list[tuple[list[Any], list[Any]]]]]:
    """The kind of every chart once so many are drawn, and x and y of each thing drawn in it."""
    tab.until(f"{_CHARTS}.length >= {count}")
    return [(kind, [(x, y) for x, y in drawn]) for kind, drawn in tab.evaluate(_CHARTS)]
