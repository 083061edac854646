"""Policies of single tasks against one of all, as the number of tasks grows: `--config=configs/generalist_study.py`.

A study of experiments/ablation.py on the quickstart's tasks and data: in one world model of all five tasks, policies of the first 1, 2, 3
and of all. One seed takes about 20 minutes on 2 cores.
"""

from ml_collections import ConfigDict

from configs import quickstart, regularisers

COUNTS = (1, 2, 3, 5)


def get_config() -> ConfigDict:
    """For each number of tasks: extracted policies, and a generalist, which imagines as many trajectories as they do together."""
    variants: dict[str, dict[str, dict[str, object]]] = {}
    for count in COUNTS:
        tasks = quickstart.TASKS[:count]
        variants[f"{count}-tasks"] = dict(extract=dict(tasks=tasks), generalist=dict(tasks=tasks))
    return regularisers.study_of("generalist", variants, ",".join(variants), ("extracted", "generalist"))
