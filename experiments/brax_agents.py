"""PPO or SAC of `brax.training` on one task of a simulator, seeds in sequence -> <workdir>/curves.jsonl, <workdir>/brax_agents.

python -m experiments.brax_agents --config=configs/brax_agents.py:brax-hopper-spring,ppo --workdir=runs/hopper_ppo
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from experiments import launch

if TYPE_CHECKING:
    from jax import Array

    from pwm_jax.baselines.brax_agents import AgentConfig


def settings_of(config: ConfigDict) -> AgentConfig:
    """The agent's settings as a dataclass. Raises ConfigError where `config.method` is neither ppo nor sac, or a field is wrong."""
    from pwm_jax.baselines.brax_agents import PPOConfig, SACConfig

    agents: dict[str, type[AgentConfig]] = {"ppo": PPOConfig, "sac": SACConfig}
    if config.method not in agents:
        raise launch.ConfigError(f"config.method must be ppo or sac, not {config.method!r}")
    return launch.to_dataclass(agents[config.method], config.agent, where="config.agent")


def main(config: ConfigDict, workdir: Path) -> None:
    """Train every seed of `config.agent.seeds` that is not finished; one that was stopped begins anew and its rows are replaced."""
    from experiments import stages
    from pwm_jax import checkpoint
    from pwm_jax.baselines import brax_agents
    from pwm_jax.envs.simulators import make
    from pwm_jax.report.curves import CurveRow, append_curve, read_curves, write_curves
    from pwm_jax.report.progress import Progress

    settings, path = settings_of(config), workdir / "curves.jsonl"
    done = stages.finished_seeds(workdir, "brax_agents", settings.env_steps)
    missing = [seed for seed in settings.seeds if seed not in done]
    if not missing:
        return
    episodes = make.make_simulator(config.tasks)
    write_curves(path, [row for row in read_curves(path) if row.seed in done])
    for seed in missing:
        with Progress(settings.env_steps, f"{config.method}, seed {seed}", unit="step") as progress:
            shown = 0

            def record(point: brax_agents.Point, seed: int = seed, progress: Progress = progress) -> None:
                nonlocal shown
                append_curve(path, CurveRow(config.tasks, config.method, seed, *point, settings.eval_envs))
                progress.update(point.env_steps - shown, episode_return=point.episode_return)
                shown = point.env_steps

            acting = brax_agents.train(episodes, settings, seed, record)
        metadata = {"method": config.method, "task": config.tasks, "agent": dataclasses.asdict(settings)}
        checkpoint.save(workdir / "brax_agents" / f"seed_{seed}", settings.env_steps, acting, metadata, keep=1)


def load_policies(workdir: Path) -> tuple[str, str, list[int], list[Callable[[Array, Array], Array]]]:
    """Method, task, seeds and policies, obs [N, O], key -> actions [N, A], of a run's finished seeds.

    Raises CheckpointError where there are none.
    """
    from pwm_jax import checkpoint
    from pwm_jax.baselines.brax_agents import acting_like, as_policy
    from pwm_jax.envs.simulators.catalog import simulator_facts

    paths = sorted((workdir / "brax_agents").glob("seed_*")) or [workdir / "brax_agents"]
    policies = []
    for path in paths:
        metadata = checkpoint.load_metadata(path)
        config = ConfigDict({"method": metadata["method"], "agent": metadata["agent"]})
        settings, facts = settings_of(config), simulator_facts(metadata["task"])
        sizes = facts.obs_dim, facts.action_dim
        acting, _ = checkpoint.restore(path, acting_like(settings, *sizes))
        policies.append(as_policy(acting, settings, *sizes))
    return metadata["method"], metadata["task"], [int(path.name.removeprefix("seed_")) for path in paths], policies


if __name__ == "__main__":
    launch.run(main, stage="brax_agents", config="configs/brax_agents.py")
