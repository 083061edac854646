"""Weights & Biases: nothing of it unless asked for, one line where it is missing, and its own offline files where it is not."""

import importlib.util
import os
import subprocess
import sys

import pytest

from pwm_jax.report import tracking
from pwm_jax.report.metrics import MetricsWriter, read_metrics
from pwm_jax.report.records import read_json, write_json


@pytest.fixture
def enabled(monkeypatch, tmp_path):
    """A project is logged to, offline, with all of wandb's files below `tmp_path`."""
    pytest.importorskip("wandb", reason="the package wandb is not installed: pip install 'pwm_jax[wandb]'")
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb_home"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("PWM_JAX_WANDB", "")  # restored at the end
    tracking.enable("demo")


def offline_runs(workdir):
    return sorted(workdir.glob("wandb/offline-run-*/*.wandb"))


def test_a_stage_resumes_its_run(enabled, tmp_path, capsys):
    workdir = tmp_path / "hopper"
    workdir.mkdir()
    write_json(workdir / "config.json", {"pretrain": {"model": {"latent_dim": 4321}}})
    with MetricsWriter(workdir, "pretrain", tensorboard=False) as writer:
        writer.write(7, {"loss/reward": 0.5})
    with MetricsWriter(workdir, "pretrain", start_step=7, tensorboard=False) as writer:
        writer.write(8, {"loss/reward": 0.25})
    with pytest.raises(KeyError), MetricsWriter(workdir, "bc", tensorboard=False):
        raise KeyError("lost")
    ids = read_json(workdir / "wandb.json")
    assert sorted(ids) == ["bc", "pretrain"]
    runs = offline_runs(workdir)
    assert sorted(path.name for path in runs) == sorted(f"run-{ids[stage]}.wandb" for stage in ("bc", "pretrain", "pretrain"))
    stored = [path.read_bytes() for path in runs if ids["pretrain"] in path.name]
    for text in stored:
        for word in (b"demo", b"loss/reward", b"4321", b"hopper pretrain"):
            assert word in text
    assert sorted(b"0.25" in text for text in stored) == [False, True]
    assert "pretrain at Weights & Biases: kept in " in capsys.readouterr().out
    assert len(read_metrics(workdir / "metrics" / "pretrain.jsonl")) == 2


def test_nothing_is_tracked_unless_asked_for(monkeypatch, tmp_path):
    monkeypatch.delenv("PWM_JAX_WANDB", raising=False)
    with MetricsWriter(tmp_path, "pretrain", tensorboard=False) as writer:
        writer.write(7, {"loss/reward": 0.5})
    assert {path.name for path in tmp_path.iterdir()} == {"metrics"}
    program = "import sys; from pwm_jax.report import metrics; sys.exit('wandb' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("left_behind", [False, True])
def test_a_missing_package_is_one_line(monkeypatch, left_behind):
    monkeypatch.setenv("PWM_JAX_WANDB", "")
    # A folder `wandb`, as wandb leaves behind where it runs, is a package without a file.
    spec = importlib.util.spec_from_loader("wandb", None, is_package=True) if left_behind else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(tracking.TrackingError, match=r"^--wandb needs the package wandb: pip install 'pwm_jax\[wandb\]'$"):
        tracking.enable("demo")
    assert not os.environ["PWM_JAX_WANDB"]
