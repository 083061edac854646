"""PPO and SAC of `brax.training` on the episodes of this project, counted and evaluated as its own methods are.

The algorithms are Brax's alone; here are their settings, their environment (`FreshStarts`) and the clock of their learning curve.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pwm_jax import simulated
from pwm_jax.baselines.compile_clock import CompileClock
from pwm_jax.config import check_fields
from pwm_jax.envs.simulators.episodes import Episodes
from pwm_jax.envs.simulators.fresh_starts import wrap

_Params = Any
_Policy = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class AgentConfig:
    """Length and rhythm of a run of either agent, in environment steps of all `num_envs` together, and what both call alike.

    About every `eval_every` steps the policy without noise plays one episode in each of `eval_envs` environments, at the end from start
    states that depend on `eval_seed` alone. `env_steps` is rounded up to whole evaluation intervals. All other fields have the names of
    the arguments of `brax.training`'s `train`.
    """

    seeds: tuple[int, ...] = (0,)
    env_steps: int = 3_000_000
    eval_every: int = 150_000
    eval_envs: int = 32
    eval_seed: int = 1_000
    num_envs: int = 256
    learning_rate: float = 3e-4
    discounting: float = 0.99
    batch_size: int = 256
    reward_scaling: float = 1.0
    normalize_observations: bool = True

    def __post_init__(self) -> None:
        check_fields(self, "agent", zero=("seeds", "eval_seed", "min_replay_size", "entropy_cost"))
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise ValueError(f"agent.seeds must be one or more different seeds, not {self.seeds}")


@dataclasses.dataclass(frozen=True)
class PPOConfig(AgentConfig):
    """PPO: Brax's published settings for locomotion with fewer environments and less data an update.

    Rewards are scaled down as published for its humanoid: on hopper, too, values are then learned fast enough for a longer discount.
    """

    learning_rate: float = 5e-4
    batch_size: int = 128
    reward_scaling: float = 0.1
    unroll_length: int = 20
    num_minibatches: int = 16
    num_updates_per_batch: int = 8
    entropy_cost: float = 1e-3
    gae_lambda: float = 0.95
    clipping_epsilon: float = 0.3
    policy_hidden_layer_sizes: tuple[int, ...] = (64, 64)
    value_hidden_layer_sizes: tuple[int, ...] = (128, 128)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size * self.num_minibatches % self.num_envs:
            raise ValueError(f"agent.batch_size times num_minibatches must be a multiple of agent.num_envs {self.num_envs}")


@dataclasses.dataclass(frozen=True)
class SACConfig(AgentConfig):
    """SAC: Brax's published settings for its hopper and walker, with fewer environments and a gradient step every fourth step."""

    env_steps: int = 300_000
    eval_every: int = 20_000
    num_envs: int = 64
    learning_rate: float = 6e-4
    tau: float = 0.005
    min_replay_size: int = 8_192
    max_replay_size: int = 300_000
    grad_updates_per_step: int = 16
    hidden_layer_sizes: tuple[int, ...] = (128, 128)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_replay_size >= self.env_steps:
            raise ValueError(f"agent.min_replay_size {self.min_replay_size} leaves nothing of agent.env_steps {self.env_steps} to learn in")


class Point(NamedTuple):
    """One evaluation: mean return and length of the episodes after `env_steps` steps, `wall_s` seconds of training, compiled apart."""

    env_steps: int
    wall_s: float
    compile_s: float
    episode_return: float
    length: float


class Acting(NamedTuple):
    """What a trained agent acts with: mean and standard deviation of the observations [O], and the policy network's parameters."""

    mean: jax.Array
    std: jax.Array
    params: _Params


def train(episodes: Episodes, config: AgentConfig, seed: int, progress: Callable[[Point], None]) -> Acting:
    """Train on `episodes` from `seed` and return what the policy acts with (`as_policy`).

    `progress` hears of every evaluation, of the last one as `simulated.play` measures it. Its `wall_s` counts acting and learning, not
    evaluations, nor tracing and compiling, which are `compile_s`.

    Raises:
        FloatingPointError: an evaluation's return is not finite; names the step.
    """
    with CompileClock() as clock, _device_put_replicated():
        curve = _Curve(clock, progress)
        _, params, _ = _agent(config)(
            environment=episodes.env, episode_length=episodes.episode_length, seed=seed, progress_fn=curve.evaluated
        )
    acting = Acting(params[0].mean, params[0].std, params[1])
    policy = as_policy(acting, config, episodes.env.observation_size, episodes.env.action_size)
    returns, lengths = _play(episodes, policy, config.eval_envs, jax.random.key(config.eval_seed))
    curve.add(returns, lengths)
    return acting


def as_policy(acting: Acting, config: AgentConfig, obs_dim: int, action_dim: int) -> _Policy:
    """The policy without noise, obs [N, O], key -> actions [N, A]."""
    from brax.training.acme.running_statistics import NestedMeanStd

    make, inference = _networks(config)
    act = inference(make(obs_dim, action_dim))((NestedMeanStd(acting.mean, acting.std), acting.params), deterministic=True)
    return lambda obs, key: act(obs, key)[0]


def acting_like(config: AgentConfig, obs_dim: int, action_dim: int) -> Acting:
    """Shapes of what `train` returns, to restore a saved one."""
    make, _ = _networks(config)
    init = make(obs_dim, action_dim).policy_network.init
    return jax.eval_shape(lambda key: Acting(jnp.zeros(obs_dim), jnp.ones(obs_dim), init(key)), jax.random.key(0))


def training_steps(config: PPOConfig) -> tuple[int, int]:
    """Evaluations after the first, and environment steps of all that `config` asks for in whole updates of PPO."""
    per_update = config.batch_size * config.num_minibatches * config.unroll_length
    per_evaluation = max(round(config.eval_every / per_update), 1) * per_update
    evaluations = math.ceil(config.env_steps / per_evaluation)
    return evaluations, evaluations * per_evaluation


def _agent(config: AgentConfig) -> Callable[..., tuple[Any, _Params, Mapping[str, Any]]]:
    """`train` of the agent with all of its arguments but environment, its episodes' length, seed and callback."""
    own = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    for name in ("seeds", "env_steps", "eval_every", "eval_envs", "eval_seed"):
        del own[name]
    # One device whatever the machine has, so that results do not depend on it.
    common = dict(num_eval_envs=config.eval_envs, deterministic_eval=True, wrap_env_fn=wrap, max_devices_per_host=1)
    make, _ = _networks(config)
    for name in [name for name in own if name.endswith("hidden_layer_sizes")]:
        del own[name]
    if isinstance(config, PPOConfig):
        from brax.training.agents.ppo import train as ppo

        evaluations, steps = training_steps(config)
        return functools.partial(ppo.train, num_timesteps=steps, num_evals=evaluations + 1, network_factory=make, **common, **own)
    from brax.training.agents.sac import train as sac

    evaluations = max(round(config.env_steps / config.eval_every), 1)
    return functools.partial(sac.train, num_timesteps=config.env_steps, num_evals=evaluations + 1, network_factory=make, **common, **own)


def _networks(config: AgentConfig) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """What makes an agent's networks, obs_dim, action_dim -> networks, and what makes policies of them."""
    from brax.training.acme.running_statistics import normalize

    sizes = {field.name: getattr(config, field.name) for field in dataclasses.fields(config) if field.name.endswith("layer_sizes")}
    if config.normalize_observations:
        sizes["preprocess_observations_fn"] = normalize
    if isinstance(config, PPOConfig):
        from brax.training.agents.ppo import networks as ppo_networks

        return functools.partial(ppo_networks.make_ppo_networks, **sizes), ppo_networks.make_inference_fn
    from brax.training.agents.sac import networks as sac_networks

    return functools.partial(sac_networks.make_sac_networks, **sizes), sac_networks.make_inference_fn


class _Curve:
    """Turns what an agent reports into points.

    Training is what is left between two evaluations without compiling, and at most what the agent itself says, which includes compiling
    but not what the host does between its programs. The last evaluation of the agent is kept back, since `add` measures the same policy.
    """

    def __init__(self, clock: CompileClock, progress: Callable[[Point], None]) -> None:
        self._clock, self._progress = clock, progress
        self._begin = clock.now()
        self._last = Point(0, 0.0, 0.0, 0.0, 0.0)
        self._pending = False
        self._agents_seconds = 0.0

    def evaluated(self, env_steps: int, metrics: Mapping[str, Any]) -> None:
        """The callback of Brax's agents, called at the end of an evaluation, which follows training."""
        if self._pending:
            self._progress(self._last)
        now = self._clock.now()
        evaluation_begins = now - float(metrics["eval/epoch_eval_time"])
        compile_s = self._clock.seconds(self._begin, evaluation_begins)
        agents_seconds = float(metrics.get("training/walltime", 0.0))
        wall_s = min(evaluation_begins - self._begin - compile_s, agents_seconds - self._agents_seconds)
        self._last = Point(
            env_steps,
            self._last.wall_s + wall_s,
            self._last.compile_s + compile_s,
            float(metrics["eval/episode_reward"]),
            float(metrics["eval/avg_episode_length"]),
        )
        _require_finite(self._last)
        self._begin, self._agents_seconds, self._pending = now, agents_seconds, True

    def add(self, returns: jax.Array, lengths: jax.Array) -> None:
        """The last point, with the returns and lengths [N] of the final policy."""
        self._last = self._last._replace(episode_return=float(np.mean(returns)), length=float(np.mean(lengths)))
        _require_finite(self._last)
        self._progress(self._last)


def _require_finite(point: Point) -> None:
    if not math.isfinite(point.episode_return):
        raise FloatingPointError(f"the return is {point.episode_return} after {point.env_steps:,} environment steps")


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _play(episodes: Episodes, policy: _Policy, num_envs: int, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    return simulated.play(episodes, policy, key, num_envs)


@contextlib.contextmanager
def _device_put_replicated() -> Iterator[None]:
    """Give JAX the function back that Brax 0.14.2 calls and JAX 0.10 has no more (google/brax issue 671)."""
    if hasattr(jax, "device_put_replicated"):
        yield
        return

    def replicate(x: Any, devices: Sequence[Any]) -> Any:
        sharding = jax.sharding.NamedSharding(jax.sharding.Mesh(np.array(devices), "i"), jax.sharding.PartitionSpec("i"))
        return jax.tree.map(lambda leaf: jax.device_put(np.stack([leaf] * len(devices)), sharding), x)

    jax.device_put_replicated = replicate
    try:
        yield
    finally:
        del jax.device_put_replicated
