"""Results: what a run leaves, where it is kept, what the papers published, and the mirror in MLflow.

In a notebook: ``records.load("results").where("head=mos dataset=ptb test.ppl<60").frame()``.
"""

from suite.records.selection import Records, load

__all__ = ["Records", "load"]
