"""A ball over a wall: what gradient ascent finds through the truth and through fitted networks -> <workdir>/ball_wall.jsonl, figures.

python -m experiments.ball_wall --config=configs/ball_wall.py --workdir=runs/ball_wall
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from experiments import launch, sweep

if TYPE_CHECKING:
    from pwm_jax.report.measurements import Setting, Value

TRUTH = "truth"
DRAWN_EVERY = 4  # angles of the grid between two that the rows keep for the figure


def main(config: ConfigDict, workdir: Path) -> None:
    """Fit and climb, for each entry of `config.through`; then show and draw."""
    from pwm_jax.report import ball_wall

    settings = launch.to_dataclass(sweep.SweepConfig, config.sweep, where="config.sweep")
    _check(config)
    points = [point for point in sweep.grid(through=config.through, updates=config.updates) if point["through"] != TRUTH]
    if TRUTH in config.through:
        points.insert(0, {"through": TRUTH, "updates": 0})
    rows = sweep.run(settings, points, measure, config, workdir)
    ball_wall.save_figures(rows, workdir / "figures")
    print(ball_wall.summary(rows))


def _check(config: ConfigDict) -> None:
    from pwm_jax.analysis.ball_wall import AscentConfig, FitConfig, Regulariser

    for updates in config.updates:
        launch.to_dataclass(FitConfig, config.fit, where="config.fit", updates=updates)
    launch.to_dataclass(AscentConfig, config.ascent, where="config.ascent")
    known = (TRUTH, *Regulariser.__args__)  # type: ignore[attr-defined]
    unknown = [name for name in config.through if name not in known]
    if unknown or not config.through:
        raise launch.ConfigError(f"config.through must be some of {', '.join(known)}, not {tuple(config.through)}")


def measure(config: ConfigDict, points: Sequence[Setting], seeds: tuple[int, ...], directory: Path) -> list[sweep.Row]:
    """One row a seed; `fitted`, `slope`, `found` and `objective` are curves for the figure."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from pwm_jax.analysis import ball_wall

    (point,) = points
    fit = launch.to_dataclass(ball_wall.FitConfig, config.fit, where="config.fit", updates=point["updates"])
    ascent = launch.to_dataclass(ball_wall.AscentConfig, config.ascent, where="config.ascent")
    regulariser = None if point["through"] == TRUTH else point["through"]
    result = jax.device_get(ball_wall.measure(regulariser, jnp.array(seeds, jnp.uint32), fit, ascent, config.sweep.per_batch))
    truth = np.asarray(ball_wall.distance(ball_wall.grid(fit.samples)))
    best = float(ball_wall.noisy(ball_wall.grid(10_001), ascent.policy_std).max())
    rows: list[sweep.Row] = []
    for index, seed in enumerate(seeds):
        reached = result.noisy_objective[index]
        values: dict[str, Value] = dict(
            rmse=float(np.sqrt(np.mean(np.square(result.fitted[index] - truth)))),
            steepest=float(np.abs(result.slope[index]).max()),
            objective_mean=float(reached.mean()),
            objective_best=float(reached.max()),
            near_optimum=float(np.mean(reached >= 0.95 * best)),
            optimum=best,
            fitted=_short(result.fitted[index][::DRAWN_EVERY]),
            slope=_short(result.slope[index][::DRAWN_EVERY]),
            objective=_short(reached),
        )
        rows.append(({**point, "seed": seed}, values))
    return rows


def _short(values: object) -> list[float]:
    """Five digits, enough to draw."""
    import numpy as np

    return [float(f"{value:.5g}") for value in np.asarray(values)]


if __name__ == "__main__":
    launch.run(main, stage="ball_wall", config="configs/ball_wall.py")
