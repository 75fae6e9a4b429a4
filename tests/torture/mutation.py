"""Files changed as a stranger, a disk or a careless hand changes them: their structure, their text, their bytes."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

Place = tuple[Any, Any]
"""A container and the key or index of a value in it."""

HOSTILE = [
    "\x1b[2J\x1b]0;owned\x07", "\x00", "\u202egnp.exe", "\ud800", "\r\n\r\n", "\u2028", "\x9b31m",
    "<script>alert(1)</script>", "'\"><img src=x onerror=alert(1)>", "{{7*7}}", "=cmd|' /C calc'!A0", "${HOME}",
    "../../../etc/passwd", "/etc/passwd", "~", "a/b", ".", "", " ", "-rf", "%s%n", "$(reboot)", "`reboot`", "|", "\\",
    "é" * 300, "x" * 100_000, "e\u0301" * 50, "NaN", "1e999", "null", "*", "[!a]", "mos-15", "train", "ptb", "valid",
]  # fmt: skip
NUMBERS = [
    0, -1, 1, 2**31, 2**63, -(2**63) - 1, 2**64, 10**18, 10**300, 10**400, 1e308, -1e308, 5e-324, -0.0, 0.1, 1e16,
    float("inf"), float("-inf"), float("nan"), 4294967296.5,
]  # fmt: skip


def places(tree: Any) -> Iterator[Place]:
    """Every value inside of a tree, by where it stands."""
    stack = [tree]
    while stack:
        node = stack.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node))
        for key in keys:
            yield node, key
            if isinstance(node[key], dict | list):
                stack.append(node[key])


def _deep(random: Random) -> Any:
    value: Any = "bottom"
    for _ in range(random.choice([5, 40, 120, 240])):
        value = [value] if random.random() < 0.5 else {"a": value}
    return value


def any_value(random: Random) -> Any:
    """A value of any kind, the harmless ones too."""
    return random.choice(
        [
            lambda: random.choice(HOSTILE),
            lambda: random.choice(NUMBERS),
            lambda: random.choice([None, True, False, [], {}, [[]], [{}], {"": None}, {"name": None}, [None]]),
            lambda: _deep(random),
            lambda: [random.choice(NUMBERS) for _ in range(random.choice([1, 3, 500]))],
            lambda: {random.choice(HOSTILE): random.choice(HOSTILE) for _ in range(3)},
        ]
    )()


def mutated(random: Random, tree: Any) -> Any:
    """A copy with one to four changes: values swapped, doubled, dropped, renamed, moved, or put in another's place."""
    tree = copy.deepcopy(tree)
    for _ in range(random.choice([1, 1, 1, 2, 4])):
        found = list(places(tree))
        if not found:
            return tree
        node, key = random.choice(found)
        other, place = random.choice(found)
        kind = random.randrange(7)
        if kind == 0:
            del node[key]
        elif kind == 1:
            # A copy, or two changes could make a tree that holds itself.
            node[key], other[place] = copy.deepcopy(other[place]), copy.deepcopy(node[key])
        elif kind == 2 and isinstance(node, dict):
            node[random.choice(HOSTILE)] = node.pop(key)
        elif kind == 3:
            if isinstance(node, dict):
                node[f"{key}{random.choice(['', '2', ' '])}"] = copy.deepcopy(other[place])
            else:
                node.extend(copy.deepcopy(node[key]) for _ in range(random.choice([1, 3, 50])))
        elif kind == 4 and isinstance(node[key], int | float) and not isinstance(node[key], bool):
            node[key] = random.choice(NUMBERS)
        elif kind == 5 and isinstance(node[key], str):
            cut = random.randint(0, len(node[key]))
            node[key] = node[key][:cut] + random.choice(HOSTILE) + node[key][cut:]
        else:
            node[key] = any_value(random)
    return tree


_TOKENS = [
    b"&a ", b"*a", b"!!python/object/apply:os.system [reboot]", b"!!binary ", b"[", b"]", b"{", b"}", b": ", b"\n",
    b"  ", b"- ", b"<<: ", b"---\n", b"%YAML 1.1\n", b"? ", b"| ", b"> ", b"'", b'"', b"#", b",", b"\x00", b"\xff\xfe",
    b"\xc3\x28", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\x1b[31m", b"\xe2\x80\xae", b"9" * 5000, b"1e999", b"NaN",
    b'{"a":' * 2000, b"[" * 100_000, b'"\\ud800"', b"\r", b"\t", b"extends: x.yaml\n",
]  # fmt: skip
_ALIASES = [b"%c: &%c [%s]\n" % (65 + i, 65 + i, b", ".join([b"*%c" % (64 + i)] * 9)) for i in range(1, 9)]
_BOMB = b"A: &A [x, x, x, x, x, x, x, x, x]\n" + b"".join(_ALIASES).replace(b"*@", b"*A")


def _line(raw: bytes, random: Random) -> bytes:
    at = random.randint(0, len(raw))
    return raw[:at] + random.choice([b"x", b" ", b"\\u0000", b"9", b"["]) * 10_000_000 + raw[at:]


def damaged(random: Random, raw: bytes) -> bytes:
    """The bytes of a file after one to four accidents: cut, flipped, doubled, added to, or as good as replaced."""
    for _ in range(random.choice([1, 1, 2, 4])):
        at, to = sorted((random.randint(0, len(raw)), random.randint(0, len(raw))))
        kind = random.randrange(12)
        if kind < 2:
            raw = raw[:at]
        elif kind < 4 and raw:
            spot = random.randrange(len(raw))
            raw = raw[:spot] + bytes([raw[spot] ^ (1 << random.randrange(8))]) + raw[spot + 1 :]
        elif kind == 4:
            raw = raw[:to] + raw[at:to] + raw[to:]
        elif kind == 5:
            raw = raw[:at] + raw[to:]
        elif kind == 6 and random.random() < 0.02:
            raw = _line(raw, random)
        elif kind == 7 and random.random() < 0.1:
            raw = random.choice(
                [b"", b"\x00" * 4096, _BOMB + raw, b"PK\x03\x04" + raw, raw.decode("utf-8", "replace").encode("utf-16")]
            )
        else:
            raw = raw[:at] + random.choice(_TOKENS) + raw[at + random.choice([0, 0, 3]) :]
    return raw


def as_json(tree: Any) -> bytes:
    """JSON as a stranger may write it: NaN, halves of surrogate pairs and huge numbers included."""
    return json.dumps(tree, ensure_ascii=True).encode()


def as_yaml(tree: Any, random: Random) -> bytes:
    """The same as YAML, in block style or on one line."""
    return as_json(tree) if random.random() < 0.3 else "\n".join(_block(tree, 0)).encode() + b"\n"


def _block(tree: Any, depth: int) -> Iterator[str]:
    pad = "  " * depth
    if not tree or not isinstance(tree, dict | list) or depth > 60:
        yield pad + json.dumps(tree)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield f"{pad}{json.dumps(key)}:"
            yield from _block(value, depth + 1)
    else:
        for value in tree:
            yield f"{pad}-"
            yield from _block(value, depth + 1)


Build = Callable[[Random], bytes]
