"""Numbers and text as tables show them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from suite.errors import printable

if TYPE_CHECKING:  # a list of records needs no baselines
    from suite.records.published import Published, Value
    from suite.report.compare import Summary

DASH = "-"
# What a difference is counted in, where that is not the metric's own unit: a share's are percentage points.
UNITS = {"mode_match": " points"}
METRIC_TITLES = {"ppl": "perplexity", "bpc": "bits per character", "kl": "KL divergence, nats"}


def metric_title(name: str) -> str:
    """A metric in words, or as it is called."""
    return METRIC_TITLES.get(name, name)


def clean(text: str) -> str:
    """Text on one line with nothing a terminal would obey; records and baselines may come from elsewhere."""
    return printable(text).replace("\n", " ").strip()


def escape(text: str, code: bool = False) -> str:
    """Text that Markdown shows as it is: no cell, tag, comment or emphasis of its own; ``code`` keeps backticks."""
    for character in "\\*_[]|" if code else "\\`*_[]|":
        text = text.replace(character, "\\" + character)
    return text.replace("<", "&lt;")


def metric(value: float, name: str) -> str:
    """A metric's value: perplexity and experts with 2 decimals, bits per character with 3, others with 4 digits."""
    if name == "ppl" or name.startswith("experts"):
        return f"{value:,.2f}"
    if name == "bpc":
        return f"{value:.3f}"
    if name == "mode_match":
        return f"{value:.1f} %"
    if name.startswith("rank"):
        return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"
    # A count (tokens) is told whole.
    return f"{value:,.0f}" if value >= 1000 and value == int(value) else f"{value:.4g}"


def superscript(number: int) -> str:
    """``¹²`` for 12: a footnote's mark."""
    return "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(digit)] for digit in str(number))


def signed(value: float, name: str) -> str:
    """A difference with its sign; zero, once rounded, has none."""
    text = metric(abs(value), name)
    if name in UNITS:
        text = text.removesuffix(" %") + UNITS[name]
    if not any(digit in "123456789" for digit in text):
        return text
    return ("+" if value > 0 else "-") + text


def cost(value: float) -> str:
    """Three significant digits, never in powers of ten: ``0.0123``, ``1.23``, ``12.3``, ``1,230``.

    What no measurement gives, such as the ratio to a time next to nothing, is a dash.
    """
    if value == 0:
        return "0"
    if not 1e-100 < abs(value) < 1e100:
        return DASH
    digits = 2 - math.floor(math.log10(abs(value)))
    rounded = round(value, digits)
    # Rounding may carry into another power of ten (9.999 is 10.0).
    digits = 2 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{max(0, digits)}f}"


def parameters(number: float | None) -> str:
    """A published count as printed, in millions: ``22M``, ``21.5M``."""
    return DASH if number is None else f"{number / 1e6:g}M"


def published_value(value: Value | None, name: str) -> str:
    """``57.08 ± 0.09 (11)``: as printed, with spread and seeds where the source gives them."""
    if value is None:
        return DASH
    spread = "" if value.sd is None else f" ± {metric(value.sd, name)}"
    seeds = "" if value.n is None else f" ({value.n})"
    return metric(value.value, name) + spread + seeds


def summary(ours: Summary | None, name: str) -> str:
    """``55.90 ± 0.12 (5)``: mean, standard deviation and number of seeds."""
    if ours is None or ours.mean is None:
        return DASH
    spread = "" if ours.sd is None else f" ± {metric(ours.sd, name)}"
    return f"{metric(ours.mean, name)}{spread} ({ours.n})"


def interval(ours: Summary | None, name: str) -> str:
    """``55.75 to 56.05``, the 95 % interval of the mean."""
    if ours is None or ours.low is None or ours.high is None:
        return DASH
    return f"{metric(ours.low, name)} to {metric(ours.high, name)}"


def source(number: Published | None) -> str:
    """Paper and table, the framework of a re-run, and a mark on what was read second-hand."""
    if number is None:
        return DASH
    framework = f" ({number.framework})" if number.framework else ""
    return f"{number.citation}{framework}{'*' if number.reported_by else ''}"
