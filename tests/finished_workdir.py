"""A small finished run: episodes of three methods, metrics, a data description, provenance and videos, in the files that stages write."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from pwm_jax.report import workdir
from pwm_jax.report.episodes import Episode, write_episodes
from pwm_jax.report.metrics import MetricsWriter
from pwm_jax.report.records import write_json
from pwm_jax.report.video import save_gif, video_name

TASKS = {"walker-walk": (850.0, 400.0, 300.0), "reacher-easy": (900.0, 890.0, 500.0), "mw-reach": (1800.0, 1200.0, 900.0)}


def episodes(method: str, column: int, seeds: int, count: int = 8) -> Iterator[Episode]:
    """Episodes of a method on every task, whose returns lie about column `column` of TASKS."""
    rng = np.random.default_rng(column)
    for task, means in TASKS.items():
        for seed in range(seeds):
            for number in range(count):
                value = float(means[column] + rng.normal(0, 30))
                success = None if task != "mw-reach" else float(value > 1000)
                yield Episode(task, method, seed, number, value, success, value / 1000 if success is None else success, 100)


def write_workdir(root: Path) -> Path:
    """Write the run into `root`, an empty directory; returns it."""
    for column, (method, seeds) in enumerate({"extracted": 2, "bc": 2, "data": 1}.items()):
        write_episodes(root, method, episodes(method, column, seeds))
    with MetricsWriter(root, "pretrain", tensorboard=False) as writer:
        for step in range(0, 600, 100):
            writer.write(
                step, {"loss/total": 2.0 / (step + 1), "heldout/total": 3.0 / (step + 1), "open_loop/walker-walk": 1.0 / (step + 1)}
            )
    with MetricsWriter(root, "extract", tensorboard=False) as writer:
        for step in range(0, 300, 100):
            writer.write(step, {"loss/actor": -step / 100.0, **{f"eval/return/{task}/seed{k}": step + k for task in TASKS for k in (0, 1)}})
    write_json(root / "metrics" / "open_loop.json", {"walker-walk": [0.1, 0.2, 0.3]})
    specs = [SimpleNamespace(name=task, suite="metaworld" if task[:3] == "mw-" else "dm_control", max_return=1000.0) for task in TASKS]
    task_id = np.repeat([0, 1, 2], 4)
    workdir.write_data_description(
        root, specs, task_id=task_id, length=np.full(12, 100), episode_return=np.arange(12.0), success=np.ones(12),
        source=np.array(["replay"] * 12), recipe={"note": "<b>mixed</b>"},
    )  # fmt: skip
    for stage, seconds in (("collect", 30.0), ("pretrain", 90.0)):
        workdir.record_stage(root, stage, seconds=seconds, config={"note": "</script><script>alert(1)</script>"})
    frames = [np.full((64, 64, 3), 10 * i, np.uint8) for i in range(5)]
    for task in TASKS:
        save_gif(root / "videos" / video_name(task, "extracted", 0), frames)
    return root
