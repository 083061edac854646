"""Landscapes of a saved policy's returns: rows, what they hold, figures, and runs that have no model to slice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict
from test_single_task_launcher import config_of, point_mass  # noqa: F401

from configs import landscape as presets
from experiments import landscape, launch, single_task
from pwm_jax.analysis.smoothness import roughness
from pwm_jax.report import landscape as report
from pwm_jax.report import measurements


def _config(run: Path, **changes: Any) -> ConfigDict:
    config = presets.get_config()
    config.run = str(run)
    config.sweep.seeds = (0, 2)
    config.landscape.update(points=3, horizon=2, samples=4, warm_up=3)
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return config.lock()


def test_model_and_simulator_are_measured_on_the_same_slice(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "run").mkdir()
    single_task.main(config_of("pwm"), tmp_path / "run")
    landscape.main(_config(tmp_path / "run"), tmp_path)
    rows = measurements.read_measurements(tmp_path / "landscape.jsonl")
    assert [(row.setting["seed"], row.setting["through"]) for row in rows] == [
        (seed, through) for seed in (0, 2) for through in ("model", "simulator")
    ]
    assert all(len(row.values["landscape"]) == 9 for row in rows)  # type: ignore[arg-type]
    assert rows[0].values["landscape"] != rows[1].values["landscape"] != rows[3].values["landscape"]
    assert rows[0].values["roughness"] == pytest.approx(roughness(report._values(rows[0])), rel=1e-2)
    assert "simulator" in capsys.readouterr().out
    assert (tmp_path / "figures" / "landscape.png").exists()


def test_a_run_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    single_task.main(config_of("shac"), tmp_path / "run")
    with pytest.raises(launch.ConfigError, match="holds policies of dynamics simulator: a slice needs those of a world model"):
        landscape.main(_config(tmp_path / "run"), tmp_path)
    with pytest.raises(launch.ConfigError, match="extent positive"):
        landscape.main(_config(tmp_path / "run", landscape__extent=0.0), tmp_path)


def test_roughness_is_of_bends_relative_to_the_spread() -> None:
    x, y = np.meshgrid(np.arange(5.0), np.arange(5.0))
    assert roughness(3 * x + y) == pytest.approx(0.0, abs=1e-9)
    jagged = (x + y) % 2
    assert roughness(jagged) == pytest.approx(2.0 / jagged.std())
