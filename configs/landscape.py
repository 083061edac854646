"""Return over a slice of policy parameters, in the simulator beside the model: `--config=configs/landscape.py --config.run=runs/hopper`.

About two minutes on 2 cores for a policy of Brax's hopper.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The policies of a finished run of experiments/single_task.py, method pwm, around which two random directions span the slice."""
    config = ConfigDict()
    config.run = "runs/hopper"
    config.sweep = ConfigDict(dict(study="landscape", seeds=(0,), per_batch=1, processes=1, measure=True, publish=""))
    config.landscape = ConfigDict(dict(points=21, extent=0.5, horizon=16, samples=64, warm_up=100))
    return config
