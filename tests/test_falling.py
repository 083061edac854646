"""A policy learnt in the model is punished for falling: the termination head is what keeps it upright."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from point_mass import PointMass
from tiny_models import make_config

from pwm_jax.training import single_task
from pwm_jax.training.single_task import SingleTaskConfig
from pwm_jax.types import SimState, Transition


class Ledge(PointMass):
    """A point that is rewarded for going right, until it falls off beyond 1."""

    def step(self, state: SimState, action: jax.Array, key: jax.Array) -> tuple[SimState, Transition]:
        after, transition = super().step(state, action, key)
        return after, transition.replace(reward=1.0 + transition.action[:, 0])


def learnt_lengths(termination_head: bool) -> np.ndarray:
    sizes = dict(
        obs_dim=2, action_dim=1, action_dims=(1,), task_dim=0, latent_dim=16, enc_hidden=(32,), mlp_hidden=(32,), reward_space="raw"
    )
    model = sizes | dict(termination_head=termination_head, residual_dynamics=True)
    world_model = dict(horizon=3, batch_size=64, consistency_coef=20.0, reward_coef=1.0, lr=3e-3, encoder_lr_scale=1.0)
    policy = dict(horizon=5, batch_size=64, actor_lr=3e-3, critic_lr=3e-3, critic_hidden=(32,), actor_hidden=(32,), gamma=0.95)
    config = make_config(model, world_model, critic_minibatches=2, critic_passes=2, adam_b2=0.99, **policy)
    loop = SingleTaskConfig(
        env_steps=6_000, num_envs=8, steps_per_epoch=10, wm_updates=20, policy_updates=20, seed_steps=1_000, eval_every=5_000, eval_envs=16
    )
    simulator = Ledge(episode_length=30)
    config = single_task.scheduled(config, loop)
    states = single_task.init(config, loop, simulator, jnp.zeros(1, jnp.uint32))
    chunks, epochs = single_task.chunks(config, loop)
    for _ in range(chunks):
        states, _ = single_task.run_epochs(states, epochs, config, loop, simulator)
    _, lengths = single_task.evaluate(states.policy.actor_params, states.world_model.params, jax.random.key(1), config, loop, simulator)
    return np.asarray(lengths[0])


def test_a_policy_stops_before_the_ledge_only_where_the_model_knows_of_falling() -> None:
    assert learnt_lengths(termination_head=False).mean() < 6  # it goes right, and falls within a few steps
    assert learnt_lengths(termination_head=True).mean() > 25
