"""Digests of a directory's files, noted in the directory, so that damaged ones are found before a library of C++ reads them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

_NOTE = "files.json"


def note(directory: Path) -> None:
    """Write down the digest of every file of a directory that is complete."""
    digests = {str(file.relative_to(directory)): _digest(file) for file in sorted(directory.rglob("*")) if file.is_file()}
    temporary = directory / f"{_NOTE}.new"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(digests, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(directory / _NOTE)


def check(directory: Path, part: str) -> None:
    """Compare the files directly in `directory` and those below its directory `part` with the note, where there is one.

    Raises:
        ValueError: a file is not as it was when the note was written, or the note is damaged.
        OSError: a file is missing or cannot be read.
    """
    if not (directory / _NOTE).exists():
        return
    try:
        digests = dict(json.loads((directory / _NOTE).read_text(encoding="utf-8")))
    except (RecursionError, TypeError) as error:
        raise ValueError(f"{_NOTE} is damaged") from error
    for name, digest in digests.items():
        if name.partition("/")[0] in (name, part) and digest != _digest(directory / name):
            raise ValueError(f"{name} is not as it was saved")


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
