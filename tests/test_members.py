"""Members of a sweep in one program learn what single runs learn: other seeds, and other values of every vectorisable field."""

from __future__ import annotations

import dataclasses
import operator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_data import make_config, write_dataset

from experiments import members as stages_of_members
from pwm_jax import pwm
from pwm_jax.config import VECTORISABLE, Config, with_values
from pwm_jax.data.sample import DeviceDataset
from pwm_jax.data.store import Dataset
from pwm_jax.training import extract, members, pretrain
from pwm_jax.training.extract import ExtractConfig, StartSampler
from pwm_jax.training.members import Members
from pwm_jax.training.pretrain import PretrainConfig
from pwm_jax.types import Batch, Starts

PRETRAIN = PretrainConfig(steps=20, log_every=10, eval_every=20, checkpoint_every=20, heldout_fraction=0.0, balance="tasks")
EXTRACT = ExtractConfig(steps=6, log_every=3, eval_every=6, checkpoint_every=6, policies_per_batch=1)
CONFIG = extract.scheduled(make_config(), EXTRACT)
# Scales that change what is learnt whatever the field is.
OTHER = {name: 0.6 * operator.attrgetter(name)(CONFIG) + (0.05 if name.endswith(("scale", "lr")) else 0.0) for name in VECTORISABLE}
OTHER |= {
    "policy.log_std_floor": -0.8,
    "policy.min_return_scale": 50.0,
    "world_model.clip_norm": 0.01,
    "policy.actor_clip_norm": 0.01,
    "policy.critic_clip_norm": 0.01,
}


def changed(config: Config, values: dict[str, float]) -> Config:
    parts: dict[str, Any] = {}
    for name, value in values.items():
        section, field = name.split(".")
        parts[section] = dataclasses.replace(parts.get(section, getattr(config, section)), **{field: value})
    return dataclasses.replace(config, **parts)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("data") / "dataset")


def close(many: Any, single: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), many, single)


def test_seeds_and_values_in_one_program_learn_what_single_runs_learn(data: Dataset) -> None:
    per_batch = 0
    names = ("model.simnorm_temperature", "world_model.lr", "policy.actor_lr", "policy.gamma")
    values = [{name: operator.attrgetter(name)(CONFIG) for name in names}, {name: OTHER[name] for name in names}]
    rows = [(0, values[0]), (5, values[1])]
    group = Members(
        np.array([seed for seed, _ in rows], np.uint32), {name: np.array([row[name] for _, row in rows], np.float32) for name in names}
    )
    seen: list[int] = []
    states = members.pretrain(
        members.init_world_models(CONFIG, group), group, DeviceDataset.from_dataset(data), CONFIG, PRETRAIN, per_batch,
        lambda _, step, metrics: seen.append(step) if metrics["loss"].shape == (2,) else None,
    )  # fmt: skip
    assert seen == [10, 20]
    policies = jax.tree.map(lambda *x: jnp.stack(x), *[extract.init(CONFIG, [0, 1], [seed]) for seed, _ in rows])
    starts = StartSampler.of(data, [0, 1], CONFIG, 100, seed=0)
    learnt = members.extract(policies, group, states.params, starts, CONFIG, EXTRACT, per_batch, lambda *_: None)
    for row, (seed, value) in list(enumerate(rows))[1:]:
        config = changed(CONFIG, value)
        state = pwm.init_world_model(config, jax.random.key(seed))
        state = pretrain.run(state, data, config, PRETRAIN, seed, lambda *_: None)
        close(jax.tree.map(lambda leaf, row=row: leaf[row], states.params), state.params)
        own = extract.run(extract.init(config, [0, 1], [seed]), state.params, starts, config, EXTRACT, lambda *_: None)
        close(jax.tree.map(lambda leaf, row=row: leaf[row], learnt.state.actor_params), own.state.actor_params)
    actors = [jax.tree.map(lambda leaf, row=row: leaf[row], learnt.state.actor_params) for row in (0, 1)]
    with pytest.raises(AssertionError):
        close(*actors)  # the values matter


def test_every_vectorisable_field_can_be_traced_and_changes_what_is_learnt() -> None:
    base = changed(CONFIG, {"world_model.decay_steps": 10, "model.termination_head": True})
    state, policy = pwm.init_world_model(base, jax.random.key(0)), pwm.init_policy(base, jax.random.key(1))
    rng, horizon, size = np.random.default_rng(0), base.world_model.horizon, base.policy.batch_size
    normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)  # noqa: E731
    obs, action = normal(horizon + 1, size, base.model.obs_dim), jnp.tanh(normal(horizon, size, base.model.action_dim))
    batch = Batch(obs, action, normal(horizon, size), jnp.zeros((horizon, size)).at[1, 0].set(1.0), jnp.zeros(size, jnp.int32))
    starts = Starts(obs[0], action[0], batch.task_id)

    def learn(config: Config) -> Any:
        fitted, learnt = state, policy
        for _ in range(2):
            fitted, _ = pwm.update_world_model(fitted, batch, jax.random.key(2), config)
            learnt, _ = pwm.update_policy(learnt, fitted.params, starts, jax.random.key(3), config)
        return fitted.params, learnt.actor_params, learnt.target_critic_params

    values = {name: jnp.float32(OTHER[name]) for name in VECTORISABLE}
    close(jax.jit(lambda values: learn(with_values(base, values)))(values), jax.jit(lambda: learn(changed(base, OTHER)))())
    # One row for each field, in which it alone has its other value; the last row is as it was.
    own = np.array([operator.attrgetter(name)(base) for name in VECTORISABLE], np.float32)
    table = np.where(np.eye(len(own) + 1, len(own), dtype=bool), np.array([OTHER[name] for name in VECTORISABLE], np.float32), own)
    rows = {name: table[:, column] for column, name in enumerate(VECTORISABLE)}
    learnt = jax.jit(jax.vmap(lambda values: learn(with_values(base, values))))(rows)
    for row, name in enumerate(VECTORISABLE):
        change = max(float(jnp.abs(leaf[row] - leaf[-1]).max()) for leaf in jax.tree.leaves(learnt))
        assert change > 0, name


def test_what_decides_the_program_is_refused() -> None:
    with pytest.raises(ValueError, match=r"policy\.horizon cannot differ within one program; model\.simnorm_temperature"):
        with_values(CONFIG, {"policy.horizon": 3})


def test_a_stage_goes_on_with_the_members_that_are_left(tmp_path: Path) -> None:
    def resumed(states, names, step):
        return stages_of_members._resumed(tmp_path, states, names, lambda _: step, EXTRACT, "test", "invented data")

    with resumed({"x": jnp.zeros((3, 2))}, ["a", "b", "c"], 0) as (_, log):
        log({"x": jnp.arange(6.0).reshape(3, 2)}, EXTRACT.checkpoint_every, {"loss": np.zeros(3)})
    some = {"x": jnp.zeros((2, 2))}
    with resumed(some, ["c", "a"], 6) as (left, _):
        np.testing.assert_array_equal(left["x"], [[4, 5], [0, 1]])
    with resumed(some, ["a", "d"], 0) as (others, _):
        assert others is some
