"""JSON and JSON-lines files that survive a killed writer and say where they are wrong."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pwm_jax.untrusted import parse_json

_PARTIAL = ".partial-"


class RecordError(ValueError):
    """A file of records cannot be used; the message names the file, the line and what is wrong with it."""


def is_number(value: object) -> bool:
    """Whether JSON's value is a number, which true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_lines(path: str | os.PathLike[str], *, drop_partial_tail: bool = False) -> list[tuple[int, dict[str, Any]]]:
    """Read a JSON-lines file as (line number, object) pairs; blank lines are skipped.

    With `drop_partial_tail` a last line without its newline (a writer was killed in it) is left out.
    Raises RecordError naming file and line for anything that is not a JSON object with finite numbers.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise RecordError(f"{path}: not UTF-8 text ({error})") from error
    lines = text.split("\n")
    if drop_partial_tail:
        lines = lines[:-1]
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = parse_json(line)
        except ValueError as error:
            raise RecordError(
                f"{path}, line {number}: not a JSON object with finite numbers ({error}); correct or delete the line"
            ) from error
        if not isinstance(record, dict):
            raise RecordError(f"{path}, line {number}: expected a JSON object, found {type(record).__name__}")
        records.append((number, record))
    return records


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read one JSON object; raises RecordError naming the file when it is anything else."""
    path = Path(path)
    try:
        record = parse_json(path.read_bytes().decode())
    except ValueError as error:
        raise RecordError(f"{path}: not a JSON object with finite numbers ({error})") from error
    if not isinstance(record, dict):
        raise RecordError(f"{path}: expected a JSON object, found {type(record).__name__}")
    return record


def to_line(record: Mapping[str, Any]) -> str:
    """One JSON line; raises ValueError for non-finite numbers."""
    return json.dumps(dict(record), allow_nan=False, ensure_ascii=False) + "\n"


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file by renaming a finished temporary one, so that a reader never sees half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}{_PARTIAL}")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def remove_partial(directory: str | os.PathLike[str]) -> None:
    """Remove what killed writers left in a directory and below it, which no other process may be writing to."""
    for folder, _, files in os.walk(directory):
        for name in files:
            if name.startswith(".") and _PARTIAL in name:
                os.unlink(os.path.join(folder, name))


def write_json(path: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
    """Write one JSON object atomically; raises ValueError for non-finite numbers."""
    write_text(path, json.dumps(dict(record), indent=1, allow_nan=False, ensure_ascii=False) + "\n")
