"""PWM, SHAC and decoupled gradients beside Brax's PPO and SAC on tasks of simulators: `--config=configs/compare.py`.

Another list of tasks: `--config=configs/compare.py:brax-hopper-spring,brax-ant-spring`.
"""

from ml_collections import ConfigDict


def get_config(tasks: str = "brax-hopper-spring") -> ConfigDict:
    """All methods on `tasks`, three seeds each, at the settings of configs/single_task.py and configs/brax_agents.py.

    `changes` replaces some of these settings by method: dict(ppo=dict(agent=dict(num_envs=512))).
    """
    config = ConfigDict()
    config.compare = ConfigDict(
        dict(
            tasks=tuple(tasks.split(",")),
            methods=("pwm", "shac", "decoupled", "ppo", "sac"),
            seeds=(0, 1, 2),
            study="single_task",
            processes=1,
            train=True,
            publish="",
        )
    )
    config.changes = ConfigDict()
    return config
