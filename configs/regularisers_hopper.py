"""The regulariser study on a task with contacts, Brax's hopper: `--config=configs/regularisers_hopper.py`.

Its variants are those of configs/regularisers.py; half an hour of one core for the six of the default. The offline data is the replay of an
online run of another seed:

    python -m experiments.single_task --config=configs/single_task.py:brax-hopper-spring,pwm --config.single_task.save_replay=True \
      --config.single_task.env_steps=32_000 --config.single_task.seeds='(3,)' --workdir=runs/hopper_replay
"""

from ml_collections import ConfigDict

from configs import regularisers, single_task


def get_config(names: str = regularisers.DEFAULT) -> ConfigDict:
    """Each regulariser's model of the replay, and policies extracted from it; three seeds."""
    variants = {name: dict(model=changes) for name, changes in regularisers.VARIANTS.items()}
    config = regularisers.study_of("regularisers_hopper", variants, names, base=_hopper())
    config.model.residual_dynamics = False
    return config


def _hopper() -> ConfigDict:
    config = single_task.get_config("brax-hopper-spring,pwm")
    config.dataset = "runs/hopper_replay/dataset"
    config.policy.update(behaviour_weight=0.2, behaviour_filter="advantage", start_balance=0.2)
    config.pretrain.update(steps=2_500, log_every=250, eval_every=2_500, checkpoint_every=1_250, heldout_fraction=0.1)
    config.extract.update(steps=1_000, log_every=100, eval_every=1_000, eval_episodes=10, checkpoint_every=1_000, policies_per_batch=1)
    return config
