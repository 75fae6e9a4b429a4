"""The picture of the MLflow UI in README.md, taken anew from the committed records of the demo: ``make screenshot``."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from browser import browser, find_browser
from PIL import Image
from served_ui import charts, served, visit

from suite.records.store import Store

TASK = "demo"
PICTURE = Path("results/screenshots/mlflow-ui.png")
MAX_BYTES = 200_000
# MLflow's own bar and menu, left and above, say nothing of the runs.
_LEFT, _TOP, _WIDTH, _HEIGHT = 200, 160, 1160, 1050
# The tools of a chart are seen where the mouse is, and here is none.
_HIDDEN = ".modebar, [data-assistant-ui] { display: none !important }"


def main() -> int:
    """Serve the demo's records, open the link of the charts, and keep what is seen."""
    path = find_browser()
    if path is None:
        print("no Chromium here: it takes the picture", file=sys.stderr)
        return 2
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "results")
        for record in Store(Path("results")).scan().records:
            if record.task.name == TASK:
                store.write(record)
        with served(store.root) as ui, browser(path) as tab:
            tab.screen(_LEFT + _WIDTH, _TOP + _HEIGHT + 10)
            visit(tab, next(link for (_, title), link in ui.links.items() if title.startswith("curves")))
            charts(tab, 4)
            tab.evaluate(f"document.head.insertAdjacentHTML('beforeend', '<style>{_HIDDEN}</style>')")
            time.sleep(1)  # the bars grow
            tab.screenshot(PICTURE)
    whole = Image.open(PICTURE).convert("RGB")
    seen = whole.crop((_LEFT, _TOP, _LEFT + _WIDTH, _TOP + _HEIGHT))
    seen.quantize(128, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
    print(f"wrote {PICTURE}, {PICTURE.stat().st_size:,} bytes")
    return 0 if PICTURE.stat().st_size < MAX_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
