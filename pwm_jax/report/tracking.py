"""The same metrics at Weights & Biases, where a launcher was given --wandb=PROJECT.

Every stage of a working directory is a run of its own, since stages count different steps; the runs of a directory are a group. The ids in
<workdir>/wandb.json let a resumed stage go on in its run.
"""

from __future__ import annotations

import importlib.util
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pwm_jax.report.records import read_json, write_json
from pwm_jax.report.results import portable

_PROJECT = "PWM_JAX_WANDB"  # in the environment, so that a sweep's processes have it
_LONGEST_NAME = 100  # 128 are allowed, of which the stage takes some


class TrackingError(RuntimeError):
    """Metrics cannot be logged at Weights & Biases; the message says what to do."""


def enable(project: str) -> None:
    """Log metrics to a project of Weights & Biases from here on, in this process and those that it starts.

    Raises TrackingError where the package wandb is missing.
    """
    spec = importlib.util.find_spec("wandb")
    if spec is None or spec.origin is None:  # a folder of that name, as wandb itself leaves behind, is no package
        raise TrackingError("--wandb needs the package wandb: pip install 'pwm_jax[wandb]'")
    os.environ[_PROJECT] = project


class TrackedRun:
    """One stage's run at Weights & Biases."""

    def __init__(self, workdir: Path, stage: str, project: str):
        """Begin the run, or go on with that of this stage. Raises TrackingError where wandb refuses, as without a login."""
        import wandb

        ids = read_json(workdir / "wandb.json") if (workdir / "wandb.json").exists() else {}
        if stage not in ids:
            ids[stage] = uuid.uuid4().hex[:8]
            write_json(workdir / "wandb.json", ids)
        config = read_json(workdir / "config.json").get(stage, {}) if (workdir / "config.json").exists() else {}
        name = portable(str(workdir.resolve()))[-_LONGEST_NAME:]
        try:
            # Its capture of what is printed would break progress bars.
            settings = wandb.Settings(console="off", silent=True)
            self._run = wandb.init(
                project=project, group=name, job_type=stage, name=f"{name} {stage}", id=ids[stage], resume="allow",
                config=config, dir=str(workdir), settings=settings,
            )  # fmt: skip
        except wandb.errors.Error as error:
            raise TrackingError(
                f"Weights & Biases: {error}. Log in with `wandb login`, or set WANDB_MODE=offline to keep the run on this machine"
            ) from error
        where = f"kept in {self._run.settings.sync_dir}, `wandb sync` uploads it" if self._run.offline else self._run.url
        print(f"{stage} at Weights & Biases: {where}")

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Log a row. Rows up to a step that the run has already, written again after a resume, are passed over by wandb."""
        self._run.log(dict(values), step=step)

    def close(self, failed: bool) -> None:
        """End the run; `failed` marks it so, until it is resumed."""
        self._run.finish(exit_code=int(failed))


def tracked_run(workdir: str | os.PathLike[str], stage: str) -> TrackedRun | None:
    """The stage's run where `enable` was called, else None."""
    project = os.environ.get(_PROJECT)
    return TrackedRun(Path(workdir), stage, project) if project else None
