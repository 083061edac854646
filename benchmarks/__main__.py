"""`python -m benchmarks run` times the cases, each in a process of its own; `python -m benchmarks compare OLD NEW` tells two runs apart."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# What is shown of a row.
COLUMNS: list[tuple[str, Callable[[Any], str | float | None]]] = [
    ("case", lambda row: row.case),
    ("preset", lambda row: row.preset),
    ("B", lambda row: row.batch_size),
    ("H", lambda row: row.horizon),
    ("ms", lambda row: 1e3 * row.median),
    ("of sgemm", lambda row: row.fraction),
    ("GFLOP", lambda row: row.flop and row.flop / 1e9),
    ("XLA's", lambda row: row.xla_flop and row.xla_flop / 1e9),
    ("compile s", lambda row: row.compile_seconds),
    ("temp MiB", lambda row: row.temporary_bytes and row.temporary_bytes / 2**20),
    ("peak MiB", lambda row: row.peak_bytes / 2**20),
]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="time the cases and print a table")
    run.add_argument("--cases", default="", help="comma-separated; all by default")
    run.add_argument("--presets", default="5M-mt30", help="comma-separated sizes of configs/base.py")
    run.add_argument("--batch_sizes", default="64", help="comma-separated")
    run.add_argument("--horizon", type=int, default=16)
    run.add_argument("--seconds", type=float, default=10.0, help="time for the calls of each case")
    run.add_argument("--json", type=Path, default=None, help="file for the rows; `compare` reads it")
    compare = commands.add_parser("compare", help="what changed beyond noise")
    compare.add_argument("old", type=Path)
    compare.add_argument("new", type=Path)
    one = commands.add_parser("case", help="one case in this process, as a line of JSON")
    for name in ("name", "preset"):
        one.add_argument(name)
    one.add_argument("batch_size", type=int)
    one.add_argument("horizon", type=int)
    one.add_argument("seconds", type=float)
    flags = parser.parse_args()
    if flags.command == "compare":
        from benchmarks import compare as comparison

        try:
            print(comparison.table(comparison.changes(comparison.read(flags.old), comparison.read(flags.new))))
        except (OSError, ValueError) as error:
            parser.error(str(error))
    elif flags.command == "case":
        _case(flags)
    else:
        _run(flags, parser)


def _case(flags: argparse.Namespace) -> None:
    from pwm_jax.memory import keep_freed_memory

    keep_freed_memory()  # as the launchers do

    from benchmarks.measure import measure
    from benchmarks.work import Shape

    print(json.dumps(dataclasses.asdict(measure(flags.name, Shape(flags.preset, flags.batch_size, flags.horizon), flags.seconds))))


def _run(flags: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    from benchmarks.cases import CASES, EXTRAS
    from benchmarks.measure import Row
    from configs.base import PRESETS

    cases = flags.cases.split(",") if flags.cases else list(CASES)
    presets = flags.presets.split(",")
    for kind, chosen, known in (("case", cases, CASES | EXTRAS), ("preset", presets, PRESETS)):
        for name in chosen:
            if name not in known:
                parser.error(f"there is no {kind} {name}; there are {', '.join(known)}")
    if flags.json:
        flags.json.parent.mkdir(parents=True, exist_ok=True)
        flags.json.touch()
    print(_joined([name for name, _ in COLUMNS]))
    rows: list[Row] = []
    runs = list(itertools.product(presets, cases, flags.batch_sizes.split(",")))
    for preset, case, size in runs:
        command = [sys.executable, "-m", "benchmarks", "case", case, preset, size, str(flags.horizon), str(flags.seconds)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            print(f"{_joined([case, preset, size])}  failed, see above", flush=True)
            continue
        rows.append(Row(**json.loads(done.stdout.splitlines()[-1])))
        print(_joined([_shown(value(rows[-1])) for _, value in COLUMNS]), flush=True)
        if flags.json:
            flags.json.write_text(json.dumps({**_machine(), "rows": [dataclasses.asdict(row) for row in rows]}) + "\n")
    if rows:
        rate = [value for row in rows for value in row.float32_rate]
        print(f"sgemm {sorted(rate)[len(rate) // 2] / 1e9:.0f} GFLOP/s, bfloat16 {rows[0].bfloat16_rate / 1e9:.0f}, ", end="")
        print(f"copy {rows[0].copy_rate / 1e9:.0f} GB/s; of sgemm: FLOP by formula over time and the rate in the same process")
    if len(rows) < len(runs):
        sys.exit(1)


def _joined(cells: Sequence[str]) -> str:
    return "".join([f"{cells[0]:<24}", f"{cells[1]:<10}", *(f"{cell:>10}" for cell in cells[2:])])


def _shown(value: str | float | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:.0f}" if isinstance(value, int) or value >= 1000 else f"{value:.3g}"


def _machine() -> dict[str, object]:
    from pwm_jax.report.results import provenance

    return {"when": time.strftime("%Y-%m-%d"), "python": platform.python_version(), "cpus": os.cpu_count(), **provenance()}


if __name__ == "__main__":
    main()
