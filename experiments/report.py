"""Show a run: a table in the terminal and one self-contained page, <workdir>/report.html; optionally publish its numbers.

python -m experiments.report --config=configs/quickstart.py --workdir=runs/quickstart

It may run while a stage does. With --config.report.published=mt30 (or mt80) the scores stand beside the published ones of PWM and TD-MPC2.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from ml_collections import ConfigDict

from experiments import launch


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """`publish` is a directory of results files: rows of the study `study` are written to `<publish>/<study>.jsonl`.

    `published` sets the scores, of the run and of the study, beside the published ones of PWM and TD-MPC2 on MT30 or MT80.
    """

    study: str = ""
    publish: str = ""
    published: Literal["", "mt30", "mt80"] = ""

    def __post_init__(self) -> None:
        if self.publish and not self.study:
            raise ValueError("publish needs a study: set report.study")


def main(config: ConfigDict, workdir: Path) -> None:
    """Write the page and the performance profile from whatever the workdir holds, and print the table."""
    from pwm_jax.report.episodes import group, rows_from_episodes
    from pwm_jax.report.figures import profile_figure, save
    from pwm_jax.report.page import write_page
    from pwm_jax.report.page_scores import profiles
    from pwm_jax.report.results import append_results
    from pwm_jax.report.tables import summary
    from pwm_jax.report.workdir import load_workdir

    settings = launch.to_dataclass(ReportConfig, config.report, where="config.report")
    if not any(path.name != ".lock" for path in workdir.iterdir()):
        raise launch.ConfigError(f"{workdir} holds no run: give the --workdir of one, or begin one with experiments.run")
    data = load_workdir(workdir)
    policy = "pwm" if any(episode.method == "pwm" for episode in data.episodes) else "extracted"
    scores = group(data.episodes, "score")
    path = write_page(workdir / "report.html", data, policy, settings.published)
    if curves := profiles(scores):
        save(profile_figure(curves), workdir / "figures" / "performance_profile")
    print(summary(group(data.episodes, "return"), scores, policy, data.decisions, settings.published))
    print(f"The page with curves and videos: {path}")
    if settings.publish:
        from pwm_jax import checkpoint

        stages = {"extracted": "extract", "generalist": "generalist", "mppi": "extract", "pwm": "online", "bc": "bc"}
        seconds = {method: data.timing.get(stage, 0.0) for method, stage in stages.items()}
        env_steps = {"pwm": checkpoint.latest_step(workdir / "online") or 0}
        stage = "evaluate" if "evaluate" in data.provenance else "online"
        rows = rows_from_episodes(
            settings.study, data.episodes, env_steps, seconds, data.provenance[stage], data.decisions, settings.published
        )
        append_results(settings.publish, rows, replace=True)


if __name__ == "__main__":
    launch.run(main, stage=None, config="configs/base.py", beside=True)
