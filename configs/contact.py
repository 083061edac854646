"""Gradient noise by contact model: hopper and ant on every physics of Brax, and with softer and stiffer contacts.

`--config=configs/contact.py`, a study of experiments/gradients.py; about an hour on 2 cores.
"""

from ml_collections import ConfigDict

from configs import gradients

BACKENDS = ("spring", "positional", "generalized", "mjx")
# The ant's time step is too long for stiffer contacts than Brax gives it.
STIFFNESS = {"brax-hopper-generalized": ("0.0625", "0.25", "4", "16"), "brax-ant-generalized": ("0.0625", "0.25")}


def get_config() -> ConfigDict:
    """Backends at the stiffness that Brax gives them, then other stiffness on `generalized`, whose contacts are MuJoCo's."""
    tasks = [f"brax-{robot}-{backend}" for robot in ("hopper", "ant") for backend in BACKENDS]
    tasks += [f"{task}-stiffness{factor}" for task, factors in STIFFNESS.items() for factor in factors]
    config = gradients.get_config(",".join(tasks))
    config.sweep.study = "contact"
    return config
