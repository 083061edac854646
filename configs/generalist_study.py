"""Policies of single tasks against one of all, as the number of tasks grows: `--config=configs/generalist_study.py`.

A study of experiments/ablation.py on the quickstart's tasks and data: in one world model of all five tasks, policies of the first 1, 2 and
of all. About 15 minutes on 2 cores. Other counts after a colon, and other data by `--config.tasks` and `--config.dataset`.
"""

from ml_collections import ConfigDict

from configs import quickstart, regularisers


def get_config(counts: str = "1,2,5") -> ConfigDict:
    """For each number of tasks: extracted policies, and a generalist, which imagines as many trajectories as they do together."""
    variants: dict[str, dict[str, dict[str, object]]] = {}
    for count in counts.split(","):
        tasks = quickstart.TASKS[: int(count)]
        variants[f"{count}-tasks"] = dict(extract=dict(tasks=tasks), generalist=dict(tasks=tasks))
    base = regularisers.small(quickstart.TASKS)
    return regularisers.study_of("generalist", variants, ",".join(variants), ("extracted", "generalist"), base)
