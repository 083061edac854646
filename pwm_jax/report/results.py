"""Published numbers: one row for each task, method and seed in `results/<study>.jsonl`, with where it came from.

JSON keys of a row: study, task, method, seed, return, score, env_steps, seconds, command, commit, hardware, and the
optional success, episodes and extra. `extra` is free, but where it has `returns` (and `scores`), they are the lists of
episode values whose mean is `return` (and `score`); intervals are taken over them. `decision` in it is the method's time
per decision (see `decisions`), `published` the name of the published scores that the study is shown beside, `score` in words what
the scores of the study are.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pwm_jax.report.records import RecordError, is_number, read_lines, to_line, write_text
from pwm_jax.untrusted import shown

_NUMBERS = ("return", "score", "seconds", "success")
_COUNTS = ("seed", "env_steps", "episodes")
_TEXTS = ("study", "task", "method", "command", "commit", "hardware")
_OPTIONAL = ("success", "episodes", "extra")
_KEYS = ("study", "task", "method", "seed", "return", "score", "env_steps", "seconds", "command", "commit", "hardware", *_OPTIONAL)


@dataclasses.dataclass(frozen=True)
class ResultRow:
    """One published result: means over the episodes of one task, method and seed.

    `episode_return` is the JSON key `return`; `env_steps` counts agent steps taken to train, `seconds` their wall time.
    """

    study: str
    task: str
    method: str
    seed: int
    episode_return: float
    score: float
    env_steps: int
    seconds: float
    command: str
    commit: str
    hardware: str
    success: float | None = None
    episodes: int | None = None
    extra: Mapping[str, Any] | None = None

    def to_record(self) -> dict[str, Any]:
        """The row as a JSON object, without the optional fields that are None. Raises RecordError when it is not valid."""
        record = {
            ("return" if field.name == "episode_return" else field.name): getattr(self, field.name) for field in dataclasses.fields(self)
        }
        record = {key: value for key, value in record.items() if value is not None or key not in _OPTIONAL}
        _check(record, f"result row {self.study}/{self.task}/{self.method}/seed {self.seed}")
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, Any], where: str) -> ResultRow:
        """The row of a JSON object; raises RecordError that begins with `where`."""
        _check(record, where)
        return cls(**{("episode_return" if key == "return" else key): value for key, value in record.items()})

    @property
    def key(self) -> tuple[str, str, int]:
        """What a study has only one row of: task, method and seed."""
        return self.task, self.method, self.seed


def _check(record: Mapping[str, Any], where: str) -> None:
    missing = [key for key in _KEYS if key not in record and key not in _OPTIONAL]
    unknown = [key for key in record if key not in _KEYS]
    if missing or unknown:
        raise RecordError(f"{where}: missing keys {missing}, unknown keys {shown(unknown)}; a row has {', '.join(_KEYS)}")
    for key, value in record.items():
        number = is_number(value)
        if key in _TEXTS and not (isinstance(value, str) and value):
            raise RecordError(f"{where}: {key} must be a non-empty string, found {shown(value)}")
        if key in _COUNTS and not (number and isinstance(value, int) and value >= 0):
            raise RecordError(f"{where}: {key} must be an integer >= 0, found {shown(value)}")
        if key in _NUMBERS and not (number and abs(value) < float("inf")):
            raise RecordError(f"{where}: {key} must be a finite number, found {shown(value)}")
        if key == "extra" and not isinstance(value, Mapping):
            raise RecordError(f"{where}: extra must be an object, found {shown(value)}")
    extra = record.get("extra", {})
    try:
        json.dumps(dict(extra), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RecordError(f"{where}: extra is not finite JSON ({error})") from error
    for lists, mean in (("returns", "return"), ("scores", "score")):
        values = extra.get(lists)
        if values is not None and not (isinstance(values, list) and values and all(map(is_number, values))):
            raise RecordError(f"{where}: extra.{lists} must be a list of numbers, found {shown(values)}")
        if values is not None and (abs(sum(values) / len(values) - record[mean]) > 1e-3 * max(1.0, abs(record[mean]))):
            raise RecordError(f"{where}: {mean} {record[mean]} is not the mean of extra.{lists}")


def read_results(path: str | os.PathLike[str]) -> list[ResultRow]:
    """All rows of `results/<study>.jsonl`.

    Raises RecordError naming file and line for a damaged row, a row of another study, or a second row of the same
    task, method and seed.
    """
    path = Path(path)
    rows: list[ResultRow] = []
    seen: dict[tuple[str, str, int], int] = {}
    for number, record in read_lines(path):
        where = f"{path}, line {number}"
        row = ResultRow.from_record(record, where)
        if row.study != path.stem:
            raise RecordError(f"{where}: study {shown(row.study)} belongs into {shown(row.study)[1:-1]}.jsonl")
        if row.key in seen:
            raise RecordError(f"{where}: repeats task, method and seed of line {seen[row.key]}; keep one of them")
        seen[row.key] = number
        rows.append(row)
    return rows


def append_results(results_dir: str | os.PathLike[str], rows: Iterable[ResultRow], replace: bool = False) -> None:
    """Add rows to `<results_dir>/<study>.jsonl`, each study's file rewritten in one step.

    With `replace`, older rows of the same task, method and seed make room. Without it they are a RecordError,
    as is any row that does not hold what a row must hold; nothing is written then.
    """
    studies: dict[str, list[ResultRow]] = {}
    for row in rows:
        studies.setdefault(row.study, []).append(row)
    texts: dict[Path, str] = {}
    for study, new in studies.items():
        path = Path(results_dir) / f"{study}.jsonl"
        old = read_results(path) if path.exists() else []
        keys = [row.key for row in new]
        if replace:
            old = [row for row in old if row.key not in keys]
        every = [row.key for row in old] + keys
        twice = sorted({key for key in every if every.count(key) > 1})
        if twice:
            raise RecordError(f"{path}: already has or twice gets {twice}; pass replace=True to publish newer rows instead")
        texts[path] = "".join(to_line(row.to_record()) for row in [*old, *new])
    for path, text in texts.items():
        write_text(path, text)


def _git(*arguments: str) -> str | None:
    """Output of git in the checkout that holds this package, or None outside of one."""
    package = Path(__file__).resolve().parent
    try:
        top = subprocess.run(
            ["git", "rev-parse", "--show-toplevel"], cwd=package, capture_output=True, text=True, check=True
        ).stdout.strip()
        if Path(top).resolve() != package.parents[1]:
            return None
        return subprocess.run(["git", *arguments], cwd=top, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def commit() -> str:
    """The checkout's commit, twelve digits, with '+dirty' when tracked files differ from it; 'unknown' outside a checkout."""
    head = _git("rev-parse", "--short=12", "HEAD")
    if not head:
        return "unknown"
    return f"{head}+dirty" if _git("status", "--porcelain", "--untracked-files=no") else head


def hardware(accelerators: Sequence[str] = ()) -> str:
    """Processor model, usable cores and the accelerators as given, such as 'Xeon 8481C, 2 cores; NVIDIA H100'."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0] if names and names[0] != "unknown" else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return "; ".join([f"{model}, {cores} core{'s' if cores != 1 else ''}", *accelerators])


def portable(text: str) -> str:
    """Text with paths under the working directory made relative and the home directory written as '~'."""
    here, home = str(Path.cwd()), str(Path.home())
    if here != "/":
        text = re.sub(re.escape(here) + r"/+(?=[^/])", "", text)
        text = re.sub(re.escape(here) + r"(?![\w.-])", ".", text)
    return re.sub(re.escape(home) + r"(?![\w.-])", "~", text) if home != "/" else text


def command_line(arguments: Sequence[str] | None = None) -> str:
    """The command that runs now (or `arguments`, from the interpreter on), fit to be typed again in a checkout."""
    words = list(sys.orig_argv if arguments is None else arguments)
    return shlex.join(["python", *(portable(word) for word in words[1:])])


class _Originated(Protocol):
    """A row that says where it comes from."""

    @property
    def command(self) -> str: ...
    @property
    def commit(self) -> str: ...
    @property
    def hardware(self) -> str: ...


def origin_list(rows: Sequence[_Originated]) -> str:
    """Markdown list of the commands, commits and hardware that rows come from, each once."""
    lines = [f"- command: `{command}`\n" for command in dict.fromkeys(row.command for row in rows)]
    lines.append(f"- commit: {', '.join(dict.fromkeys(row.commit for row in rows))}\n")
    lines.append(f"- hardware: {', '.join(dict.fromkeys(row.hardware for row in rows))}\n")
    return "".join(lines)


def provenance(accelerators: Sequence[str] = ()) -> dict[str, str]:
    """What a row says about its origin: `command`, `commit` and `hardware`."""
    return {"command": command_line(), "commit": commit(), "hardware": hardware(accelerators)}
