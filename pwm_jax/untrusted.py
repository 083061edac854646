"""What files hold that may be damaged or another's: JSON without surprises, and text that is safe to show."""

from __future__ import annotations

import json
import math
from typing import Any

_MAX_DEPTH = 64


def shown(value: object) -> str:
    """A value that a file holds as part of a message: escaped, in one line, cut short."""
    text = value if isinstance(value, str) else repr(value)
    text = text if len(text) <= 100 else text[:97] + "..."
    return ascii(text) if isinstance(value, str) else ascii(text)[1:-1]


def parse_json(text: str) -> Any:
    """Parse strict JSON.

    Raises:
        ValueError: it is none, a number is not finite or too large for a float, a key is given twice, half of a surrogate pair stands
            alone, or more than 64 lists and objects lie within each other.
    """
    try:
        value = json.loads(
            text, parse_constant=_refuse_constant, parse_float=_finite_float, parse_int=_finite_int, object_pairs_hook=_object
        )
    except RecursionError as error:
        raise ValueError("lists and objects within each other without end") from error
    if text.count("[") + text.count("{") > _MAX_DEPTH and _is_deeper(value, _MAX_DEPTH):
        raise ValueError(f"more than {_MAX_DEPTH} lists and objects within each other")
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"non-finite number {name}")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"non-finite number {shown(text)}")
    return value


def _finite_int(text: str) -> int:
    value = int(text)
    try:
        float(value)
    except OverflowError as error:
        raise ValueError(f"non-finite number {shown(text)}") from error
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {shown(next(key for key in keys if keys.count(key) > 1))} is given twice")
    return entries


def _is_deeper(value: Any, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    return depth == 0 or any(_is_deeper(part, depth - 1) for part in (value.values() if isinstance(value, dict) else value))
