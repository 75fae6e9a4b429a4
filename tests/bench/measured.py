"""Where and from which code a benchmark on a GPU was measured: what heads every file of its rows."""

from __future__ import annotations

from typing import Any

import torch

from suite.measurement.environment import revision


def where() -> dict[str, Any]:
    """The device, torch's version and the suite's commit."""
    return {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "commit": revision().commit}
