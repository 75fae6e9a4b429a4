"""Reproduce the softmax-bottleneck papers and compare any output head, every number traceable to a run."""

from suite.spec.components import register

__all__ = ["__version__", "register"]

__version__ = "0.1.0"
