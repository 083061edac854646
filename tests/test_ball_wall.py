"""The ball and the wall: its closed form, what ascent finds through truth and fits, and the launcher's rows and figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import ball_wall as presets
from experiments import ball_wall as launcher
from experiments import launch
from pwm_jax.analysis import ball_wall
from pwm_jax.report import measurements


def _thrown(angle: float) -> float:
    """The ball followed in small steps of time."""
    dt, steps = 1e-4, 20_000
    time = np.arange(1, steps + 1) * dt
    x, y = 10 * np.cos(angle) * time + time**2 / 2, 10 * np.sin(angle) * time - 9.81 * time**2 / 2
    over = np.flatnonzero(x >= 5.0)
    return 5.0 if len(over) and y[over[0]] < 0 else float(x[-1])


@pytest.mark.parametrize("angle", [-3.0, -1.0, 0.1, 0.2, 0.3, 1.0, 1.5, 2.0, 3.0])
def test_the_ball_flies_as_it_does_step_by_step(angle: float) -> None:
    assert float(ball_wall.distance(jnp.array(angle))) == pytest.approx(_thrown(angle), abs=5e-3)


def test_the_true_gradient_is_zero_on_the_plateau_and_the_best_throw_is_at_its_edge() -> None:
    slope = jax.vmap(jax.grad(ball_wall.distance))
    assert not slope(jnp.linspace(-1.0, 0.2, 20)).any()
    angles = ball_wall.grid(100_001)
    best = angles[ball_wall.distance(angles).argmax()]
    assert float(best) == pytest.approx(0.2493, abs=1e-3)
    assert float(ball_wall.distance(best - 1e-3)) == 5.0


def test_the_policy_s_noise_is_averaged_exactly() -> None:
    draws = ball_wall.distance(0.4 + 0.1 * jax.random.normal(jax.random.key(0), (1_000_000,)))
    assert float(ball_wall.noisy(jnp.array([0.4]), 0.1)[0]) == pytest.approx(float(draws.mean()), abs=0.03)


def test_fits_get_over_the_cliff_that_the_truth_does_not_see() -> None:
    ascent = ball_wall.AscentConfig(starts=16, steps=400, lr=0.02, noises=16)
    fit = ball_wall.FitConfig(updates=1_000)
    truth, relu = (ball_wall.measure(name, jnp.arange(2), fit, ascent) for name in (None, "relu"))
    assert truth.found.shape == (2, 16)
    assert float(truth.noisy_objective.max()) < 6.0
    assert float(relu.noisy_objective.max(1).min()) > 15.0
    np.testing.assert_allclose(truth.fitted[0], ball_wall.distance(ball_wall.grid(1_000)), rtol=1e-5)


@pytest.mark.parametrize("regulariser", ["none", "spectral", "simnorm"])
def test_every_regulariser_is_fitted(regulariser: Any) -> None:
    fit = ball_wall.FitConfig(updates=500)
    params = ball_wall.fit(regulariser, jax.random.key(0), fit)
    angles = ball_wall.grid(200)
    error = jnp.square(ball_wall.Fit(regulariser, fit).apply(params, angles) - ball_wall.distance(angles)).mean()
    assert float(error) < 0.5 * float(ball_wall.distance(angles).var())


def _config(**changes: Any) -> ConfigDict:
    config = presets.get_config()
    config.update(through=("truth", "simnorm"), updates=(20, 30))
    config.sweep.seeds = (0, 1)
    config.fit.update(samples=40, batch_size=8)
    config.ascent.update(starts=4, steps=5, noises=2)
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return config.lock()


def test_the_launcher_measures_each_point_and_seed_once_and_draws(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher.main(_config(), tmp_path)
    rows = measurements.read_measurements(tmp_path / "ball_wall.jsonl")
    assert sorted((row.setting["through"], row.setting["updates"], row.setting["seed"]) for row in rows) == [
        *((through, updates, seed) for through, updates in (("simnorm", 20), ("simnorm", 30), ("truth", 0)) for seed in (0, 1))
    ]
    assert (tmp_path / "figures" / "ball_wall.svg").exists()
    assert "Mean of 2 seeds" in capsys.readouterr().out
    monkeypatch.setattr(launcher, "measure", None)  # would fail if anything were measured again
    launcher.main(_config(), tmp_path)
    assert measurements.read_measurements(tmp_path / "ball_wall.jsonl") == rows


def test_an_unknown_regulariser_is_refused(tmp_path: Path) -> None:
    with pytest.raises(launch.ConfigError, match=r"config\.through must be some of truth, relu, none, spectral, simnorm"):
        launcher.main(_config(through=("truth", "simnrm")), tmp_path)
    assert not list(tmp_path.iterdir())
