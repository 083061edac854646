"""The launchers as one command: what it lists, what it becomes, and what a shell is told that can follow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "experiments", *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | env, capture_output=True, text=True, timeout=120, check=False)


def completions(line: str, path: Path) -> list[str]:
    """What bash would offer at the end of a line."""
    asked = dict(_ARGCOMPLETE="1", _ARGCOMPLETE_IFS="\n", _ARGCOMPLETE_STDOUT_FILENAME=str(path), COMP_TYPE="9")
    done = run(COMP_LINE=line, COMP_POINT=str(len(line)), **asked)
    assert done.returncode == 0, done.stderr
    return [word.rstrip() for word in path.read_text().split("\n")]


def test_it_lists_every_launcher_with_what_it_does():
    launchers = {path.stem for path in (ROOT / "experiments").glob("*.py") if "    launch.run(main, " in path.read_text()}
    done = run()
    listed = {line.split()[0]: line.split(maxsplit=1)[1] for line in done.stdout.splitlines() if line.startswith("  ")}
    assert done.returncode == 0
    assert launchers > {"collect", "pretrain", "extract", "run"}
    assert set(listed) == launchers
    assert listed["pretrain"].startswith("Pre-train a world model")


def test_it_becomes_the_launcher():
    done = run("extract", "--config=configs/debug.py", "--config.policy.horizn=3", "--workdir=never")
    assert (done.returncode, done.stdout) == (2, "")
    assert "config.policy.horizon" in done.stderr


def test_a_mistyped_stage_is_named():
    done = run("extrct")
    assert (done.returncode, done.stderr) == (2, "error: there is no stage 'extrct'; did you mean extract?\n")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("pwm_jax ex", {"export", "extract"}),
        ("pwm_jax extract --config.policy.hor", {"--config.policy.horizon"}),
        ("pwm_jax extract --config=configs/quickst", {"--config=configs/quickstart.py", "--config=configs/quickstart_data.py"}),
        ("pwm_jax pretrain --config.model.mask_", {"--config.model.mask_actions"}),
        ("pwm_jax pretrain --noconfig.model.mask_", {"--noconfig.model.mask_actions"}),
        ("pwm_jax evaluate --config=configs/single_task.py:toy,pwm --config.single_task.env_", {"--config.single_task.env_steps"}),
        ("pwm_jax extract --config=configs/none.py --work", {"--workdir"}),
    ],
)
def test_a_shell_is_told_stages_files_and_the_fields_of_the_config(line, offered, tmp_path):
    assert set(completions(line, tmp_path / "offered")) == offered
