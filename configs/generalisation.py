"""Tasks that the world model knows little of: leave one out, then give back some of its data: `--config=configs/generalisation.py`.

A study of experiments/ablation.py on the quickstart's data. The tasks left out, after a colon, are kinds of new: cartpole-balance is
another goal of a known body, mw-drawer-close another object before a known arm, pendulum-swingup another body. Half an hour of one core
for each. The episodes that are kept are the same for every seed.
"""

from ml_collections import ConfigDict

from configs import online, quickstart, regularisers

SHARES = {"few": 0.01, "tenth": 0.1}  # of the task's episodes; few are two at least, which may be more than 1 %


def get_config(names: str = "cartpole-balance") -> ConfigDict:
    """Policies of the task left out: extracted from a model of the others and of shares of its data, or learnt in 8 episodes of it.

    Policies start from, and clone, as much of the task's data as the model has of it; where the model has not seen the task, the few.
    """
    tasks = names.split(",")
    unknown = [task for task in tasks if task not in quickstart.TASKS]
    if unknown:
        raise ValueError(f"{', '.join(unknown)} is none of the quickstart's tasks, which are {', '.join(quickstart.TASKS)}")
    variants: dict[str, dict[str, object]] = {}
    for task in tasks:
        acting: dict[str, object] = dict(extract=dict(tasks=(task,)), online=dict(tasks=(task,), noise_hold=online.NOISE_HOLD.get(task, 4)))
        unseen = dict(task=task, kept=SHARES["few"], model_tasks="others")
        variants[f"{task}-unseen"] = {**acting, "subset": unseen, "methods": ("extracted", "pwm")}
        for label, share in SHARES.items():
            variants[f"{task}-{label}"] = {**acting, "subset": dict(task=task, kept=share)}
        variants[f"{task}-all"] = acting  # with one model of everything, whatever the task
    base = regularisers.small(quickstart.TASKS)
    base.pretrain.steps = 7_200
    base.policy.batch_size = 64
    base.extract.steps = 600
    config = regularisers.study_of("generalisation", variants, base=base)
    config.online.update(online.get_config().online)
    config.online.update(
        env_steps=4_000, seed_steps=1_600, replay_capacity=4_000, eval_every=4_000, checkpoint_every=4_000, save_replay=False
    )
    return config
