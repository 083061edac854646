"""How the quickstart's shipped data was made: replays of short online runs on dm_control, noisy experts and random actions elsewhere.

for task in pendulum-swingup cartpole-swingup cartpole-balance; do
  python -m experiments.online --config=configs/online.py:$task --config.seed=10 --workdir=runs/$task-10
done
python -m experiments.collect --config=configs/quickstart_data.py --workdir=runs/quickstart_data
python -m pwm_jax.data.compact runs/quickstart_data/dataset pwm_jax/data/quickstart.npz

The shipped replays are those of an earlier state of configs/online.py, without residual dynamics, whose policies were still poor; their
commands are in the dataset's recipe. The commands above record other replays today, most of them successes (see RESULTS.md).
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
        sources["replay_" + task.replace("-", "_")] = dict(kind="dataset", episodes=200, path=f"{runs}/{task}-10/dataset")
    config.collect.sources = ConfigDict(sources)
    return config
