"""Learning curves of single-task runs on disk: `curves.jsonl`, one row for each evaluation of a seed.

JSON keys of a row: task, method, seed, env_steps, wall_s, compile_s, return, length, episodes. `return` and `length` are means over
`episodes` episodes of the policy without noise, after `env_steps` training steps of all environments together and `wall_s` seconds of
training; evaluation is not counted, and tracing and compiling are `compile_s`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pwm_jax.report.records import RecordError, read_lines, to_line, write_text
from pwm_jax.untrusted import shown

_TEXTS = ("task", "method")
_COUNTS = ("seed", "env_steps", "episodes")
_NUMBERS = ("wall_s", "compile_s", "return", "length")
_NOT_NEGATIVE = (*_COUNTS, "wall_s", "compile_s")
_KEYS = (*_TEXTS, *_COUNTS, *_NUMBERS)


@dataclasses.dataclass(frozen=True)
class CurveRow:
    """One evaluation of one seed; `episode_return` is the JSON key `return`."""

    task: str
    method: str
    seed: int
    env_steps: int
    wall_s: float
    compile_s: float
    episode_return: float
    length: float
    episodes: int

    def to_record(self) -> dict[str, Any]:
        """The row as a JSON object."""
        return {
            ("return" if field.name == "episode_return" else field.name): getattr(self, field.name) for field in dataclasses.fields(self)
        }


def _row(record: Mapping[str, Any], where: str) -> CurveRow:
    wrong = sorted(set(_KEYS) ^ set(record))
    if wrong:
        raise RecordError(f"{where}: missing or unknown keys {shown(wrong)}; a row has {', '.join(_KEYS)}")
    for key, value in record.items():
        fits = isinstance(value, str if key in _TEXTS else int if key in _COUNTS else int | float) and not isinstance(value, bool)
        if not fits or (key in _NOT_NEGATIVE and value < 0):
            raise RecordError(f"{where}: {key} cannot be {shown(value)}")
    return CurveRow(**{("episode_return" if key == "return" else key): value for key, value in record.items()})


def read_curves(path: str | os.PathLike[str]) -> list[CurveRow]:
    """Rows in the order of the file, without a last line that a killed writer left unfinished; none where there is no file.

    Raises RecordError naming file and line for a damaged row, or one with no more steps than the seed's row before.
    """
    path = Path(path)
    rows: list[CurveRow] = []
    reached: dict[tuple[str, str, int], int] = {}
    for number, record in read_lines(path, drop_partial_tail=True) if path.exists() else []:
        where = f"{path}, line {number}"
        row = _row(record, where)
        key = (row.task, row.method, row.seed)
        if row.env_steps <= reached.get(key, -1):
            raise RecordError(f"{where}: seed {row.seed} was evaluated after {reached[key]} steps already, now after {row.env_steps}")
        reached[key] = row.env_steps
        rows.append(row)
    return rows


def write_curves(path: str | os.PathLike[str], rows: Iterable[CurveRow]) -> None:
    """Write a file of rows, replacing an older one in one step."""
    write_text(path, "".join(to_line(row.to_record()) for row in rows))


def append_curve(path: str | os.PathLike[str], row: CurveRow) -> None:
    """Add one row to a file whose last line is complete."""
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(to_line(row.to_record()))


def last_rows(rows: Iterable[CurveRow]) -> list[CurveRow]:
    """The last row of each task, method and seed."""
    return list({(row.task, row.method, row.seed): row for row in rows}.values())


def finished_seeds(rows: Iterable[CurveRow], env_steps: int) -> set[int]:
    """The seeds of a run of one task and method that have reached `env_steps`."""
    return {row.seed for row in rows if row.env_steps >= env_steps}
