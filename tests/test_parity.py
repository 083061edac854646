"""Numbers recorded from the published PyTorch code: 1e-5 absolute on outputs, 1e-4 relative on gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_parameters import actor, critics, load, world_model

from pwm_jax import ops, pwm
from pwm_jax.config import Config, ModelConfig, PolicyConfig, WorldModelConfig
from pwm_jax.networks import WorldModel, actor_of, critics_of
from pwm_jax.types import Batch

NETWORKS = dict(enc_hidden=(80, 48), mlp_hidden=(96, 96), latent_dim=64)
MULTITASK = ModelConfig(obs_dim=24, action_dim=6, action_dims=(6, 6, 6), task_dim=8, mask_actions=False, **NETWORKS)
SINGLE = ModelConfig(obs_dim=24, action_dim=6, action_dims=(6,), task_dim=0, reward_head="scalar", **NETWORKS)
POLICY = PolicyConfig(
    horizon=6, batch_size=7, actor_hidden=(40, 32, 24), critic_hidden=(40, 32), critic_minibatches=1, normalise_returns=False
)


def assert_outputs(actual: jax.Array, expected: np.ndarray) -> None:
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=1e-5)


def assert_gradients(actual: dict, expected: dict) -> None:
    """Every leaf agrees to 1e-4 of that leaf's largest entry (a relative bound entry by entry has no meaning at a zero crossing)."""
    actual = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(actual)}
    expected = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(expected)}
    assert actual.keys() == expected.keys()
    for name, leaf in expected.items():
        np.testing.assert_allclose(np.asarray(actual[name]), leaf, rtol=0, atol=1e-4 * np.abs(leaf).max(), err_msg=name)


def test_world_model_multitask() -> None:
    data = load("world_model_multitask")
    model, variables, task = WorldModel(MULTITASK), {"params": world_model(data)}, jnp.asarray(data["task"])
    z = model.apply(variables, data["obs"], task, method="encode")
    assert_outputs(z, data["z"][0])
    for t, action in enumerate(data["action"]):
        logits = model.apply(variables, z, action, task, method="reward_output")
        assert_outputs(logits, data["reward_logits"][t])
        assert_outputs(model.apply(variables, z, action, task, method="reward"), data["reward_symlog"][t, :, 0])
        assert_outputs(ops.symexp(ops.two_hot_expectation(logits, -10.0, 10.0)), data["reward"][t, :, 0])
        z = model.apply(variables, z, action, task, method="next")[0]
        assert_outputs(z, data["z"][t + 1])


def test_world_model_loss_single() -> None:
    data = load("world_model_single")
    horizon = 6
    training = WorldModelConfig(horizon=horizon, rho=float(data["gamma"]), consistency_coef=1.0, reward_coef=1 / horizon)
    config = Config(SINGLE, training, POLICY)
    reward = jnp.asarray(data["reward"][..., 0])
    task_id = jnp.zeros(reward.shape[1], jnp.int32)
    batch = Batch(obs=data["obs"], action=data["action"], reward=reward, terminated=jnp.zeros_like(reward), task_id=task_id)
    grads, metrics = jax.grad(pwm.world_model_loss, has_aux=True)(world_model(data), batch, reward, config)
    assert_outputs(metrics["consistency_per_step"], data["consistency_per_step"])
    assert_outputs(metrics["reward_per_step"], data["reward_per_step"])
    assert_outputs(metrics["loss"], data["total_loss"])
    assert_gradients(grads, world_model(data, prefix="grad_total/"))


def test_actor_and_critics() -> None:
    data = load("actor_critic")
    config = Config(MULTITASK, policy=POLICY)
    mean, std = actor_of(config).apply({"params": actor(data)}, data["z"])
    assert_outputs(mean, data["mean"])
    assert_outputs(jnp.tanh(mean), data["action"])
    assert_outputs(std, data["std"])
    assert_outputs(critics_of(config).apply({"params": critics(data)}, data["z"]), data["value"])


@pytest.mark.parametrize("detached", [True, False])
def test_actor_gradient(detached: bool) -> None:
    data, networks = load("actor_gradient_detached" if detached else "actor_gradient_full"), load("actor_critic")
    policy = PolicyConfig(**{**vars(POLICY), "detach_actor_input": detached, "gamma": float(data["gamma"])})
    config = Config(MULTITASK, policy=policy)
    state = pwm.init_policy(config, jax.random.key(0)).replace(critic_params=critics(networks))
    task = jnp.asarray(data["task"])
    starts = pwm.Starts(obs=data["obs"], action=jnp.zeros((7, 6)), task_id=task)
    grads, (_, returns, _, metrics) = jax.jit(jax.grad(pwm.actor_loss, has_aux=True), static_argnums=6)(
        actor(networks), state, world_model(load("world_model_multitask")), starts, data["eps"], jnp.zeros(7, jnp.int32), config
    )
    assert_outputs(returns, data["returns"])
    assert_outputs(metrics["actor_loss"], data["loss"])
    assert_gradients(grads, actor(data, prefix="grad/"))


@pytest.mark.parametrize("name", ["td_lambda", "td_lambda_no_end"])
def test_lambda_returns(name: str) -> None:
    data = load(name)
    discount = jnp.full_like(data["reward"], data["gamma"])
    cut = None if name == "td_lambda_no_end" else jnp.asarray(data["episode_end"])
    assert_outputs(ops.lambda_returns(data["reward"], discount, data["next_value"], float(data["lam"]), cut), data["target"])


def test_running_moments() -> None:
    data = load("running_moments")
    moments = ops.init_moments()
    for i in range(3):
        moments = ops.update_moments(moments, jnp.asarray(data[f"batch{i}"]))
        np.testing.assert_allclose([moments.mean, moments.var, moments.count], data["mean_var_count"][i], rtol=1e-5)
    assert_outputs(ops.normalise(jnp.asarray(data["batch2"]), moments, clip=5.0), data["normalized"])
