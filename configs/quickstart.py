"""The main job on five small tasks of three embodiments from both suites, for a bare 2-core CPU: about five minutes.

The offline data is shipped (`pwm_jax/data/quickstart.npz`); its recipe is in the file and on the page that the job makes. Settings were
chosen with other seeds and other start states than those below.
"""

from ml_collections import ConfigDict

from configs import base

TASKS = ("pendulum-swingup", "cartpole-swingup", "cartpole-balance", "mw-drawer-close", "mw-door-close")


def get_config() -> ConfigDict:
    """One multi-task world model, a policy for each task and two seeds."""
    config = base.get_config()
    config.seed = 3
    config.tasks = ",".join(TASKS)
    config.collect.shipped = "pwm_jax/data/quickstart.npz"
    config.model.update(
        task_dim=16, enc_hidden=(192,), mlp_hidden=(192, 192), latent_dim=128, reward_space="symlog", bin_low=-4.0, bin_high=4.0,
        residual_dynamics=True,
    )  # fmt: skip
    config.world_model.update(
        horizon=4, batch_size=256, rho=0.9, consistency_coef=200.0, reward_coef=1.0, clip_norm=200.0, lr=1e-3, encoder_lr_scale=1.0,
    )  # fmt: skip
    config.policy.update(
        horizon=5, batch_size=128, actor_hidden=(128, 128), critic_hidden=(128, 128), num_critics=2,
        actor_lr=1e-3, critic_lr=1e-3, adam_b1=0.9, adam_b2=0.999, critic_passes=2, critic_minibatches=2, target_critic=0.2,
        entropy_coef=0.003, reward_scale=0.1, start_balance=0.2, behaviour_weight=0.2, behaviour_filter="advantage",
        task_discounts=True,
    )  # fmt: skip
    config.pretrain.update(steps=9_000, log_every=100, eval_every=1_000, checkpoint_every=1_000, heldout_fraction=0.1, balance="tasks")
    config.extract.update(
        seeds=(7, 8), steps=1_400, log_every=100, eval_every=200, eval_episodes=3, checkpoint_every=200, policies_per_batch=1
    )
    config.generalist.update(config.extract)
    config.bc.update(steps=3_000, hidden=(128, 128))
    config.evaluate.seed = 5_000
    config.report.study = "quickstart"
    return config
