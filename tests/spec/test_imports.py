"""`suite.spec` answers at once: no torch, no MLflow, few modules beside those of its two libraries."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
import pydantic, pydantic.json_schema, ruamel.yaml
libraries = len(sys.modules)
import suite.spec.plan, suite.spec.json_schema
from suite.spec.components import KINDS, describe, names
for kind in KINDS:
    for name in names(kind):
        describe(kind, name)
heavy = {"torch", "mlflow", "numpy", "pandas", "scipy"} & set(sys.modules)
print(len(sys.modules) - libraries, sorted(heavy))
"""


def test_listing_every_component_is_cheap_and_imports_nothing_heavy() -> None:
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    modules, heavy = result.stdout.split(maxsplit=1)
    assert heavy.strip() == "[]"
    # Counted and not timed: a busy machine must not decide.
    assert int(modules) < 160
