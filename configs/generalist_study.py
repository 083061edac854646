"""Policies of single tasks against one of all, as the number of tasks grows: `--config=configs/generalist_study.py`.

A study of experiments/ablation.py on the quickstart's tasks and data: in one world model of all five tasks, policies of the first 1, 2 and
of all. Other counts, of at most five, after a colon: `--config=configs/generalist_study.py:1,3,5`. About half an hour on 2 cores.
"""

from ml_collections import ConfigDict

from configs import quickstart, regularisers


def get_config(counts: str = "1,2,5") -> ConfigDict:
    """For each number of tasks: extracted policies, and a generalist, which imagines as many trajectories as they do together."""
    variants: dict[str, dict[str, dict[str, object]]] = {}
    for count in counts.split(","):
        if not 1 <= int(count) <= len(quickstart.TASKS):
            raise ValueError(f"counts of tasks lie between 1 and {len(quickstart.TASKS)}, not {count}")
        tasks = quickstart.TASKS[: int(count)]
        variants[f"{count}-tasks"] = dict(extract=dict(tasks=tasks), generalist=dict(tasks=tasks))
    base = regularisers.small(quickstart.TASKS)
    base.pretrain.steps = 9_000
    base.policy.batch_size = 64
    base.extract.steps = base.generalist.steps = 600
    return regularisers.study_of("generalist", variants, ",".join(variants), ("extracted", "generalist"), base)
