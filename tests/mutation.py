"""Damaged copies of files and of JSON, from a seeded generator."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

_EDGES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)


def counts(few: int, many: int) -> pytest.MarkDecorator:
    """Parametrise a test by its number of mutants: `few` by default, `many` others with `-m slow`."""
    return pytest.mark.parametrize("count", [few, pytest.param(many, marks=pytest.mark.slow)])


def files_of(directory: Path, patterns: Sequence[str] = ("*",)) -> list[Path]:
    """All files below a directory whose names match, in order."""
    return sorted({path for pattern in patterns for path in directory.rglob(pattern) if path.is_file()})


# ------------------------------------------------------------------------------------------------------------------ mutations of bytes


def mutate_bytes(rng: np.random.Generator, content: bytes, other: bytes = b"") -> tuple[str, bytes]:
    """One to three mutations of `content`, which `other`, a file of the same kind, may lend a range to; also what was done.

    The result differs from `content`.
    """
    changed, done = content, []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        kind = str(rng.choice(list(_BYTES)))
        after = _BYTES[kind](rng, changed, other)
        if after == changed:
            kind = "flip" if changed else "extend"
            after = _BYTES[kind](rng, changed, other)
        changed = after
        done.append(kind)
    if changed == content:
        changed += b"\x00"
    return "+".join(done), changed


def _range(rng: np.random.Generator, content: bytes) -> tuple[int, int]:
    """A range of at least one byte, short ones as likely as long ones."""
    first = int(rng.integers(max(len(content), 1)))
    return first, first + max(int((len(content) - first) ** rng.uniform()), 1)


def _flip(rng: np.random.Generator, content: bytes, other: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(int(rng.choice([1, 1, 1, 2, 8]))):
        if changed:
            changed[rng.integers(len(changed))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _edge(rng: np.random.Generator, content: bytes, other: bytes) -> bytes:
    """An integer that lies somewhere becomes an extreme one."""
    size, (first, _) = int(rng.choice([1, 2, 4, 8])), _range(rng, content)
    value = int(rng.choice(np.array(_EDGES, np.uint64))) % (1 << 8 * size)
    return content[:first] + value.to_bytes(size, str(rng.choice(["little", "big"])))[: len(content) - first] + content[first + size :]  # type: ignore[arg-type]


def _truncate(rng: np.random.Generator, content: bytes, other: bytes) -> bytes:
    return content[: int(rng.integers(len(content)))] if content else content


def _extend(rng: np.random.Generator, content: bytes, other: bytes) -> bytes:
    return content + (rng.bytes(int(rng.integers(1, 64))) if rng.uniform() < 0.5 else other[-64:])


def _delete(rng: np.random.Generator, content: bytes, other: bytes) -> bytes:
    first, end = _range(rng, content)
    return content[:first] + content[end:]


def _duplicate(rng: np.random.Generator, content: bytes, other: bytes) -> bytes:
    first, end = _range(rng, content)
    return content[:end] + content[first:end] + content[end:]


def _splice(rng: np.random.Generator, content: bytes, other: bytes) -> bytes:
    first, end = _range(rng, other)
    at = int(rng.integers(len(content) + 1)) if rng.uniform() < 0.5 else first
    return content[:at] + other[first:end] + content[at + end - first :]


def _zero(rng: np.random.Generator, content: bytes, other: bytes) -> bytes:
    first, end = _range(rng, content)
    return content[:first] + bytes(min(end, len(content)) - first) + content[end:]


_BYTES: dict[str, Callable[[np.random.Generator, bytes, bytes], bytes]] = {
    "flip": _flip, "edge": _edge, "truncate": _truncate, "extend": _extend, "delete": _delete, "duplicate": _duplicate,
    "splice": _splice, "zero": _zero,
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------------------ mutations of JSON

_DEEP = "a list in a list in a list"  # stands for 100 000 of them until all is text
STRANGE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 0.5, -1.5, 2**31, 2**63, 2**64, -(2**63), 10**30, 10**400, 1e308, 1e-320, float("nan"), float("inf"),
    -float("inf"), "", "x", "nan", "1", "0x10", "\x00", "\x1b[2J\n", "../../etc/passwd", "\ud800", "é" * 300, "9" * 5000, [], [[]], {},
    {"a": {}}, [None], [1, "x"], {"__class__": "os.system"}, _DEEP,
)  # fmt: skip
"""Values that hardly any field takes; JSON has them all, but for `_DEEP`, which `to_text` writes out."""


def mutate_json(rng: np.random.Generator, value: Any) -> tuple[str, str]:
    """Text of `value`, a JSON object or list, with one part removed, replaced, doubled or renamed; also what was done to which part."""
    changed = copy.deepcopy(value)
    places = list(_places(changed))
    container, key, name = places[rng.integers(len(places))]
    kind = str(rng.choice(["delete", "strange", "strange", "strange", "near", "near", "double", "rename", "swap"]))
    old = container[key]
    if kind == "delete":
        del container[key]
    elif kind == "strange":
        container[key] = STRANGE[rng.integers(len(STRANGE))]
    elif kind == "near":
        container[key] = _near(rng, old)
    elif kind == "double" and isinstance(container, list):
        container.insert(key, copy.deepcopy(old))
    elif kind == "swap":
        there, other, _ = places[rng.integers(len(places))]
        container[key] = copy.deepcopy(there[other])
    else:
        twice = kind == "double"
        text = to_text(changed)
        if isinstance(container, dict):
            entry = f"{json.dumps(key)}: "
            text = text.replace(entry, f"{entry}{json.dumps(STRANGE[rng.integers(20)])}, {entry}" if twice else f'"x{key[1:]}": ', 1)
        return f"{kind} {name}", text
    return f"{kind} {name}", to_text(changed)


def to_text(value: Any) -> str:
    """`value` as JSON, with NaN and Infinity as Python writes them."""
    return json.dumps(value).replace(json.dumps(_DEEP), "[" * 100_000 + "]" * 100_000)


def _places(value: Any, name: str = "") -> Iterator[tuple[Any, Any, str]]:
    """Every part of nested dicts and lists: what holds it, at which key, and its name."""
    for key, part in list(value.items()) if isinstance(value, dict) else list(enumerate(value)):
        yield value, key, f"{name}/{key}"
        if isinstance(part, dict | list):
            yield from _places(part, f"{name}/{key}")


def _near(rng: np.random.Generator, value: Any) -> Any:
    """Something of the same type that is hardly ever right."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return [-value, value + 1, value * 1000, value + 0.5, -1][rng.integers(5)]
    if isinstance(value, str):
        return [value[:-1], value + "x", value.upper(), value * 2][rng.integers(4)]
    if isinstance(value, list):
        return [value[:-1], value + value, value[::-1], [value]][rng.integers(4)]
    return {**value, "unknown": 1} if isinstance(value, dict) else 0
