"""Thirteen tasks of both suites with one world model on a CPU: policies for each task and three seeds, beside everything they compare with.

for run in pendulum-swingup-7 cartpole-swingup-4 reacher-easy-4 cartpole-balance-10 finger-spin-10 cheetah-run-10 walker-stand-10; do
  python -m experiments.online --config=configs/online.py:${run%-*} --config.seed=${run##*-} --workdir=runs/replays/$run
done
python -m experiments.run --config=configs/multitask.py --workdir=runs/multitask

About an hour and a half on 2 cores, nearly half of it for MPPI, without the replays (six minutes each on one core): replays of online runs
on dm_control, scripted experts with noise and failures and random actions on Meta-World. `runs/replays` is named after a colon where it is
elsewhere. Scores: 0.66 for extracted policies, 0.47 for the data (RESULTS.md).
"""

from ml_collections import ConfigDict

from configs import quickstart, quickstart_data

REPLAYED = {
    "pendulum-swingup": 7,
    "cartpole-swingup": 4,
    "reacher-easy": 4,
    "cartpole-balance": 10,
    "finger-spin": 10,
    "cheetah-run": 10,
    "walker-stand": 10,
}  # task -> seed of its online run
SCRIPTED = ("mw-drawer-close", "mw-door-close", "mw-reach", "mw-button-press-topdown", "mw-window-open", "mw-handle-press-side")


def get_config(replays: str = "runs/replays") -> ConfigDict:
    """The quickstart's settings with a larger model, longer training, and all comparisons on the same model and data."""
    config = quickstart.get_config()
    config.tasks = ",".join((*REPLAYED, *SCRIPTED))
    config.collect.shipped = ""
    runs = {task: f"{replays}/{task}-{seed}/dataset" for task, seed in REPLAYED.items()}
    config.collect.sources = quickstart_data.sources(SCRIPTED, runs)
    config.model.update(task_dim=32, enc_hidden=(256,), mlp_hidden=(256, 256), latent_dim=192, normalise_obs=True)
    config.policy.update(num_critics=1, behaviour_weight=3.0, behaviour_kept=0.2, behaviour_filter="exponential")
    config.pretrain.update(steps=100_000, eval_every=10_000, checkpoint_every=1_000)
    config.extract.update(seeds=(0, 1, 2), steps=1_200, eval_every=600)
    config.generalist.update(**config.extract.to_dict())
    config.bc.update(steps=5_000)
    config.mppi.update(seeds=(0,), envs_per_batch=8)
    config.evaluate.methods = ("extracted", "generalist", "mppi", "bc", "data", "random")
    config.report.update(study="multitask", published="mt80")
    return config
