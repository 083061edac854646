"""Policies of single tasks against one of all, as the number of tasks grows: `--config=configs/generalist_study.py`.

A study of experiments/ablation.py on the quickstart's tasks and data: in one world model of all five tasks, policies of the first 1, 2, 3
and of all. One seed takes about 20 minutes on 2 cores.
"""

from ml_collections import ConfigDict

from configs import quickstart

COUNTS = (1, 2, 3, 5)


def get_config() -> ConfigDict:
    """For each number of tasks: extracted policies, and a generalist, which imagines as many trajectories as they do together."""
    config = quickstart.get_config()
    config.sweep = ConfigDict(dict(study="generalist", seeds=(0, 1, 2), processes=1, measure=True, publish=""))
    config.measure = ConfigDict(dict(windows=16, samples=128, chunk=32, horizon=16, directions=16, length=0.1))
    config.methods = ("extracted", "generalist")
    config.variants = ConfigDict({f"{count}-tasks": dict(extract=dict(tasks=quickstart.TASKS[:count])) for count in COUNTS})
    for name, variant in config.variants.items():
        variant.generalist = dict(tasks=quickstart.TASKS[: int(name.split("-")[0])])
    return config
