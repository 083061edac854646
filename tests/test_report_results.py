import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pwm_jax.report import results
from pwm_jax.report.records import RecordError

ROW = results.ResultRow(
    study="quickstart",
    task="walker-walk",
    method="extracted",
    seed=0,
    episode_return=840.5,
    score=0.8405,
    env_steps=0,
    seconds=12.5,
    command="python -m experiments.run",
    commit="0123456789ab",
    hardware="a CPU, 2 cores",
)
KEYS = ["study", "task", "method", "seed", "return", "score", "env_steps", "seconds", "command", "commit", "hardware"]


def test_a_row_has_exactly_the_published_keys_and_comes_back(tmp_path):
    results.append_results(tmp_path, [ROW])
    line = json.loads((tmp_path / "quickstart.jsonl").read_text())
    assert list(line) == KEYS
    assert line["return"] == 840.5
    full = dataclasses.replace(ROW, seed=1, success=1.0, episodes=2, extra={"returns": [840.0, 841.0], "note": "x"})
    results.append_results(tmp_path, [full])
    assert results.read_results(tmp_path / "quickstart.jsonl") == [ROW, full]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"return": None}, "missing keys \\['return'\\]"),
        ({"reward": 3}, "unknown keys \\['reward'\\]"),
        ({"score": "high"}, "score must be a finite number"),
        ({"seconds": True}, "seconds must be a finite number"),
        ({"seed": -1}, "seed must be an integer >= 0"),
        ({"env_steps": 1.5}, "env_steps must be an integer >= 0"),
        ({"commit": ""}, "commit must be a non-empty string"),
        ({"study": "online"}, "belongs into online.jsonl"),
        ({"extra": {"returns": [1.0, 2.0]}}, "return 840.5 is not the mean of extra.returns"),
        ({"extra": [1]}, "extra must be an object"),
    ],
)
def test_a_wrong_row_is_named_by_file_and_line(tmp_path, change, message):
    record = ROW.to_record() | {"seed": 1} | change
    record = {key: value for key, value in record.items() if value is not None}
    path = tmp_path / "quickstart.jsonl"
    path.write_text(json.dumps(ROW.to_record()) + "\n" + json.dumps(record) + "\n")
    with pytest.raises(RecordError, match=r"quickstart\.jsonl, line 2: .*" + message):
        results.read_results(path)


def test_nan_in_a_file_is_named_by_line(tmp_path):
    path = tmp_path / "quickstart.jsonl"
    path.write_text(json.dumps(ROW.to_record() | {"return": float("nan")}) + "\n")
    with pytest.raises(RecordError, match=r"quickstart\.jsonl, line 1: .*non-finite"):
        results.read_results(path)


def test_a_repeated_row_is_refused_or_replaces_the_older_one(tmp_path):
    path = tmp_path / "quickstart.jsonl"
    newer = dataclasses.replace(ROW, episode_return=900.0)
    results.append_results(tmp_path, [ROW, dataclasses.replace(ROW, seed=1)])
    before = path.read_text()
    with pytest.raises(RecordError, match="replace=True"):
        results.append_results(tmp_path, [newer])
    assert path.read_text() == before
    results.append_results(tmp_path, [newer], replace=True)
    assert {row.seed: row.episode_return for row in results.read_results(path)} == {0: 900.0, 1: 840.5}
    path.write_text(before + before)
    with pytest.raises(RecordError, match="line 3: repeats task, method and seed of line 1"):
        results.read_results(path)


def test_a_row_that_is_not_finite_is_not_written(tmp_path):
    with pytest.raises(RecordError, match="walker-walk/extracted/seed 0: return must be a finite number"):
        results.append_results(tmp_path, [dataclasses.replace(ROW, episode_return=float("inf"))])
    assert list(tmp_path.iterdir()) == []


def test_the_command_has_no_absolute_paths_of_the_checkout_or_home(tmp_path, monkeypatch):
    home = tmp_path / "home"
    here = home / "pwm"
    here.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    arguments = [
        "/usr/bin/python3",
        f"{here}/experiments/pretrain.py",
        f"--workdir={here}/runs/a b",
        f"--data={home}/data",
        f"--x={here}",
        f"{home}less",
    ]
    assert results.command_line(arguments) == f"python experiments/pretrain.py '--workdir=runs/a b' '--data=~/data' --x=. {home}less"


def test_the_command_of_a_module_is_kept_as_typed(tmp_path):
    program = "from pwm_jax.report.results import command_line; print(command_line())"
    (tmp_path / "stage.py").write_text(program)
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "stage", "--seed=3"], cwd=tmp_path, env={"PYTHONPATH": str(root)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "python -m stage --seed=3"


def git(directory, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null"]
    return subprocess.run(["git", *identity, *arguments], cwd=directory, capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_of_the_checkout_is_marked_when_files_differ(tmp_path, monkeypatch):
    module = tmp_path / "pwm_jax" / "report" / "results.py"
    module.parent.mkdir(parents=True)
    module.write_text("")
    monkeypatch.setattr(results, "__file__", str(module))
    assert results.commit() == "unknown"
    git(tmp_path, "init", "-q")
    assert results.commit() == "unknown"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "x")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert results.commit() == head[: len(results.commit())]
    assert len(results.commit()) == 12
    (tmp_path / "untracked").write_text("")
    assert "+dirty" not in results.commit()
    module.write_text("changed")
    assert results.commit() == f"{head[:12]}+dirty"


def test_a_package_inside_another_repository_has_no_commit(tmp_path, monkeypatch):
    module = tmp_path / "venv" / "pwm_jax" / "report" / "results.py"
    module.parent.mkdir(parents=True)
    module.write_text("")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "x")
    monkeypatch.setattr(results, "__file__", str(module))
    assert results.commit() == "unknown"


def test_provenance_names_cores_and_accelerators():
    origin = results.provenance(["one GPU"])
    assert set(origin) == {"command", "commit", "hardware"}
    assert origin["hardware"].endswith("; one GPU")
    assert " core" in origin["hardware"]
