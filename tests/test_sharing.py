"""A world model on one device, on eight, and on two processes of four: the same numbers, and checkpoints that any of them reads."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from pwm_jax import checkpoint
from pwm_jax.data.store import DatasetWriter, Episode
from pwm_jax.envs.tasks import TaskSet
from pwm_jax.report.metrics import read_metrics
from pwm_jax.report.records import read_json
from pwm_jax.training.sharing import Sharing, SharingError

ROOT = Path(__file__).resolve().parents[1]

SETTINGS = {
    "tasks": "pendulum-swingup,mw-reach",
    "model.latent_dim": 64,
    "model.mlp_hidden": (128, 128),
    "model.enc_hidden": (128,),
    "model.task_dim": 8,
    "world_model.batch_size": 16,
    "world_model.horizon": 3,
    "pretrain.steps": 3,
    "pretrain.log_every": 3,
    "pretrain.eval_every": 3,
    "pretrain.checkpoint_every": 3,
    "pretrain.heldout_fraction": 0.25,
    "pretrain.eval_windows": 8,
}
EXTRACT = {
    "policy.batch_size": 8,
    "policy.horizon": 2,
    "policy.actor_hidden": (16,),
    "policy.critic_hidden": (16,),
    "policy.critic_passes": 1,
    "policy.critic_minibatches": 2,
    "extract.seeds": (0, 1, 2, 3),
    "extract.steps": 2,
    "extract.log_every": 2,
    "extract.eval_every": 2,
    "extract.checkpoint_every": 2,
    "extract.eval_episodes": 1,
}
# Trains for three steps and saves; arguments: dataset, workdir, devices, whether parameters are shared out, bytes that fit on a device.
TRAIN = """
import sys
import jax
from configs import base
from experiments import launch, stages
from pwm_jax import checkpoint, pwm
from pwm_jax.data.store import Dataset
from pwm_jax.report.metrics import MetricsWriter
from pwm_jax.training import pretrain

def train(dataset, workdir, devices, shard, device_bytes):
    config = base.get_config("1M")
    config.update_from_flattened_dict(SETTINGS)
    config.pretrain.update(devices=devices, shard_parameters=shard, device_bytes=device_bytes)
    algorithm = stages.algorithm_of(config, stages.task_set_of(config))
    settings = launch.to_dataclass(pretrain.PretrainConfig, config.pretrain, where="config.pretrain")
    state = pwm.init_world_model(algorithm, jax.random.key(0))
    with MetricsWriter(workdir, "pretrain") as writer:
        log = lambda state, report: writer.write(3, report.scalars)
        state = pretrain.run(state, Dataset.open(dataset), algorithm, settings, 0, log)
    checkpoint.save(workdir + "/pretrain", 3, state)
    spread = {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(state)}
    shared = [leaf.shape for leaf in jax.tree.leaves(state.params) if not leaf.is_fully_replicated]
    print(spread, shared, flush=True)
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, rng = tmp_path_factory.mktemp("data") / "dataset", np.random.default_rng(0)
    task_set = TaskSet.from_names(["pendulum-swingup", "mw-reach"])
    with DatasetWriter(path, task_set, {}) as writer:
        for index in range(16):
            task, width, actions = index % 2, (3, 39)[index % 2], (1, 4)[index % 2]
            obs = rng.standard_normal((21, width), np.float32)
            action = rng.uniform(-1, 1, (20, actions)).astype(np.float32)
            writer.add_episode(Episode(task, obs, action, obs[1:, 0], np.zeros(20, bool), 0.0, "test", index))
    return path


@pytest.fixture(scope="module")
def runs(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints by name: of one device and of eight that share parameters, data on the device or read from disk; of two processes."""
    directory = tmp_path_factory.mktemp("runs")
    names = ("memory 1 0", "memory 8 1", "disk 1 0", "disk 8 0")
    calls = []
    for name in names:
        where, devices, shard = name.split()
        device_bytes = 1 << 30 if where == "memory" else 0
        calls.append(f"train({str(dataset)!r}, {str(directory / name)!r}, {devices}, {bool(int(shard))}, {device_bytes})")
    shown = _python(f"SETTINGS = {SETTINGS}\n{TRAIN}" + "\n".join(calls), 8).communicate(timeout=300)[0]
    assert "{8} []" in shown, shown
    assert "(128, 128)" in shown, shown  # parameters are shared out
    _both("pretrain", dataset, directory / "two processes")
    return {name: directory / name for name in (*names, "two processes")}


def _python(code: str, devices: int) -> subprocess.Popen[str]:
    return _start(["-c", code], devices)


def _launch(stage: str, dataset: Path, workdir: Path, processes: str) -> subprocess.Popen[str]:
    """One of the processes of a launcher, with the settings of `TRAIN`."""
    settings = dict(dataset=dataset, **{"pretrain.shard_parameters": True, "pretrain.device_bytes": 0}, **SETTINGS, **EXTRACT)
    changes = [f"--config.{name}={value}" for name, value in settings.items()]
    command = ["-m", f"experiments.{stage}", "--config=configs/base.py:1M", *changes]
    return _start([*command, f"--workdir={workdir}", f"--distributed={processes}"], 4)


def _both(stage: str, dataset: Path, workdir: Path) -> None:
    """A launcher as two processes of four devices."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    both = [_launch(stage, dataset, workdir, f"localhost:{port},2,{index}") for index in (0, 1)]
    ended = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended


def _start(arguments: list[str], devices: int) -> subprocess.Popen[str]:
    count = {"JAX_NUM_CPU_DEVICES": str(devices), "XLA_FLAGS": ""}
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **count}
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def results(workdir: Path, stage: str = "pretrain", step: int = 3) -> dict[str, np.ndarray]:
    """Every leaf of the checkpoint and the metrics of a stage, whoever wrote them."""
    path = workdir / stage / f"{step:010d}"
    arrays = checkpoint._read_arrays(path, checkpoint._read_manifest(path)["leaves"])
    (row,) = read_metrics(workdir / "metrics" / f"{stage}.jsonl")
    return arrays | {name: np.asarray(value) for name, value in row.items() if name != "time"}


@pytest.mark.parametrize(
    ("one", "many"), [("memory 1 0", "memory 8 1"), ("disk 1 0", "disk 8 0"), ("disk 1 0", "two processes")], ids=lambda name: name
)
def test_the_numbers_do_not_depend_on_the_devices(runs: dict[str, Path], one: str, many: str) -> None:
    expected, found = results(runs[one]), results(runs[many])
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=2e-6, err_msg=name)
    moved = results(runs["memory 1 0" if one.startswith("disk") else "disk 1 0"])
    assert abs(moved["loss/loss"] - expected["loss/loss"]) > 1e-4  # other batches give other numbers


def test_extraction_does_not_depend_on_the_processes(runs: dict[str, Path], dataset: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(runs["two processes"], alone)
    _both("extract", dataset, runs["two processes"])
    output, _ = (process := _launch("extract", dataset, alone, "")).communicate(timeout=300)
    assert process.returncode == 0, output
    expected, found = (results(workdir, "extract", 2) for workdir in (alone, runs["two processes"]))
    assert expected.keys() == found.keys()
    assert sum("eval/return" in name for name in found) == 8
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4 if "eval" in name else 2e-6, err_msg=name)
    assert read_json(runs["two processes"] / "provenance.json").keys() == {"pretrain", "extract"}


def test_devices_that_cannot_share_a_batch_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Sharing.of(0, False, 16) is None
    with pytest.raises(SharingError, match=r"pretrain\.devices is 1000, and JAX sees"):
        Sharing.of(1000, False, 16)
    monkeypatch.setattr(jax, "devices", lambda: [None] * 3)
    with pytest.raises(SharingError, match=r"world_model\.batch_size 16 is no multiple of the 3 devices"):
        Sharing.of(3, False, 16)
