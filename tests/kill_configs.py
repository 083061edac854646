"""Configurations of runs to kill, seconds long and with many checkpoints: `--config=tests/kill_configs.py:pretrain`."""

from ml_collections import ConfigDict

from configs import debug


def get_config(stage: str = "pretrain") -> ConfigDict:
    """The debug configuration with the sizes of a stage, smaller networks and one worker process."""
    config = debug.get_config()
    config.num_workers = 1
    config.model.update(enc_hidden=(), mlp_hidden=(), latent_dim=16)
    config.policy.update(horizon=3, batch_size=8, actor_hidden=(8,), critic_hidden=(8,), num_critics=1)
    config.world_model.update(horizon=3, batch_size=8)
    config.collect.update(envs_per_task=2, episodes_per_shard=2)
    config.collect.sources.random.update(episodes=30)
    config.pretrain.update(steps=400, log_every=5, eval_every=100, checkpoint_every=10)
    config.extract.update(seeds=(0,), steps=200, log_every=5, eval_every=100, checkpoint_every=5)
    # Episodes of 100 steps alone: one checkpoint after each.
    config.online.update(env_steps=1_500, envs_per_task=1, seed_steps=200, replay_capacity=1_500, eval_every=500, checkpoint_every=100)
    if stage == "online":
        config.tasks = "mw-reach"
    if stage == "sweep":
        config.update(tasks="pendulum-swingup", dataset="run/dataset")
        config.pretrain.update(steps=100, eval_every=100)
        config.extract.update(steps=50, eval_every=50)
        config.evaluate.episodes = 1
        config.sweep = ConfigDict(dict(study="killed", seeds=(0,), per_batch=1, processes=2, measure=True, publish=""))
        config.measure = ConfigDict(dict(windows=2, samples=4, chunk=2, horizon=3, directions=2, length=0.1))
        config.methods = ("extracted",)
        short, relu = dict(policy=dict(horizon=2)), dict(model=dict(regulariser="relu", residual_dynamics=False))
        config.variants = ConfigDict(dict(simnorm={}, short=short, relu=relu))
    return config
