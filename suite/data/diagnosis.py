"""Why a file is not the corpus it should be: said in words, from what is in it."""

from __future__ import annotations

from collections.abc import Sequence

from suite.data.vocabulary import EOS

UNKNOWN = "<unk>"

# Far beyond the longest line of a real corpus (3,836 characters in WikiText-2).
_LONGEST_LINE = 100_000
_ARCHIVES = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"PAR1": "Parquet"}


def not_text(data: bytes) -> str | None:
    """The reason why bytes are no UTF-8 text of a corpus at all, or None."""
    if not data.strip():
        return "the file is empty"
    for magic, kind in _ARCHIVES.items():
        if data.startswith(magic):
            return f"a {kind} file instead of text; unpack it first"
    if is_html(data):
        return "an HTML page instead of text, such as a sign-in or error page"
    if data.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer instead of the text it stands for"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16 text; convert it to UTF-8"
    if data.startswith(b"\xef\xbb\xbf"):
        return "it starts with a byte-order mark; save it as plain UTF-8"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start:,}"
    longest = max(map(len, data.split(b"\n")))
    if longest > _LONGEST_LINE:
        return f"a line of {longest:,} bytes; the line ends were lost"
    return None


def is_html(data: bytes) -> bool:
    """Whether bytes start like a web page."""
    return data[:1000].lstrip().lower().startswith((b"<!doctype html", b"<html", b"<head", b"<?xml"))


def difference(tokens: Sequence[str], *, size: int, lower_case: bool, expected_bytes: int, expected_tokens: int) -> str:
    """How the tokens of a text that is not the expected one differ from it, the most telling difference first."""
    words = [token for token in tokens if token != EOS]
    count = len(words)
    if sum(len(word) == 1 for word in words) > 0.9 * count:
        return "the character-level variant, one character a token"
    if UNKNOWN not in words and size > expected_bytes // 2:
        return f"the raw variant: rare words are not replaced by {UNKNOWN}"
    cased = sum(word != word.lower() for word in words if word != "N") / max(count, 1)
    if lower_case and cased > 0.001:
        return f"not lower-cased: {cased:.1%} of its words have capitals"
    if not lower_case and cased == 0:
        return "lower-cased: it has no capital letter"
    glued = sum(word.endswith(",") for word in words if len(word) > 1) / max(count, 1)
    if glued > 0.01:
        return f"not tokenised: {glued:.1%} of its words end with a comma"
    if size < expected_bytes and len(tokens) < expected_tokens:
        return f"truncated: {size:,} of {expected_bytes:,} bytes, {len(tokens):,} of {expected_tokens:,} tokens"
    if len(tokens) != expected_tokens:
        lines = tokens.count(EOS)
        return f"{len(tokens):,} tokens with {EOS} ({lines:,} lines) instead of {expected_tokens:,}"
    return f"as many tokens ({expected_tokens:,}) but other words; it was changed or comes from another source"
