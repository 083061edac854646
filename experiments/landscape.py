"""Return over a 2-D slice of a policy's parameters, through its world model beside the simulator -> <workdir>/landscape.jsonl, figures.

python -m experiments.landscape --config=configs/landscape.py --config.run=runs/hopper --workdir=runs/landscape
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from experiments import launch, sweep

if TYPE_CHECKING:
    from pwm_jax.report.measurements import Setting, Value


@dataclasses.dataclass(frozen=True)
class LandscapeConfig:
    """A square of `points` x `points` policies around the learnt one, up to `extent` of its parameters' length away along each direction.

    Returns are of `horizon` steps from `samples` states, which the learnt policy reaches in `warm_up` steps.
    """

    points: int = 21
    extent: float = 0.5
    horizon: int = 16
    samples: int = 64
    warm_up: int = 100

    def __post_init__(self) -> None:
        if min(self.points, self.horizon, self.samples, self.warm_up) < 1 or self.extent <= 0:
            raise ValueError("landscape.points, horizon, samples and warm_up must be at least 1, and extent positive")


def main(config: ConfigDict, workdir: Path) -> None:
    """Measure the slice of each seed's policy; then show and draw."""
    from experiments import stages
    from pwm_jax.report import landscape

    settings = launch.to_dataclass(sweep.SweepConfig, config.sweep, where="config.sweep")
    launch.to_dataclass(LandscapeConfig, config.landscape, where="config.landscape")
    _, _, algorithm, task_set = stages.load_policies(Path(config.run) / "single_task" / f"seed_{settings.seeds[0]}")
    if algorithm.policy.dynamics != "model":
        raise launch.ConfigError(
            f"{config.run} holds policies of dynamics {algorithm.policy.dynamics}: a slice needs those of a world model"
        )
    rows = sweep.run(settings, sweep.grid(task=task_set.names), measure, config, workdir)
    landscape.save_figures(rows, workdir / "figures")
    print(landscape.summary(rows))


def measure(config: ConfigDict, points: Sequence[Setting], seeds: tuple[int, ...], directory: Path) -> list[sweep.Row]:
    """Two rows a seed, of the model and of the simulator; `landscape` is the square row by row."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from experiments import stages
    from pwm_jax import ops, simulated
    from pwm_jax.analysis import smoothness
    from pwm_jax.envs.simulators.make import make_simulator
    from pwm_jax.types import Params, SimStarts, Starts

    (point,) = points
    settings = launch.to_dataclass(LandscapeConfig, config.landscape, where="config.landscape")
    simulator, axis = make_simulator(str(point["task"])), jnp.linspace(-1.0, 1.0, settings.points)
    loaded = [stages.load_policies(Path(config.run) / "single_task" / f"seed_{seed}") for seed in seeds]
    algorithm = loaded[0][2]
    actors = [jax.tree.map(lambda leaf: leaf[0], policies.state.actor_params) for policies, *_ in loaded]
    rows_of = lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)  # noqa: E731

    def slices(row: tuple[Params, Params, jax.Array]) -> dict[str, jax.Array]:
        actor_params, wm_params, seed = row
        keys = jax.random.split(jax.random.key(seed), 4)
        task_id = jnp.zeros(settings.samples, jnp.int32)
        begin = SimStarts(simulator=simulator, state=simulator.reset(keys[0], settings.samples), task_id=task_id, key=keys[1])
        silent = jnp.zeros((settings.warm_up, settings.samples, algorithm.model.action_dim))
        reached = simulated.unroll(actor_params, wm_params, begin, silent, algorithm)[1].state
        noise = jax.random.normal(keys[2], (settings.horizon, settings.samples, algorithm.model.action_dim))
        length = settings.extent * optax.tree.norm(actor_params)
        directions = jax.tree.map(lambda leaf: length * leaf, smoothness.random_directions(actor_params, keys[3], 2))
        starts: dict[str, Starts | SimStarts] = {
            "model": Starts(reached.obs, noise[0], task_id),
            "simulator": dataclasses.replace(begin, state=reached),
        }
        return {
            through: smoothness.landscape(actor_params, wm_params, begun, noise, directions, axis, algorithm)
            for through, begun in starts.items()
        }

    stacked = rows_of(actors), rows_of([wm_params for _, wm_params, *_ in loaded]), jnp.array(seeds, jnp.uint32)
    found = jax.device_get(jax.jit(lambda stacked: ops.map_rows(slices, stacked, config.sweep.per_batch))(stacked))
    rows: list[sweep.Row] = []
    for index, seed in enumerate(seeds):
        for through, squares in found.items():
            square = np.asarray(squares[index])
            values: dict[str, Value] = {
                "landscape": [float(f"{value:.5g}") for value in square.ravel()],
                "roughness": smoothness.roughness(square),
                "extent": settings.extent,
            }
            rows.append(({**point, "through": through, "seed": seed, "horizon": settings.horizon}, values))
    return rows


if __name__ == "__main__":
    launch.run(main, stage="landscape", config="configs/landscape.py")
