"""Sizes, initialisation, input order, masks and regularisers of the networks; their arithmetic is in test_parity.py."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import make_batch, make_config, network, world_model_params

from pwm_jax import ops, pwm
from pwm_jax.config import Config, ModelConfig
from pwm_jax.layers import MLP, SpectralLinear
from pwm_jax.networks import Actor, Critic, CriticEnsemble
from pwm_jax.types import Params

SIZES = {  # encoder width and hidden layers, width of the other networks, latent size
    "1M": (256, 1, 384, 128),
    "5M": (256, 1, 512, 512),
    "19M": (1024, 2, 1024, 768),
    "48M": (1792, 3, 1792, 768),
    "317M": (4096, 4, 4096, 1376),
}
PUBLISHED_PARAMETERS = [
    ("1M", "mt30", 96, 632_101),
    ("5M", "mt30", 64, 1_599_717),
    ("19M", "mt30", 64, 5_603_301),
    ("48M", "mt30", 64, 18_983_909),
    ("317M", "mt30", 96, 108_280_805),
    ("1M", "mt80", 96, 640_741),
    ("5M", "mt80", 96, 1_650_277),
    ("19M", "mt80", 96, 6_772_837),
    ("48M", "mt80", 96, 19_188_581),
    ("317M", "mt80", 96, 108_347_045),
]


@pytest.mark.parametrize(("size", "tasks", "task_dim", "published"), PUBLISHED_PARAMETERS)
def test_parameter_counts_are_the_published_ones(size: str, tasks: str, task_dim: int, published: int) -> None:
    enc_dim, enc_layers, mlp_dim, latent = SIZES[size]
    num_tasks, obs_dim = (30, 24) if tasks == "mt30" else (80, 39)
    config = ModelConfig(
        obs_dim=obs_dim,
        action_dim=6,
        action_dims=(6,) * num_tasks,
        task_dim=task_dim,
        enc_hidden=(enc_dim,) * enc_layers,
        mlp_hidden=(mlp_dim, mlp_dim),
        latent_dim=512 if (size, tasks) == ("19M", "mt30") else latent,
    )
    shapes = jax.eval_shape(lambda key: pwm.init_world_model(Config(config), key).params, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == published


@pytest.fixture(scope="module")
def fresh() -> Params:
    """Fresh parameters of a model wide enough for statistics."""
    config = make_config(dict(action_dims=(3,) * 100, task_dim=32, enc_hidden=(128,), mlp_hidden=(128, 128), latent_dim=64, simnorm_dim=8))
    return jax.jit(lambda key: pwm.init_world_model(config, key).params)(jax.random.key(0))


def test_world_model_initialisation(fresh: Params) -> None:
    for name in ("encoder", "dynamics_0", "reward_head"):
        for layer, leaves in fresh[name].items():
            if layer.startswith("norm"):
                assert (leaves["scale"] == 1).all()
                assert (leaves["bias"] == 0).all()
                continue
            assert (leaves["bias"] == 0).all()
            if (name, layer) == ("reward_head", "linear_2"):
                assert (leaves["kernel"] == 0).all()
            else:
                standard = np.asarray(leaves["kernel"]) / 0.02
                assert abs(standard.std() - 1.0) < 5 / np.sqrt(2 * standard.size)
                assert np.abs(standard).max() > 2.5  # not cut at two standard deviations


def test_task_embedding_initialisation(fresh: Params) -> None:
    embedding = np.asarray(fresh["task_embedding"])
    assert embedding.shape == (100, 32)
    assert 0.0199 < np.abs(embedding).max() <= 0.02
    assert abs(embedding.std() / 0.02 - 3**-0.5) < 0.02


@pytest.mark.parametrize("head", ["two_hot", "scalar"])
def test_a_fresh_model_predicts_no_reward(head: str) -> None:
    config = make_config(dict(reward_head=head, num_bins=101, bin_low=-10.0, bin_high=10.0, reward_space="raw"))
    params = jax.jit(lambda key: pwm.init_world_model(config, key).params)(jax.random.key(0))
    batch = make_batch(config)
    z = network(config, "encode")(params, batch.obs, batch.task_id)[:-1]
    assert (network(config, "reward_output")(params, z, batch.action, batch.task_id) == 0).all()
    np.testing.assert_allclose(network(config, "reward")(params, z, batch.action, batch.task_id), 0.0, atol=1e-6)


def test_actor_initialisation() -> None:
    params = Actor((200, 100), 6).init(jax.random.key(0), jnp.zeros((1, 50)))["params"]
    for layer, fan_in in (("linear_0", 50), ("linear_1", 200), ("linear_2", 100)):
        weights = np.concatenate([np.ravel(params[layer]["kernel"]), params[layer]["bias"]]) * np.sqrt(fan_in)
        assert np.abs(weights).max() <= 1.0 + 1e-6
        assert np.abs(weights).max() > 0.98
        assert abs(weights.std() - 3**-0.5) < 3 / np.sqrt(weights.size)
        assert np.abs(params[layer]["bias"]).max() > 0
    assert (params["log_std"] == -1).all()


def test_the_standard_deviation_has_a_floor() -> None:
    actor, z = Actor((4,), 3), jnp.ones((2, 5))
    params = actor.init(jax.random.key(0), z)["params"]
    _, std = actor.apply({"params": params | {"log_std": jnp.array([-5.0, -1.0, 0.5])}}, z)
    np.testing.assert_allclose(std, np.exp([-1.427, -1.0, 0.5]), rtol=1e-6)


def test_critics_are_orthogonal_and_independent() -> None:
    params = CriticEnsemble((24, 16), 3).init(jax.random.key(0), jnp.zeros((1, 12)))["params"]
    assert params.keys() == {"critic_0", "critic_1", "critic_2"}
    for critic in params.values():
        for i in range(3):
            kernel = np.asarray(critic[f"linear_{i}"]["kernel"])
            gram = kernel.T @ kernel if kernel.shape[0] >= kernel.shape[1] else kernel @ kernel.T
            np.testing.assert_allclose(gram, 2 * np.eye(len(gram)), atol=1e-5)
            assert (critic[f"linear_{i}"]["bias"] == 0).all()
    assert np.abs(params["critic_0"]["linear_0"]["kernel"] - params["critic_1"]["linear_0"]["kernel"]).max() > 0.1


def layer_norm(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def mish(x: np.ndarray) -> np.ndarray:
    return x * np.tanh(np.logaddexp(0.0, x))


@pytest.mark.parametrize("module", [MLP((16,), 1), Critic((16,))], ids=["mlp", "critic"])
def test_layer_norm_epsilon_and_order(module: nn.Module) -> None:
    x = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32) * 0.003  # a variance of the order of epsilon
    params = module.init(jax.random.key(1), x)["params"]
    hidden = x @ np.asarray(params["linear_0"]["kernel"], np.float64) * 10
    scaled = params | {"linear_0": jax.tree.map(lambda leaf: leaf * 10, params["linear_0"])}
    hidden = mish(layer_norm(hidden)) if isinstance(module, MLP) else layer_norm(mish(hidden))
    expected = (hidden @ np.asarray(params["linear_1"]["kernel"])).reshape(5, -1)
    np.testing.assert_allclose(np.reshape(module.apply({"params": scaled}, x), (5, -1)), expected, rtol=1e-4, atol=1e-6)


def inputs(config: Config) -> tuple[jax.Array, jax.Array, jax.Array]:
    """z [B, D], full-width actions [B, A] and the one-action task for all."""
    rng = np.random.default_rng(2)
    return (
        jnp.asarray(rng.uniform(size=(6, config.model.latent_dim)), jnp.float32),
        jnp.asarray(rng.uniform(0.2, 1, (6, 3)), jnp.float32),
        jnp.ones(6, jnp.int32),
    )


@pytest.mark.parametrize("masked", [True, False])
def test_masked_actions_do_not_reach_the_model(masked: bool) -> None:
    config = make_config(dict(mask_actions=masked, termination_head=True))
    params, (z, action, task_id) = world_model_params(config), inputs(config)
    for method in ("next", "reward_output", "terminated_logit"):
        apply = network(config, method)
        output = apply(params, z, action, task_id)
        other_padding = apply(params, z, action.at[:, 1:].set(-1.0), task_id)
        other_action = apply(params, z, action.at[:, 0].set(-1.0), task_id)
        assert (np.abs(output - other_padding).max() == 0) == masked
        assert np.abs(output - other_action).max() > 1e-3


@pytest.mark.parametrize(("part", "method"), [("dynamics_0", "next"), ("reward_head", "reward_output")])
def test_inputs_are_latent_then_task_embedding_then_action(part: str, method: str) -> None:
    config = make_config(dict(action_dims=(3, 3, 3)))
    params, (z, action, task_id) = world_model_params(config), inputs(config)
    latent, task = config.model.latent_dim, config.model.task_dim
    assert params[part]["linear_0"]["kernel"].shape[0] == latent + task + 3
    changed = {"z": (1 - z, action, task_id), "task": (z, action, 0 * task_id), "action": (z, -action, task_id)}
    rows = {"z": slice(0, latent), "task": slice(latent, latent + task), "action": slice(latent + task, None)}
    for name in rows:
        layer = params[part]["linear_0"]
        cut = params | {part: params[part] | {"linear_0": layer | {"kernel": layer["kernel"].at[rows[name]].set(0.0)}}}
        output = network(config, method)(cut, z, action, task_id)
        for other, arguments in changed.items():
            difference = np.abs(output - network(config, method)(cut, *arguments)).max()
            assert (difference == 0) == (other == name), (name, other)


def test_the_encoder_reads_observation_then_task_embedding() -> None:
    config = make_config()
    params, batch = world_model_params(config), make_batch(make_config())
    kernel = params["encoder"]["linear_0"]["kernel"]
    assert kernel.shape[0] == 5 + 4
    cut = params | {"encoder": params["encoder"] | {"linear_0": params["encoder"]["linear_0"] | {"kernel": kernel.at[5:].set(0.0)}}}
    encode = network(config, "encode")
    assert (encode(cut, batch.obs, batch.task_id) == encode(cut, batch.obs, 0 * batch.task_id)).all()
    assert np.abs(encode(params, batch.obs, batch.task_id) - encode(params, batch.obs, 0 * batch.task_id)).max() > 1e-3
    np.testing.assert_allclose(encode(params, batch.obs, batch.task_id)[2], encode(params, batch.obs[2], batch.task_id), atol=1e-6)


def test_long_embeddings_are_used_at_norm_one() -> None:
    config = make_config()
    params, (z, action, task_id) = world_model_params(config), inputs(config)
    row = params["task_embedding"][1]
    unit, long = (params | {"task_embedding": params["task_embedding"].at[1].set(row / jnp.linalg.norm(row) * n)} for n in (1.0, 7.0))
    apply = network(config, "next")
    np.testing.assert_allclose(apply(long, z, action, task_id), apply(unit, z, action, task_id), atol=1e-6)


def test_a_model_without_task_embedding_has_none() -> None:
    config = make_config(dict(task_dim=0))
    params, (z, action, _) = world_model_params(config), inputs(config)
    assert "task_embedding" not in params
    assert params["dynamics_0"]["linear_0"]["kernel"].shape[0] == 8 + 3
    ids = jnp.array([1, 1, 1, 2, 2, 2])
    expected = network(config, "next")(params, z, action * jnp.asarray(config.model.action_mask)[ids], 0 * ids)
    np.testing.assert_array_equal(network(config, "next")(params, z, action, ids), expected)


def test_members_of_the_dynamics_ensemble_continue_from_their_own_latents() -> None:
    config = make_config(dict(model_ensemble=2))
    params, (z, action, task_id) = world_model_params(config), inputs(config)
    first = network(config, "next")(params, z, action, task_id)
    assert first.shape == (2, *z.shape)
    assert np.abs(first[0] - first[1]).max() > 1e-3
    second = network(config, "next_per_member")(params, first, action, task_id)
    for k in range(2):
        np.testing.assert_allclose(second[k], network(config, "next")(params, first[k], action, task_id)[k], atol=1e-6)


def test_reward_space_raw_is_symexp_of_the_expected_bin() -> None:
    symlog, raw = (make_config(dict(reward_space=space)) for space in ("symlog", "raw"))
    params, arguments = world_model_params(symlog), inputs(symlog)
    expected = network(symlog, "reward")(params, *arguments)
    logits = np.asarray(network(symlog, "reward_output")(params, *arguments), np.float64)
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(expected, weights @ np.linspace(-5, 5, 21), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(network(raw, "reward")(params, *arguments), ops.symexp(expected), rtol=1e-5)


REGULARISERS = ["simnorm", "none", "relu", "spectral"]


@pytest.mark.parametrize("regulariser", REGULARISERS)
def test_every_regulariser_trains(regulariser: str) -> None:
    config = make_config(dict(regulariser=regulariser, mlp_hidden=(16,)), dict(lr=5e-3, encoder_lr_scale=1.0, reward_coef=1.0))
    batch = make_batch(config, size=16)
    update = jax.jit(lambda state: pwm.update_world_model(state, batch, jax.random.key(0), config))
    state, losses = pwm.init_world_model(config, jax.random.key(0)), []
    for _ in range(60):
        state, metrics = update(state)
        losses.append(float(metrics["loss"]))
    assert np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < 0.7 * max(losses[:5])
    assert int(state.step) == 60


@pytest.mark.parametrize("regulariser", REGULARISERS)
def test_latents_are_regularised(regulariser: str) -> None:
    config = make_config(dict(regulariser=regulariser))
    params, (z, action, task_id) = world_model_params(config), inputs(config)
    names = {name for part in ("encoder", "dynamics_0") for name in params[part]}
    assert ("norm_0" in names) == (regulariser != "relu")
    assert any(name == "norm_2" for name in names) == (regulariser in ("simnorm", "none"))
    latent = np.asarray(network(config, "next")(params, z * 50, action, task_id)[0])
    if regulariser == "simnorm":
        np.testing.assert_allclose(latent.reshape(6, 2, 4).sum(-1), 1.0, atol=1e-6)
    else:
        assert np.abs(latent.reshape(6, 2, 4).sum(-1) - 1.0).max() > 0.1


@pytest.mark.parametrize("shape", [(16, 8), (64, 64), (200, 128), (512, 512)])
def test_the_spectral_layer_has_norm_one(shape: tuple[int, int]) -> None:
    layer = SpectralLinear(shape[1])
    params = layer.init(jax.random.key(0), jnp.zeros((1, shape[0])))["params"]
    kernel = np.asarray(layer.apply({"params": params}, jnp.eye(shape[0])))
    # The largest singular value of a random matrix is close to the second, so power iterations fall a little short of it.
    assert 0.9999 < np.linalg.svd(kernel, compute_uv=False)[0] < 1.02
    np.testing.assert_allclose(kernel * np.linalg.norm(params["kernel"]) / np.linalg.norm(kernel), params["kernel"], rtol=1e-4, atol=1e-6)


def test_the_spectral_layer_is_differentiated_through_its_norm() -> None:
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.normal(size=(6, 5)) + 3 * np.outer(rng.normal(size=6), rng.normal(size=5)), jnp.float32)
    layer, probe = SpectralLinear(5), jnp.asarray(rng.normal(size=(6, 5)), jnp.float32)

    def by_iteration(kernel: jax.Array) -> jax.Array:
        return jnp.sum(probe * layer.apply({"params": {"kernel": kernel, "bias": jnp.zeros(5)}}, jnp.eye(6)))

    def by_decomposition(kernel: jax.Array) -> jax.Array:
        return jnp.sum(probe * kernel / jnp.linalg.svd(kernel, compute_uv=False)[0])

    np.testing.assert_allclose(by_iteration(kernel), by_decomposition(kernel), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(by_iteration)(kernel), jax.grad(by_decomposition)(kernel), atol=1e-4)


def test_modules_take_any_leading_dimensions() -> None:
    z = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 10)), jnp.float32)
    critics, actor = CriticEnsemble((8,), 2), Actor((8,), 3)
    critic_params, actor_params = jax.jit(critics.init)(jax.random.key(0), z), jax.jit(actor.init)(jax.random.key(1), z)
    value, act = jax.jit(critics.apply), jax.jit(actor.apply)
    assert value(critic_params, z).shape == (2, 3, 4)
    np.testing.assert_allclose(value(critic_params, z)[:, 1, 2], value(critic_params, z[1, 2:3])[:, 0], atol=1e-5)
    np.testing.assert_allclose(act(actor_params, z)[0][1], act(actor_params, z[1])[0], atol=1e-5)
