"""A ball over a wall: gradient ascent on the true objective and on networks fitted to it: `--config=configs/ball_wall.py`.

About two minutes on one core.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The published script's sizes (32 units, 1,000 angles, batches of 56), five seeds."""
    config = ConfigDict()
    config.sweep = ConfigDict(dict(study="ball_wall", seeds=(0, 1, 2, 3, 4), per_batch=0, processes=1, measure=True, publish=""))
    config.through = ("truth", "relu", "none", "spectral", "simnorm")
    config.updates = (2_000, 20_000)  # of the fits; the first is about the published number
    config.fit = ConfigDict(dict(hidden=32, simnorm_dim=8, samples=1_000, batch_size=56, lr=2e-3))
    config.ascent = ConfigDict(dict(starts=64, steps=1_000, lr=0.01, policy_std=0.1, noises=64))
    return config
