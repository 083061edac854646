"""Chaos without contact: gradients through a double pendulum and through models of it: `--config=configs/double_pendulum.py`.

A study of experiments/gradients.py; about five minutes on one core.
"""

from ml_collections import ConfigDict

from configs import gradients


def get_config() -> ConfigDict:
    """Models trained on windows of 3 and of 16 steps, as in the paper's figure 3; horizons up to 50 steps (2.5 s)."""
    config = gradients.get_config("toy-double-pendulum")
    config.model.termination_head = False  # no episode terminates
    config.gradients.update(horizons=(1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 25, 30, 35, 40, 45, 50))
    config.sweep.study = "double_pendulum"
    config.models = ConfigDict({f"H={horizon}": dict(world_model=dict(horizon=horizon)) for horizon in (3, 16)})
    return config
