"""The verbs of the command line, a small module a family; each takes the parsed options and returns an exit code.

A verb's module is imported when the verb is called, so that listing and reporting pay for nothing else.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping, Sequence

VERBS: Mapping[str, str] = {
    "list": "suite.verbs.look:list_everything",
    "plan": "suite.verbs.look:plan",
    "report": "suite.verbs.look:report",
    "show": "suite.verbs.look:show",
    "query": "suite.verbs.query:query",
    "compare": "suite.verbs.compare:compare",
    "validate": "suite.verbs.validate:validate",
    "run": "suite.verbs.execute:run",
    "check": "suite.verbs.check:check",
    "profile": "suite.verbs.profile:profile",
    "data": "suite.verbs.corpora:data",
    "export": "suite.verbs.export:export",
    "import": "suite.verbs.registry:import_records",
    "sync": "suite.verbs.registry:sync",
    "ui": "suite.verbs.registry:ui",
}


def call(verb: str, options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Import a verb and run it; returns the exit code."""
    module, function = VERBS[verb].split(":")
    code: int = getattr(importlib.import_module(module), function)(options, arguments)
    return code
