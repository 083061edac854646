"""What a decision costs: `evaluation/decisions.json`, by method the time of one policy call and how many environments it decided for.

    {"<method>": {"seconds_per_call": median seconds, "environments": int, "device": "cpu", "gpu" or "tpu"}}

A call decides for all environments of an evaluation at once, so the time per decision is that of a call over their number. It can be
compared between methods that decided for about as many environments on the same device; a single environment that waits for its action
waits for a call, not for its share of one. The times stand in a file of their own, so that equal runs leave equal episode files.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pwm_jax.report.records import RecordError, read_json, write_json
from pwm_jax.report.results import ResultRow
from pwm_jax.untrusted import shown

_FILE = "decisions.json"
NOTE = (
    "A policy call decides for all environments of an evaluation at once. ms per decision: median time of a call, from observations to "
    "actions on the host without the first call, which compiles, over the number of environments. One environment alone would wait for "
    "a call of its own, so methods compare at like numbers on the same hardware."
)


@dataclasses.dataclass(frozen=True)
class DecisionTime:
    """Median seconds of one policy call, the environments that it decides for at once, and the kind of device it ran on."""

    seconds_per_call: float
    environments: int
    device: str

    @property
    def seconds_per_decision(self) -> float:
        """Seconds of a call over its environments."""
        return self.seconds_per_call / self.environments

    @classmethod
    def from_record(cls, record: Any, where: str) -> DecisionTime:
        """The time of a JSON object; raises RecordError that begins with `where`."""
        fields = {"seconds_per_call": (int, float), "environments": (int,), "device": (str,)}
        if not isinstance(record, Mapping) or set(record) != set(fields):
            raise RecordError(f"{where}: a time per decision has {', '.join(fields)}")
        for name, kinds in fields.items():
            value = record[name]
            if isinstance(value, bool) or not isinstance(value, kinds) or (isinstance(value, int | float) and value <= 0):
                raise RecordError(f"{where}: {name} is {shown(value)}")
        return cls(float(record["seconds_per_call"]), record["environments"], record["device"])


def write_decision_time(workdir: str | os.PathLike[str], method: str, time: DecisionTime) -> Path:
    """Note the time of a method in `<workdir>/evaluation/decisions.json`, in place of an earlier one; returns the file's path.

    Raises ValueError when the time is not finite.
    """
    path = Path(workdir) / "evaluation" / _FILE
    write_json(path, {**(read_json(path) if path.exists() else {}), method: dataclasses.asdict(time)})
    return path


def read_decision_times(path: str | os.PathLike[str]) -> dict[str, DecisionTime]:
    """Times by method; raises RecordError naming the file and the method."""
    return {method: DecisionTime.from_record(record, f"{path}: {shown(method)[1:-1]}") for method, record in read_json(path).items()}


def times_of_rows(rows: Iterable[ResultRow]) -> dict[str, list[DecisionTime]]:
    """Different times by method of published rows, those that carry one in `extra.decision`."""
    times: dict[str, list[DecisionTime]] = {}
    for row in rows:
        record = (row.extra or {}).get("decision")
        if record is not None:
            time = DecisionTime.from_record(record, f"{row.study}/{row.task}/{row.method}/seed {row.seed}: extra.decision")
            known = times.setdefault(row.method, [])
            if time not in known:
                known.append(time)
    return times


def format_milliseconds(seconds: float) -> str:
    """Seconds as milliseconds with three digits: '0.0312', '4.50', '132'."""
    value = 1000 * seconds
    return f"{value:.0f}" if value >= 99.95 else f"{value:#.3g}"


def _span(texts: Sequence[str]) -> str:
    return texts[0] if len(set(texts)) == 1 else f"{texts[0]}–{texts[-1]}"


def format_decision(times: Sequence[DecisionTime]) -> str:
    """Milliseconds per decision, such as '0.0312', or the range of several measurements."""
    return _span([format_milliseconds(seconds) for seconds in sorted(time.seconds_per_decision for time in times)])


def format_call(times: Sequence[DecisionTime]) -> str:
    """Milliseconds of a call and what it decided for, such as '0.62 for 20 (cpu)'; ranges over several measurements."""
    calls = _span([format_milliseconds(seconds) for seconds in sorted(time.seconds_per_call for time in times)])
    counts = _span([str(count) for count in sorted(time.environments for time in times)])
    return f"{calls} for {counts} ({', '.join(sorted({time.device for time in times}))})"
