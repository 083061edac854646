"""Policies as files to act with elsewhere: <workdir>/<export.source> -> <workdir>/export/<task>-seed<k>.npz, .stablehlo and .onnx.

python -m experiments.export --config=configs/quickstart.py --workdir=runs/quickstart

docs/use_elsewhere.md says how each is loaded. ONNX files need the package onnx: pip install 'pwm_jax[onnx]'.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ml_collections import ConfigDict

from experiments import launch
from pwm_jax.config import check_fields

if TYPE_CHECKING:
    from pwm_jax.portable import PortablePolicy


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """Policies of which stage, and the kinds of files: of each policy, or for a generalist of each of its tasks."""

    source: Literal["extract", "generalist", "online", "single_task"] = "extract"
    formats: tuple[Literal["npz", "stablehlo", "onnx"], ...] = ("npz", "stablehlo")

    def __post_init__(self) -> None:
        check_fields(self, "export")


def main(config: ConfigDict, workdir: Path) -> None:
    """Write the files of every policy."""
    settings = launch.to_dataclass(ExportConfig, config.export, where="config.export")
    from pwm_jax import export
    from pwm_jax.portable import encoded
    from pwm_jax.report.records import write_bytes

    if "onnx" in settings.formats and importlib.util.find_spec("onnx") is None:
        raise launch.ConfigError("config.export.formats: onnx needs the package onnx: pip install 'pwm_jax[onnx]'")
    encoders = {"npz": encoded, "stablehlo": export.stablehlo, "onnx": export.onnx}
    for policy in _policies(config, settings.source, workdir):
        path = workdir / "export" / f"{policy.task}-seed{policy.seed}"
        for kind in settings.formats:
            write_bytes(f"{path}.{kind}", encoders[kind](policy))
        print(f"{path}: {policy.obs_dim} observations, {policy.action_dim} actions; {', '.join(settings.formats)}")


def _policies(config: ConfigDict, source: str, workdir: Path) -> Iterator[PortablePolicy]:
    """The source's policies, one after the other. Raises CheckpointError where there are none."""
    import jax
    import numpy as np

    from experiments import stages
    from pwm_jax.checkpoint import CheckpointError
    from pwm_jax.envs.tasks import control_steps
    from pwm_jax.export import portable

    directories = sorted((workdir / source).glob("seed_*")) if source == "single_task" else [workdir / source]
    if not directories:
        raise CheckpointError(f"{workdir} holds no policies of a single-task run: make them with experiments.single_task")
    for directory in directories:
        policies, wm_params, algorithm, task_set = stages.load_policies(directory)
        for row in range(len(policies.seed)):
            actor_params = jax.tree.map(lambda leaf, row=row: np.asarray(leaf[row]), policies.state.actor_params)
            own = [int(policies.task_id[row])]
            for task in stages.chosen_tasks(config.generalist.tasks, task_set) if source == "generalist" else own:
                spec = task_set.specs[task]
                yield portable(actor_params, wm_params, algorithm, spec, int(policies.seed[row]), control_steps(spec))


if __name__ == "__main__":
    launch.run(main, stage=None, config="configs/quickstart.py")
