"""The option `residual_dynamics`: the dynamics predict the change of the latent's logits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import make_config

from pwm_jax import pwm
from pwm_jax.networks import WorldModel


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_an_untrained_model_predicts_no_change(temperature: float) -> None:
    config = make_config(dict(residual_dynamics=True, simnorm_temperature=temperature))
    params = pwm.init_world_model(config, jax.random.key(0)).params
    model, rng = WorldModel(config.model), np.random.default_rng(0)
    obs = jnp.asarray(rng.normal(size=(6, config.model.obs_dim)), jnp.float32)
    action = jnp.asarray(rng.uniform(-1, 1, (6, config.model.action_dim)), jnp.float32)
    z = model.apply({"params": params}, obs, jnp.zeros(6, jnp.int32), method="encode")
    next_z = model.apply({"params": params}, z, action, jnp.zeros(6, jnp.int32), method="next")[0]
    np.testing.assert_allclose(next_z, z, atol=1e-5)


def test_the_step_is_multiplicative_on_each_simplex() -> None:
    config = make_config(dict(residual_dynamics=True))
    params = pwm.init_world_model(config, jax.random.key(0)).params
    size, group = config.model.latent_dim, config.model.simnorm_dim
    delta = np.random.default_rng(1).normal(size=size).astype(np.float32)
    last = f"linear_{len(config.model.mlp_hidden)}"
    params["dynamics_0"][last]["bias"] = jnp.asarray(delta)  # the last kernel is zero, so this is the whole change
    z = np.random.default_rng(2).dirichlet(np.ones(group), (3, size // group)).reshape(3, size).astype(np.float32)
    action = jnp.zeros((3, config.model.action_dim))
    next_z = WorldModel(config.model).apply({"params": params}, z, action, jnp.zeros(3, jnp.int32), method="next")[0]
    weight = ((z + 1e-6) * np.exp(delta)).reshape(3, -1, group)
    np.testing.assert_allclose(next_z, (weight / weight.sum(-1, keepdims=True)).reshape(3, size), rtol=1e-4)


def test_only_simplices_have_it() -> None:
    with pytest.raises(ValueError, match="residual_dynamics needs"):
        make_config(dict(residual_dynamics=True, regulariser="none"))
