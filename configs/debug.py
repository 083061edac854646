"""Every stage in about a minute, on one small task: what the end-to-end tests run and what to start a change with."""

from ml_collections import ConfigDict

from configs import quickstart


def get_config() -> ConfigDict:
    """The quickstart's settings with tiny sizes, on data collected in the run."""
    config = quickstart.get_config()
    config.seed = 0
    config.tasks = "pendulum-swingup,mw-reach"
    config.collect.update(shipped="", episodes_per_shard=4, envs_per_task=4)
    config.collect.sources = ConfigDict(
        dict(
            random=dict(kind="random", episodes=8, correlation=0.9),
            expert=dict(kind="expert", episodes=4, tasks=("mw-reach",), noise_max=0.5),
        )
    )
    config.model.update(task_dim=4, enc_hidden=(32,), mlp_hidden=(32, 32), latent_dim=32)
    config.world_model.batch_size = 32
    config.policy.update(batch_size=16, actor_hidden=(32,), critic_hidden=(32,))
    config.pretrain.update(steps=40, log_every=10, eval_every=20, checkpoint_every=20)
    config.extract.update(seeds=(0, 1), steps=20, log_every=10, eval_every=20, eval_episodes=1, checkpoint_every=10)
    config.generalist.update(config.extract)
    config.mppi.update(seeds=(0,), iterations=2, num_samples=16, num_prior=4, num_elites=4)
    config.bc.update(steps=40, log_every=20, hidden=(32,))
    config.evaluate.update(methods=("extracted", "generalist", "mppi", "bc", "data", "random"), episodes=2, picture=96)
    config.online.update(
        env_steps=4_000, envs_per_task=2, steps_per_epoch=10, wm_updates=2, policy_updates=2, seed_steps=400,
        replay_capacity=4_000, eval_every=2_000, eval_episodes=1, checkpoint_every=2_000, policies_per_batch=1,
    )  # fmt: skip
    config.report.study = ""
    return config
