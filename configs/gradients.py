"""Noise of policy gradients through simulators and world models, over horizons and actions: `--config=configs/gradients.py`.

Tasks after a colon, those whose simulator is not differentiated in brackets: `configs/gradients.py:brax-hopper-spring,[muscle-legs]`.
About 75 minutes on one core for the whole ladder, two to five a task of Brax's; compiling gradients of MJX's bodies is a half of it.
"""

from ml_collections import ConfigDict

from configs import single_task

LADDER = (
    "brax-hopper-spring",
    "brax-ant-spring",
    "brax-humanoid-spring",
    "mjx-quadruped",
    "mjx-humanoid",
    "[mjx-humanoid-cmu-mujoco]",
    "[muscle-legs]",
    "[muscle-arms]",
    "[muscle-legs-torso]",
    "[muscle-body]",
)


def get_config(names: str = ",".join(LADDER)) -> ConfigDict:
    """A world model for each task, seed and entry of `models`, trained on random actions; gradients of a fresh policy through each."""
    config = single_task.get_config()
    config.policy.update(dynamics="model", detach_actor_input=False, reward_scale=1.0)
    config.single_task.update(num_envs=256, seed_steps=20_480, env_steps=20_480, replay_capacity=20_480)
    tasks = names.split(",")
    config.sweep = ConfigDict(dict(study="gradient_ladder", seeds=(0, 1, 2), per_batch=1, processes=1, measure=True, publish=""))
    config.gradients = ConfigDict(
        dict(
            tasks=tuple(task.strip("[]") for task in tasks),
            undifferentiated=tuple(task.strip("[]") for task in tasks if task.startswith("[")),
            horizons=(1, 2, 4, 8, 16),
            samples=256,
            chunk=16,
            updates=3_000,
        )
    )
    # What each model has instead of `model` and `world_model`, by the name that it is shown under.
    config.models = ConfigDict(dict(simnorm=dict(model=dict(regulariser="simnorm"))))
    return config
