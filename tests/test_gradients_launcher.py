"""The launcher of gradient measurements: its rows, what a second start measures again, its figures and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict
from point_mass import WidePointMass

from configs import gradients as presets
from experiments import gradients, launch
from pwm_jax.envs.catalog import UnknownTaskError
from pwm_jax.envs.simulators import make
from pwm_jax.report import measurements

HOPPER, ANT = "brax-hopper-spring", "brax-ant-spring"


def config_of(names: str = f"{HOPPER},[{ANT}]", **changes: Any) -> ConfigDict:
    config = presets.get_config(names)
    config.model.update(enc_hidden=(), mlp_hidden=(), latent_dim=8, simnorm_dim=4, num_bins=11)
    config.world_model.update(horizon=2, batch_size=4)
    config.policy.update(actor_hidden=(), critic_hidden=())
    config.single_task.update(num_envs=4, seed_steps=16, env_steps=16, replay_capacity=16)
    config.sweep.seeds = (0, 2)
    config.gradients.update(horizons=(1, 3), samples=4, chunk=2, updates=2)
    config.models = ConfigDict(
        dict(simnorm=dict(model=dict(regulariser="simnorm")), relu=dict(model=dict(regulariser="relu", residual_dynamics=False)))
    )
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return config.lock()


@pytest.fixture(autouse=True)
def _quick_simulators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "make_simulator", lambda name: WidePointMass(obs_dim={HOPPER: 11, ANT: 27}[name]))


def test_every_task_seed_and_model_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    gradients.main(config_of(sweep__publish=str(tmp_path / "published")), tmp_path)
    rows = measurements.read_measurements(tmp_path / "gradient_ladder.jsonl")
    through = {task: {row.setting["through"] for row in group} for (task,), group in measurements.by_setting(rows, "task").items()}
    assert through == {HOPPER: {"simnorm", "relu", "simulator"}, ANT: {"simnorm", "relu"}}
    assert len(rows) == (3 + 2) * 2 * 2  # kinds of both tasks, seeds, horizons
    assert {row.setting["action_dim"] for row in rows} == {3, 8}
    assert all(value is not None and value >= 0 for row in rows for name, value in row.values.items() if name != "return")
    assert measurements.read_measurements(tmp_path / "published" / "gradient_ladder.jsonl") == rows
    shown = capsys.readouterr().out
    assert f"{HOPPER}        3    simnorm        3" in shown
    assert "medians over 2 seeds" in shown
    names = {file.name for file in (tmp_path / "figures").iterdir()}
    assert names >= {"variance_over_horizons.svg", "esnr_over_actions.png"}

    monkeypatch.setattr(gradients, "measure", None)  # would fail if anything were measured again
    gradients.main(config_of(), tmp_path)
    assert measurements.read_measurements(tmp_path / "gradient_ladder.jsonl") == rows


def test_seeds_in_one_program_are_measured_as_each_alone(tmp_path: Path) -> None:
    both = config_of(HOPPER, sweep__per_batch=0)
    alone = config_of(HOPPER, sweep__seeds=(2,))
    gradients.main(both, tmp_path / "both")
    gradients.main(alone, tmp_path / "alone")
    values = {row.key: row.values for row in measurements.read_measurements(tmp_path / "both" / "gradient_ladder.jsonl")}
    mine = measurements.read_measurements(tmp_path / "alone" / "gradient_ladder.jsonl")
    assert len(mine) == len(values) / 2 == 6
    for row in mine:
        assert values[row.key] == pytest.approx(row.values, rel=1e-3, abs=1e-5)


def test_mistakes_are_named_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(launch.ConfigError, match=r"unknown field config\.models\.relu\.model\.regulariserr"):
        gradients.main(config_of(models=ConfigDict(dict(relu=dict(model=dict(regulariserr="relu"))))), tmp_path)
    with pytest.raises(launch.ConfigError, match=r"num_envs must be the 4 of config\.gradients\.samples"):
        gradients.main(config_of(single_task__num_envs=8), tmp_path)
    with pytest.raises(launch.ConfigError, match="chunk divide samples"):
        gradients.main(config_of(gradients__chunk=3), tmp_path)
    with pytest.raises(UnknownTaskError, match="brax-hopper-spring"):
        gradients.main(config_of("brax-hoper-spring"), tmp_path)
    assert not list(tmp_path.iterdir())
