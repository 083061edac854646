"""Settings of the algorithm: a value that cannot work is refused by name, the defaults are the published ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tiny_models import make_config, model_config

from experiments.evaluate import EvaluateConfig
from pwm_jax.baselines.bc import BCConfig
from pwm_jax.config import Config, PolicyConfig, WorldModelConfig
from pwm_jax.training.extract import ExtractConfig
from pwm_jax.training.online import OnlineConfig
from pwm_jax.training.pretrain import PretrainConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(latent_dim=10), "model.latent_dim 10 is not a multiple of model.simnorm_dim 4"),
        (dict(action_dims=()), r"model.action_dims \(\)"),
        (dict(action_dims=(3, 4)), r"model.action_dims \(3, 4\) .* action_dim 3"),
        (dict(model_ensemble=0), "model.model_ensemble must be at least 1, not 0"),
        (dict(enc_hidden=(8, 0)), r"model.enc_hidden must be at least 1, not \(8, 0\)"),
        (dict(task_dim=-1), "model.task_dim must be at least 0, not -1"),
        (dict(bin_low=float("nan")), "model.bin_low must be finite, not nan"),
        (dict(num_bins=1), r"model.num_bins must be 2 or more .*not 1 in"),
        (dict(bin_low=3.0, bin_high=-3.0), r"from bin_low to bin_high, not 21 in \(3.0, -3.0\)"),
        (dict(simnorm_temperature=0.0), "model.simnorm_temperature must be above 0, not 0.0"),
        (dict(regulariser="simnrom"), "model.regulariser must be one of 'simnorm', .*not 'simnrom'"),
    ],
)
def test_a_bad_model_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model_config(**changes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PolicyConfig(critic_minibatches=0), "policy.critic_minibatches must be at least 1, not 0"),
        (lambda: PolicyConfig(target_critic=1.2), r"policy.target_critic must lie in \[0, 1\], not 1.2"),
        (lambda: PolicyConfig(behaviour_kept=0.0), r"policy.behaviour_kept must lie in \(0, 1\], not 0.0"),
        (lambda: PolicyConfig(behaviour_filter="advantages"), "policy.behaviour_filter must be one of .*not 'advantages'"),
        (lambda: WorldModelConfig(lr=float("inf")), "world_model.lr must be finite, not inf"),
        (lambda: PretrainConfig(log_every=0), "pretrain.log_every must be at least 1, not 0"),
        (lambda: ExtractConfig(checkpoint_every=0), "extract.checkpoint_every must be at least 1, not 0"),
        (lambda: ExtractConfig(eval_every=250), "extract.eval_every must be a multiple of extract.log_every 100, not 250"),
        (lambda: PretrainConfig(checkpoint_every=30), "pretrain.checkpoint_every must be a multiple of pretrain.log_every 100, not 30"),
        (lambda: ExtractConfig(policies_per_batch=-1), "extract.policies_per_batch must be at least 0, not -1"),
        (lambda: ExtractConfig(seeds=(0, -3)), r"extract.seeds must be at least 0, not \(0, -3\)"),
        (lambda: OnlineConfig(eval_every=0), "online.eval_every must be at least 1, not 0"),
        (lambda: OnlineConfig(imagine_from="envs"), "online.imagine_from must be one of 'replay', 'env', not 'envs'"),
        (lambda: EvaluateConfig(methods=("extracted", "brc")), "evaluate.methods must be one of 'extracted', .*not 'brc'"),
        (lambda: model_config(discounts=(0.9, float("nan"), 0.9)), r"model.discounts must be finite, not \(0.9, nan, 0.9\)"),
        (lambda: BCConfig(steps=0), "bc.steps must be at least 1, not 0"),
    ],
)
def test_a_bad_setting_is_refused_by_name(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_latents_without_simplices_may_have_any_size() -> None:
    assert model_config(latent_dim=10, regulariser="none").latent_dim == 10


def test_minibatches_must_divide_the_imagined_states() -> None:
    with pytest.raises(ValueError, match=r"policy.critic_minibatches 5 does not divide horizon \* batch_size = 24"):
        make_config(horizon=4, batch_size=6, critic_minibatches=5)
    assert make_config(horizon=5, batch_size=6, critic_minibatches=5).policy.critic_minibatches == 5


@pytest.mark.parametrize("name", ["uncertainty_penalty", "exploration_bonus"])
def test_disagreement_needs_an_ensemble(name: str) -> None:
    with pytest.raises(ValueError, match=rf"policy.{name} .* model.model_ensemble"):
        make_config(**{name: 0.1})
    assert getattr(make_config(dict(model_ensemble=2), **{name: 0.1}).policy, name) == 0.1


def test_the_action_mask_has_ones_on_each_tasks_own_actions() -> None:
    model = model_config(action_dims=(3, 1, 2))
    np.testing.assert_array_equal(model.action_mask, [[1, 1, 1], [1, 0, 0], [1, 1, 0]])
    assert model.action_mask.dtype == np.float32
    assert model.num_tasks == 3


def test_a_config_is_frozen_and_a_static_argument() -> None:
    config = make_config()
    assert hash(config) == hash(make_config())
    assert config == make_config()
    assert config != make_config(gamma=0.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.policy.gamma = 0.5


def test_defaults_are_the_published_settings() -> None:
    """Specification, sections 1.1 and 2: the TD-MPC2 loss, the multi-task extraction, and no option beyond the paper."""
    wm, policy = WorldModelConfig(), PolicyConfig()
    assert (wm.horizon, wm.rho, wm.consistency_coef, wm.reward_coef) == (16, 0.99, 20.0, 0.1)
    assert (wm.lr, wm.encoder_lr_scale, wm.clip_norm, wm.batch_size, wm.decay_steps) == (3e-4, 0.3, 20.0, 1024, 0)
    assert (policy.horizon, policy.batch_size, policy.gamma, policy.lam, policy.decay_steps) == (16, 512, 0.99, 0.95, 10_000)
    assert (policy.actor_hidden, policy.critic_hidden, policy.num_critics) == ((400, 200, 100), (400, 200), 3)
    assert (policy.log_std_init, policy.log_std_floor, policy.bootstrap_power_offset) == (-1.0, -1.427, 0)
    assert (policy.actor_lr, policy.critic_lr, policy.final_lr, policy.adam_b1, policy.adam_b2) == (5e-4, 5e-4, 1e-5, 0.7, 0.95)
    assert (policy.actor_clip_norm, policy.critic_clip_norm, policy.critic_passes, policy.critic_minibatches) == (1.0, 100.0, 8, 4)
    assert (policy.critic_target, policy.detach_actor_input, policy.target_critic) == ("td_lambda", True, 1.0)
    assert policy.reward_scale == 1.0
    assert policy.behaviour_weight == policy.uncertainty_penalty == policy.start_balance == policy.entropy_coef == 0.0
    model = Config(model_config()).model
    assert (model.regulariser, model.reward_head, model.reward_space, model.mask_actions) == ("simnorm", "two_hot", "symlog", True)
    assert (model.simnorm_temperature, model.model_ensemble, model.termination_head) == (1.0, 1, False)
