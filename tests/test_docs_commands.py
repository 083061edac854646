"""The launchers' commands of the pages, run in their order: each page's are what a reader would type, with every size made tiny.

What is run elsewhere, or cannot be: the studies of README.md (each launcher's own tests), docs/published_runs.md
(test_published_runs.py), clusters, downloads, installations, single tasks in simulators (test_single_task_launcher.py).
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from test_docs import ROOT, blocks

from configs import debug
from experiments import launch
from experiments.settings import flatten

SECTIONS = ("model", "world_model", "policy", "pretrain", "extract", "generalist", "mppi", "bc", "online")
KEPT = ("config.extract.seeds", "config.extract.tasks")  # what a page's text speaks of
STUDY = ("--config.sweep.seeds=(0,)", "--config.sweep.processes=1")


def commands(text: str) -> list[list[str]]:
    """The arguments of every `python -m experiments...` at the start of a line, continued lines joined and comments left out."""
    joined = re.sub(r"\\\n\s*", " ", text)
    return [shlex.split(line, comments=True) for line in re.findall(r"^ *python -m (experiments\.[^\n]+)", joined, re.MULTILINE)]


def tiny(arguments: list[str]) -> list[str]:
    """Flags that make every size of a command's configuration that of configs/debug.py, but for what the command sets itself."""
    config = next(argument.partition("=")[2] for argument in arguments if argument.startswith("--config="))
    fields, said = flatten(launch.load(launch.found(config))), {argument.partition("=")[0] for argument in arguments}
    wanted = {path: value for path, value in flatten(debug.get_config()).items() if path.split(".")[1] in SECTIONS}
    wanted |= {"config.evaluate.episodes": 1, "config.evaluate.picture": 96, "config.num_workers": 2}
    changed = {path: value for path, value in wanted.items() if path in fields and fields[path] != value and path not in KEPT}
    return [f"--{path}={value}" for path, value in changed.items() if f"--{path}" not in said]


def run(command: list[str], place: Path, *more: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PWM_JAX_TASKS": str(place)}
    done = subprocess.run(
        [sys.executable, "-m", *command, *more], cwd=place, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"


def section(page: str, begin: str, end: str) -> str:
    text = (ROOT / page).read_text(encoding="utf-8")
    return text[text.index(begin) : text.index(end)]


@pytest.mark.slow
def test_the_stages_of_the_readme_and_what_other_pages_do_with_them(tmp_path: Path) -> None:
    stages = commands(section("README.md", "## Stages", "### Single tasks"))
    assert [command[0].partition(".")[2] for command in stages[:8]] == [
        "collect", "pretrain", "extract", "bc", "generalist", "evaluate", "report", "run"
    ]  # fmt: skip
    after = [
        command for page in ("tutorial", "use_elsewhere", "watching") for command in commands((ROOT / "docs" / f"{page}.md").read_text())
    ]
    assert len(after) >= 5
    for command in [*stages, *(command for command in after if not any(word.startswith("--wandb") for word in command))]:
        run(command, tmp_path, *(tiny(command) if any(word.startswith("--config=") for word in command) else ()))
    assert (tmp_path / "runs" / "quickstart" / "report.html").stat().st_size > 100_000
    assert list((tmp_path / "runs" / "quickstart" / "export").glob("*.npz"))
    assert list((tmp_path / "runs" / "longer" / "evaluation").glob("extracted.jsonl"))


@pytest.mark.slow
def test_an_own_task_and_own_data(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "own_tasks.md").read_text(encoding="utf-8")
    environment, writer = blocks(ROOT / "docs" / "own_tasks.md")
    (tmp_path / "pendulum.py").write_text(environment)
    (tmp_path / "record.py").write_text(writer)
    done = subprocess.run(
        [sys.executable, "record.py"], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT), "PWM_JAX_TASKS": str(tmp_path)}, check=False
    )
    assert done.returncode == 0
    found = commands(text)
    assert len(found) == 6
    for command in found:
        run(command, tmp_path, *tiny(command))
    for name in ("pendulum", "pendulum2", "mine2"):
        assert (tmp_path / "runs" / name / "report.html").exists()


@pytest.mark.slow
def test_another_regulariser_and_a_study(tmp_path: Path) -> None:
    (tmp_path / "my_study.py").write_text(blocks(ROOT / "docs" / "comparing.md")[0])
    study, other = commands((ROOT / "docs" / "comparing.md").read_text(encoding="utf-8"))
    study[1] = f"--config={tmp_path / 'my_study.py'}"  # as found from here, to read its fields
    run(study, tmp_path, *tiny(study), *STUDY)
    assert len((tmp_path / "runs" / "my_study" / "my_study.jsonl").read_text().splitlines()) == 4 * 2
    run(other, tmp_path, *tiny(other))
    assert (tmp_path / "runs" / "relu" / "report.html").exists()
