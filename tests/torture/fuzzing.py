"""A process of its own that feeds mutated files to the real readers and tells what came of it, as JSON.

``python fuzzing.py tasks|records|bundles|logs FROM COUNT FOLDER``: inputs FROM to FROM + COUNT, each made from its
number alone. A find is any exception but the suite's own, more than two seconds of processor time, or text that a
terminal would obey.
"""

from __future__ import annotations

import json
import signal
import sys
import time
import traceback
from pathlib import Path

from readers import KINDS

LONGEST = 2.0


class _Hang(BaseException):
    """Not an Exception, so that nothing on the way takes it for one of its own."""


def main() -> None:
    """Run some inputs; the last line is the outcome."""
    kind, first, count, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    one = KINDS[kind](folder)

    def hang(_number: int, _frame: object) -> None:
        raise _Hang

    signal.signal(signal.SIGPROF, hang)
    finds = []
    slowest = 0.0
    for number in range(first, first + count):
        start = time.process_time()
        # Processor time: other work on the machine must not decide.
        signal.setitimer(signal.ITIMER_PROF, 5 * LONGEST)
        said = ""
        try:
            one(number)
        except _Hang:
            said = "a hang: " + " | ".join(traceback.format_exc(limit=-3).splitlines())
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            inner = [frame for frame in traceback.extract_tb(error.__traceback__) if "/suite/" in frame.filename]
            last = inner[-1] if inner else where
            said = (
                f"{type(error).__name__}: {str(error)[:200]} at {last.filename.rpartition('/suite/')[2]}:{last.lineno}"
            )
        signal.setitimer(signal.ITIMER_PROF, 0)
        took = time.process_time() - start
        slowest = max(slowest, took)
        if took > LONGEST and not said:
            said = f"{took:.1f} s"
        if said:
            finds.append(f"{kind} {number}: {said}")
    # Of this program alone: what getrusage tells begins with what its parent had.
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    peak = int(line.split()[1]) >> 10
    print(json.dumps({"tried": count, "finds": finds, "slowest": round(slowest, 3), "peak_mib": peak}))


if __name__ == "__main__":
    main()
