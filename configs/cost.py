"""Seconds to a score, pre-training counted: extraction beside online learning of the same tasks: `--config=configs/cost.py`.

It reads runs that are made before, on one core each, an hour of one core in all:

    python -m experiments.run --config=configs/quickstart.py --workdir=runs/quickstart
    for task in pendulum-swingup cartpole-swingup; do for seed in 7 8; do
      python -m experiments.online --config=configs/online.py:$task --config.seed=$seed --workdir=runs/online/$task/$seed
    done; done
    for task in pendulum-swingup cartpole-swingup; do
      python -m experiments.compare --config=configs/compare.py:mjx-$task --config.compare.methods="('sac','ppo')" \
        --config.compare.seeds="(0,1)" --workdir=runs/swing_up
    done
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Two tasks of dm_control that the quickstart's model knows and that MJX has, too, where PPO and SAC can learn them."""
    config = ConfigDict()
    config.cost = ConfigDict(
        dict(
            offline="runs/quickstart",
            online="runs/online",
            simulated="runs/swing_up",
            tasks=("pendulum-swingup", "cartpole-swingup"),
            methods=("extracted", "pwm", "ppo", "sac"),
            publish="",
        )
    )
    return config
