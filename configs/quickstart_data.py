"""How the quickstart's shipped data was made: replays of short online runs on dm_control, noisy experts and random actions elsewhere.

online() { python -m experiments.online --config=configs/online.py:$1 --config.seed=10 --config.online.env_steps=$2 --workdir=runs/$1-10; }
online pendulum-swingup 56000
online cartpole-swingup 24000
online cartpole-balance 16000
python -m experiments.collect --config=configs/quickstart_data.py --workdir=runs/quickstart_data
python -m pwm_jax.data.compact runs/quickstart_data/dataset pwm_jax/data/quickstart.npz

At most 80 episodes are taken of each replay. The shipped file's replays are older than these commands: they come from an early state of the
online loop, at the commit and with the settings that the recipe in the file names, whose policies were poor. Replays of the present loop
are mostly successes within minutes; the quickstart is about data that is not.
"""

from ml_collections import ConfigDict

from configs import quickstart

REPLAYED = tuple(task for task in quickstart.TASKS if not task.startswith("mw-"))
SCRIPTED = tuple(task for task in quickstart.TASKS if task.startswith("mw-"))


def get_config(runs: str = "runs") -> ConfigDict:
    """`runs` is the folder of the online runs' working directories."""
    config = quickstart.get_config()
    config.seed = 10
    config.collect.shipped = ""
    sources = dict(
        expert=dict(kind="expert", episodes=120, tasks=SCRIPTED, noise_max=1.0, random_prob=0.1),
        random=dict(kind="random", episodes=80, tasks=SCRIPTED, correlation=0.7),
    )
    for task in REPLAYED:
        sources["replay_" + task.replace("-", "_")] = dict(kind="dataset", episodes=80, path=f"{runs}/{task}-10/dataset")
    config.collect.sources = ConfigDict(sources)
    return config
