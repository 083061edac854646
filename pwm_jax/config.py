"""The algorithm's configuration: frozen dataclasses, static under jit, one field for each choice that the specification names.

Defaults are the published multi-task settings; `configs/` lists the same fields for the launchers.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np


def check_fields(config: Any, section: str, zero: tuple[str, ...] = ()) -> None:
    """Check what every field of a configuration dataclass must fulfil, whoever makes it.

    Args:
        section: what the message calls it, as in `policy.horizon`.
        zero: the integer fields that may be 0; the others, and the entries of integer tuples, are at least 1.

    Raises:
        ValueError: a value is none of its Literal's, an integer is too small, or a float is not finite; names the field.
    """
    for name, annotation in typing.get_type_hints(type(config)).items():
        value = getattr(config, name)
        of_each = typing.get_args(annotation)[0] if typing.get_origin(annotation) is tuple else annotation
        choices, least = typing.get_args(of_each), 0 if name in zero else 1
        for entry in value if isinstance(value, tuple) else (value,):
            if typing.get_origin(of_each) is Literal and entry not in choices:
                raise ValueError(f"{section}.{name} must be one of {', '.join(map(repr, choices))}, not {entry!r}")
            if of_each is int and entry < least:
                raise ValueError(f"{section}.{name} must be at least {least}, not {value!r}")
            if of_each is float and not math.isfinite(entry):
                raise ValueError(f"{section}.{name} must be finite, not {value!r}")


def check_rhythm(config: Any, section: str) -> None:
    """Raise ValueError where `eval_every` or `checkpoint_every` is no multiple of `log_every`, since both happen after a logged chunk."""
    for name in ("eval_every", "checkpoint_every"):
        if getattr(config, name) % config.log_every:
            raise ValueError(f"{section}.{name} must be a multiple of {section}.log_every {config.log_every}, not {getattr(config, name)}")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Architecture of the world model. `action_dims[i]` is the native action size of task i (the action mask).

    `task_dim` 0 means a model without task embedding. `reward_head` `two_hot` predicts `num_bins` logits over symlog bins in
    [`bin_low`, `bin_high`], `scalar` one number. `reward_space` is what a policy is trained on: `symlog` leaves the expected bin
    as it is (as published), `raw` applies symexp. `model_ensemble` is the number of dynamics networks.
    `residual_dynamics` (this project's option, off as published) lets them predict the change of the latent's logits instead of the
    latent, so that an untrained model predicts no change, and the small effect of one action is learnt in few gradient steps.
    `normalise_obs` (this project's option) lets the encoder read observations normalised by running moments, task by task.
    `num_q` Q heads and a policy prior are trained with the model, as TD-MPC2's are (0: none, which PWM's policies need no more);
    `q_dropout` and the prior's log-std range are theirs, `discounts` the discount of every task.
    `matmul_dtype` is that of the operands of matrix products; parameters, norms, latents and losses are float32 with either.
    """

    obs_dim: int
    action_dim: int
    action_dims: tuple[int, ...]
    task_dim: int = 64
    enc_hidden: tuple[int, ...] = (256,)
    mlp_hidden: tuple[int, ...] = (512, 512)
    latent_dim: int = 512
    regulariser: Literal["simnorm", "none", "relu", "spectral"] = "simnorm"
    simnorm_dim: int = 8
    simnorm_temperature: float = 1.0
    reward_head: Literal["two_hot", "scalar"] = "two_hot"
    reward_space: Literal["symlog", "raw"] = "symlog"
    num_bins: int = 101
    bin_low: float = -10.0
    bin_high: float = 10.0
    termination_head: bool = False
    mask_actions: bool = True
    model_ensemble: int = 1
    residual_dynamics: bool = False
    normalise_obs: bool = False
    num_q: int = 0
    q_dropout: float = 0.01
    prior_log_std_low: float = -5.0
    prior_log_std_high: float = 0.5
    discounts: tuple[float, ...] = ()
    matmul_dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        check_fields(self, "model", zero=("task_dim", "num_q"))
        if self.num_q and self.regulariser == "relu":
            raise ValueError("model.num_q needs networks with LayerNorm, not model.regulariser relu")
        if self.num_q == 1 or (self.num_q and self.reward_head != "two_hot"):
            raise ValueError(f"model.num_q {self.num_q} needs reward_head two_hot and at least 2 heads, since targets take two")
        if self.num_q and len(self.discounts) != len(self.action_dims):
            raise ValueError(f"model.num_q {self.num_q} needs one discount for each of {len(self.action_dims)} tasks, not {self.discounts}")
        if not 0.0 <= self.q_dropout < 1.0:
            raise ValueError(f"model.q_dropout must lie in [0, 1), not {self.q_dropout}")
        if self.regulariser == "simnorm" and self.latent_dim % self.simnorm_dim:
            raise ValueError(f"model.latent_dim {self.latent_dim} is not a multiple of model.simnorm_dim {self.simnorm_dim}")
        if self.num_bins < 2 or self.bin_low >= self.bin_high:
            raise ValueError(
                f"model.num_bins must be 2 or more from bin_low to bin_high, not {self.num_bins} in {self.bin_low, self.bin_high}"
            )
        if self.simnorm_temperature <= 0:
            raise ValueError(f"model.simnorm_temperature must be above 0, not {self.simnorm_temperature}")
        if not self.action_dims or max(self.action_dims) > self.action_dim:
            raise ValueError(f"model.action_dims {self.action_dims} must name each task's actions, none above action_dim {self.action_dim}")
        if self.residual_dynamics and self.regulariser != "simnorm":
            raise ValueError(f"model.residual_dynamics needs model.regulariser simnorm, not {self.regulariser}")

    @property
    def num_tasks(self) -> int:
        """Number of tasks, the rows of the embedding table."""
        return len(self.action_dims)

    @property
    def action_mask(self) -> np.ndarray:
        """[num_tasks, A] float32, 1 on a task's own action components."""
        return (np.arange(self.action_dim) < np.asarray(self.action_dims)[:, None]).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class WorldModelConfig:
    """Pre-training loss and optimiser (docs/algorithm.md). `rho` weighs step t by rho^t; `decay_steps` 0 keeps `lr` constant.

    `normalise_reward` trains a scalar reward head on rewards normalised by running moments and clipped to +-5. What begins with
    `value_`, `target_q_` or `prior_` concerns a model with Q heads alone.
    """

    horizon: int = 16
    batch_size: int = 1024
    rho: float = 0.99
    consistency_coef: float = 20.0
    reward_coef: float = 0.1
    termination_coef: float = 1.0
    normalise_reward: bool = False
    lr: float = 3e-4
    encoder_lr_scale: float = 0.3
    final_lr: float = 1e-5
    decay_steps: int = 0
    clip_norm: float = 20.0
    value_coef: float = 0.1
    target_q_rate: float = 0.01
    prior_lr: float = 3e-4
    prior_entropy_coef: float = 1e-4
    prior_clip_norm: float = 20.0

    def __post_init__(self) -> None:
        check_fields(self, "world_model", zero=("decay_steps",))


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
    """Extraction (docs/algorithm.md), and options beyond the paper, which are off by default.

    `dynamics` is what trajectories are rolled through and differentiated: the learnt `model` (PWM); the `simulator` itself, actor and
    critics reading the observation (SHAC, arXiv 2204.07137); or `decoupled`, simulated trajectories with the model's gradients (arXiv
    2509.00215).
    `bootstrap_power_offset` 1 reproduces the published code's gamma^(H+1). `target_critic` is the rate of an exponentially averaged
    critic for the targets (1: none). `behaviour_weight` adds (tanh mu(z_0) - a_data)^2 of the start states (TD3+BC, arXiv 2106.06860);
    of the weight the share `behaviour_kept` is left after `decay_steps`, falling exponentially (relaxed constraint, arXiv 2211.11802);
    `behaviour_filter` `advantage` keeps only recorded actions that model and critic find better than the policy's value, `exponential`
    weighs them by exp of their advantage (CRR, arXiv 2006.15134). `uncertainty_penalty` subtracts the dynamics ensemble's disagreement
    from imagined rewards (MOPO, arXiv 2005.13239).
    `exploration_bonus` adds it, divided by its mean over the imagined batch: the policy seeks what the model does not know yet
    (Plan2Explore, arXiv 2005.05960), for a bonus of the same size whether the model is young or not.
    `entropy_coef` adds the entropy of the actions along the rollout (SAPO, arXiv 2412.12089), which keeps the tanh out of saturation.
    `reward_scale` multiplies imagined rewards, so that the critics' targets are of order one to ten, where Adam's step size fits them.
    `min_return_scale` bounds the divisor of the returns from below (DreamerV3, arXiv 2301.04104), so that a policy which has found no
    reward follows the entropy and not the model's noise.
    `task_discounts` takes each task's own discount (TD-MPC2's, from the length of its episodes) in the place of `gamma`.
    `task_conditioned` lets actor and critics read the task's embedding beside the latent, as one policy of several tasks must.
    `start_balance` is the share of start states drawn uniformly over the first `horizon` steps of an episode instead of over all of it.
    `matmul_dtype` is that of the operands of actor's and critics' matrix products.
    """

    dynamics: Literal["model", "simulator", "decoupled"] = "model"
    horizon: int = 16
    batch_size: int = 512
    gamma: float = 0.99
    lam: float = 0.95
    critic_target: Literal["td_lambda", "one_step"] = "td_lambda"
    bootstrap_power_offset: int = 0
    detach_actor_input: bool = True
    normalise_returns: bool = True
    min_return_scale: float = 0.0
    actor_hidden: tuple[int, ...] = (400, 200, 100)
    critic_hidden: tuple[int, ...] = (400, 200)
    num_critics: int = 3
    log_std_init: float = -1.0
    log_std_floor: float = -1.427
    actor_lr: float = 5e-4
    critic_lr: float = 5e-4
    final_lr: float = 1e-5
    decay_steps: int = 10_000
    adam_b1: float = 0.7
    adam_b2: float = 0.95
    actor_clip_norm: float = 1.0
    critic_clip_norm: float = 100.0
    critic_passes: int = 8
    critic_minibatches: int = 4
    target_critic: float = 1.0
    task_discounts: bool = False
    task_conditioned: bool = False
    reward_scale: float = 1.0
    entropy_coef: float = 0.0
    start_balance: float = 0.0
    behaviour_weight: float = 0.0
    behaviour_kept: float = 1.0
    behaviour_filter: Literal["none", "advantage", "exponential"] = "none"
    uncertainty_penalty: float = 0.0
    exploration_bonus: float = 0.0
    matmul_dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        check_fields(self, "policy", zero=("bootstrap_power_offset", "decay_steps"))
        for name in ("gamma", "lam", "target_critic", "start_balance"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"policy.{name} must lie in [0, 1], not {getattr(self, name)}")
        if not 0.0 < self.behaviour_kept <= 1.0:
            raise ValueError(f"policy.behaviour_kept must lie in (0, 1], not {self.behaviour_kept}")
        if self.dynamics != "model":
            for name in ("behaviour_weight", "uncertainty_penalty", "exploration_bonus"):
                if getattr(self, name):
                    raise ValueError(f"policy.{name} needs imagined trajectories: set it to 0, or policy.dynamics to model")
            if self.task_conditioned:
                raise ValueError("policy.task_conditioned is for policies of several tasks, policy.dynamics model: set it to False")
        states = self.horizon * self.batch_size
        if states % self.critic_minibatches:
            raise ValueError(f"policy.critic_minibatches {self.critic_minibatches} does not divide horizon * batch_size = {states}")


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that the algorithm's functions need to know; static under jit."""

    model: ModelConfig
    world_model: WorldModelConfig = WorldModelConfig()
    policy: PolicyConfig = PolicyConfig()

    def __post_init__(self) -> None:
        if self.world_model.normalise_reward and self.model.num_q:
            raise ValueError("world_model.normalise_reward and model.num_q exclude each other: Q heads learn rewards as they are")
        if self.policy.task_discounts and not self.model.discounts:
            raise ValueError("policy.task_discounts needs model.discounts, which this model was saved without: set it to False")
        if self.world_model.normalise_reward and self.policy.dynamics == "decoupled":
            raise ValueError("policy.dynamics decoupled mixes real and predicted rewards: set world_model.normalise_reward to False")
        for name in ("uncertainty_penalty", "exploration_bonus"):
            if getattr(self.policy, name) and self.model.model_ensemble < 2:
                raise ValueError(
                    f"policy.{name} needs a dynamics ensemble: train a model with model.model_ensemble 2 or more, or set policy.{name} to 0"
                )

    @property
    def policy_input_dim(self) -> int:
        """Size of what actor and critics read: the latent, with the task embedding where the policy is `task_conditioned`.

        The observation itself where the policy is trained in the simulator, without a model.
        """
        if self.policy.dynamics == "simulator":
            return self.model.obs_dim
        return self.model.latent_dim + (self.model.task_dim if self.policy.task_conditioned else 0)


# Fields whose values no Python branch depends on, so that runs which differ in nothing else can share one compiled program.
VECTORISABLE = (
    "model.simnorm_temperature",
    *(
        f"world_model.{name}"
        for name in ("rho", "consistency_coef", "reward_coef", "termination_coef", "lr", "encoder_lr_scale", "clip_norm")
    ),
    *(
        f"policy.{name}"
        for name in ("gamma", "lam", "reward_scale", "min_return_scale", "log_std_floor", "actor_lr", "critic_lr", "final_lr")
    ),
    *(f"policy.{name}" for name in ("adam_b1", "adam_b2", "actor_clip_norm", "critic_clip_norm", "target_critic")),
)


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """`config` with traced scalars in the place of some `VECTORISABLE` fields, by dotted name; for use within jitted functions only.

    The values are not checked: check the configurations that they come from.

    Raises:
        ValueError: a field cannot be traced; names it.
    """
    fixed = [name for name in values if name not in VECTORISABLE]
    if fixed:
        raise ValueError(f"{', '.join(fixed)} cannot differ within one program; {', '.join(VECTORISABLE)} can")
    changed = copy.copy(config)
    for section in {name.split(".")[0] for name in values}:
        part = copy.copy(getattr(config, section))
        for name, value in values.items():
            if name.startswith(f"{section}."):
                object.__setattr__(part, name.split(".")[1], value)
        object.__setattr__(changed, section, part)
    return changed
