"""Gradient noise by contact model: hopper and ant on every physics of Brax, and with softer and stiffer contacts.

`--config=configs/contact.py`, a study of experiments/gradients.py: half an hour on 2 cores, much of it compiling. Other stiffness than
Brax's is a task after a colon, on `generalized`, whose contacts are MuJoCo's; the hopper's are in the published rows, ten minutes more:
`--config=configs/contact.py:brax-hopper-generalized-stiffness0.0625,brax-hopper-generalized-stiffness16,brax-ant-generalized-stiffness0.0625`
(the ant's time step is too long for stiffer contacts than its own).
"""

from ml_collections import ConfigDict

from configs import gradients

TASKS = tuple(f"brax-{robot}-{backend}" for robot in ("hopper", "ant") for backend in ("spring", "positional", "generalized", "mjx"))


def get_config(names: str = ",".join(TASKS)) -> ConfigDict:
    """Small batches and short horizons; three seeds."""
    config = gradients.get_config(names)
    config.sweep.update(study="contact", processes=2)
    config.world_model.batch_size = 32
    config.single_task.num_envs = 128
    config.gradients.update(horizons=(1, 4, 16), samples=128, updates=1_500)
    return config
