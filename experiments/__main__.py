"""`pwm_jax STAGE --config=FILE --workdir=DIR`: every launcher by its name, as `python -m experiments.STAGE`; completed by the shell after

    eval "$(register-python-argcomplete pwm_jax)"

(bash and zsh; `--shell fish` for fish), a configuration's fields included.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import argcomplete
from argcomplete.completers import DirectoriesCompleter, FilesCompleter

from experiments import launch
from experiments.settings import ConfigError, flatten, nearest


class Launcher(NamedTuple):
    """What is known of a launcher without importing it: the first line of its docstring, and the config that it uses by default."""

    says: str
    config: str


def launchers() -> dict[str, Launcher]:
    """Every launcher by its name."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        source = path.read_text(encoding="utf-8")
        default = re.search(r'^    launch\.run\(main,.*config="([^"]+)"', source, re.MULTILINE)
        if default:
            docstring = ast.get_docstring(ast.parse(source)) or ""
            found[path.stem] = Launcher(docstring.split("\n", 1)[0], default.group(1))
    return found


def completing(words: Sequence[str]) -> argparse.ArgumentParser:
    """What can follow on a command line of these words: the launchers, and of the named one its flags and its config's fields."""
    known = launchers()
    parser = argparse.ArgumentParser(prog="pwm_jax", add_help=False)
    parser.add_argument("stage", choices=known)
    add = parser.add_argument
    add("--workdir").completer = DirectoriesCompleter()  # type: ignore[attr-defined]
    add("--config").completer = FilesCompleter(["py"])  # type: ignore[attr-defined]
    for flag in ("--debug", "--help"):
        add(flag, action="store_true")
    add("--wandb")
    stage = next((word for word in words if word in known), None)
    if stage is not None:
        named = re.search(r"--config[= ](\S+)", " ".join(words))
        try:
            fields = flatten(launch.load(launch.found(named.group(1) if named else known[stage].config)))
        except ConfigError:
            fields = {}
        for path, value in fields.items():
            if isinstance(value, bool):
                add(f"--{path}", f"--no{path}", action="store_true")
            else:
                add(f"--{path}")
    return parser


def main() -> NoReturn:
    """Become `python -m experiments.STAGE`, or say which stages there are."""
    if "_ARGCOMPLETE" in os.environ:
        line = os.environ.get("COMP_LINE", "")
        argcomplete.autocomplete(completing(line.split()))
    known = launchers()
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print("usage: pwm_jax STAGE --config=FILE --workdir=DIR [--config.FIELD=VALUE ...]\n")
        for name, launcher in known.items():
            print(f"  {name:<14} {launcher.says}")
        print("\n`pwm_jax STAGE --help` shows its flags and the fields of its config. What a stage reads and writes: README.md, Stages.")
        sys.exit(0)
    stage = sys.argv[1]
    if stage not in known:
        print(f"error: there is no stage {stage!r}{nearest(stage, known)}", file=sys.stderr)
        sys.exit(2)
    os.execv(sys.executable, [sys.executable, "-m", f"experiments.{stage}", *sys.argv[2:]])


if __name__ == "__main__":
    main()
