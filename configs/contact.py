"""Gradient noise by contact model: hopper and ant on every physics of Brax, and with softer and stiffer contacts.

`--config=configs/contact.py`, a study of experiments/gradients.py; by estimate 20 to 30 minutes on 2 cores, half of it compiling.
Others or some of its tasks after a colon: `--config=configs/contact.py:brax-hopper-mjx,brax-hopper-generalized-stiffness4`.
"""

from ml_collections import ConfigDict

from configs import gradients

BACKENDS = ("spring", "positional", "generalized", "mjx")
# The ant's time step is too long for stiffer contacts than Brax gives it.
STIFFNESS = {"brax-hopper-generalized": ("0.0625", "16"), "brax-ant-generalized": ("0.0625",)}
TASKS = (
    *(f"brax-{robot}-{backend}" for robot in ("hopper", "ant") for backend in BACKENDS),
    *(f"{task}-stiffness{factor}" for task, factors in STIFFNESS.items() for factor in factors),
)


def get_config(names: str = ",".join(TASKS)) -> ConfigDict:
    """Backends at the stiffness that Brax gives them, then other stiffness on `generalized`, whose contacts are MuJoCo's."""
    config = gradients.get_config(names)
    config.sweep.update(study="contact", processes=2)
    config.world_model.batch_size = 32
    config.single_task.num_envs = 128
    config.gradients.update(horizons=(1, 4, 16), samples=128, updates=1_500)
    return config
