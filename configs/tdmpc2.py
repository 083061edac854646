"""Pre-training as TD-MPC2's, with Q heads and policy prior: what the paper's multi-task policies were extracted from.

python -m experiments.pretrain --config=configs/tdmpc2.py:48M-mt30 --config.dataset=path/to/mt30 --workdir=runs/mt30

A preset after a colon is one of configs/base.py's. The paper's models: 48M-mt30 after 4.9 M gradient steps, 48M-mt80 after 2.7 M, about two
weeks on one consumer GPU. The stages after it, and their memory: docs/published_runs.md.
"""

from ml_collections import ConfigDict

from configs import base

NUM_Q = {"1M": 2, "5M": 5, "19M": 5, "48M": 5, "317M": 8}


def get_config(preset: str = "5M") -> ConfigDict:
    """The settings of `configs/base.py` with TD-MPC2's number of Q heads for the preset's size."""
    config = base.get_config(preset)
    config.model.num_q = NUM_Q[preset.split("-")[0]]
    return config
