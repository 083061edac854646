"""Measured quantities of a study that are no returns of policies: one row for each setting in `results/measured/<study>.jsonl`.

JSON keys of a row: study, setting (what was varied, by name), values (what was measured, by name; numbers, or lists of numbers for curves),
command, commit, hardware.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pwm_jax.report.records import RecordError, is_number, read_lines, to_line, write_text
from pwm_jax.untrusted import shown

Setting = Mapping[str, str | int | float]
Value = float | None | Sequence[float]
_TEXTS = ("study", "command", "commit", "hardware")


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What was measured at one setting. A value that was not finite is None."""

    study: str
    setting: Setting
    values: Mapping[str, Value]
    command: str
    commit: str
    hardware: str

    @property
    def key(self) -> tuple[tuple[str, str | int | float], ...]:
        """What a study has only one row of: the setting."""
        return tuple(sorted(self.setting.items()))


def _is_value(value: object) -> bool:
    return value is None or is_number(value) or (isinstance(value, list) and all(map(is_number, value)))


def _measurement(record: Mapping[str, Any], where: str) -> Measurement:
    fields = [field.name for field in dataclasses.fields(Measurement)]
    if sorted(record) != sorted(fields):
        raise RecordError(f"{where}: missing or unknown keys {shown(sorted(set(fields) ^ set(record)))}; a row has {', '.join(fields)}")
    for name in _TEXTS:
        if not isinstance(record[name], str) or not record[name]:
            raise RecordError(f"{where}: {name} must be a non-empty string, found {shown(record[name])}")
    for name, fits in (("setting", lambda value: is_number(value) or isinstance(value, str)), ("values", _is_value)):
        if not isinstance(record[name], Mapping) or not record[name]:
            raise RecordError(f"{where}: {name} must be an object with at least one entry, found {shown(record[name])}")
        wrong = {key: value for key, value in record[name].items() if not fits(value)}
        if wrong:
            raise RecordError(f"{where}: {name} cannot hold {shown(wrong)}")
    return Measurement(**record)


def read_measurements(path: str | os.PathLike[str]) -> list[Measurement]:
    """All rows of `<study>.jsonl` in the order of the file; none where there is no file.

    Raises RecordError naming file and line for a damaged row, one of another study, or a second row of the same setting.
    """
    path = Path(path)
    rows: dict[Any, Measurement] = {}
    for number, record in read_lines(path, drop_partial_tail=True) if path.exists() else []:
        where = f"{path}, line {number}"
        row = _measurement(record, where)
        if row.study != path.stem:
            raise RecordError(f"{where}: study {shown(row.study)} belongs into {shown(row.study)[1:-1]}.jsonl")
        if row.key in rows:
            raise RecordError(f"{where}: repeats the setting {shown(dict(row.setting))}; keep one of them")
        rows[row.key] = row
    return list(rows.values())


def write_measurements(directory: str | os.PathLike[str], rows: Iterable[Measurement]) -> None:
    """Add rows to `<directory>/<study>.jsonl`, each in the place of an older one of the same setting; each file in one step."""
    studies: dict[str, list[Measurement]] = {}
    for row in rows:
        studies.setdefault(row.study, []).append(row)
    for study, new in studies.items():
        path = Path(directory) / f"{study}.jsonl"
        every = {row.key: row for row in [*read_measurements(path), *new]}
        write_text(path, "".join(to_line(dataclasses.asdict(row)) for row in every.values()))


def by_setting(rows: Sequence[Measurement], *names: str) -> dict[tuple[str | int | float, ...], list[Measurement]]:
    """The rows grouped by the named entries of their settings, in the order in which these first occur."""
    groups: dict[tuple[str | int | float, ...], list[Measurement]] = {}
    for row in rows:
        groups.setdefault(tuple(row.setting[name] for name in names), []).append(row)
    return groups


def number(row: Measurement, name: str) -> float:
    """A single value of a row; infinite where it was not finite. Raises TypeError for a curve."""
    value = row.values[name]
    return float("inf") if value is None else float(value)  # type: ignore[arg-type]
