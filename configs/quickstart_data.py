"""How the quickstart's shipped data was made: replays of short online runs on dm_control, noisy experts and random actions elsewhere.

for run in pendulum-swingup-7 pendulum-swingup-10 cartpole-swingup-10 cartpole-balance-10; do
  python -m experiments.online --config=configs/online.py:${run%-*} --config.seed=${run##*-} --workdir=runs/$run
done
python -m experiments.collect --config=configs/quickstart_data.py --workdir=runs/quickstart_data
python -m pwm_jax.data.compact runs/quickstart_data/dataset pwm_jax/data/quickstart.npz

The shipped replays of seed 10 are those of an earlier state of configs/online.py, without residual dynamics, whose policies were still
poor; their commands are in the dataset's recipe. The commands above record other replays today, most of them successes (see RESULTS.md).
"""

from ml_collections import ConfigDict

from configs import quickstart

RUNS = ("pendulum-swingup-7", "pendulum-swingup-10", "cartpole-swingup-10", "cartpole-balance-10")
SCRIPTED = tuple(task for task in quickstart.TASKS if task.startswith("mw-"))


def sources(scripted: tuple[str, ...], replays: dict[str, str]) -> ConfigDict:
    """Noisy experts and random actions for Meta-World's tasks `scripted`, and all episodes of the datasets `replays`, name -> path."""
    result = dict(
        expert=dict(kind="expert", episodes=120, tasks=scripted, noise_max=1.0, random_prob=0.1),
        random=dict(kind="random", episodes=80, tasks=scripted, correlation=0.7),
    )
    for name, path in replays.items():
        result["replay_" + name.replace("-", "_")] = dict(kind="dataset", episodes=200, path=path)
    return ConfigDict(result)


def get_config(runs: str = "runs") -> ConfigDict:
    """`runs` is the folder of the online runs' working directories."""
    config = quickstart.get_config()
    config.seed = 10
    config.collect.shipped = ""
    config.collect.sources = sources(SCRIPTED, {run: f"{runs}/{run}/dataset" for run in RUNS})
    return config
