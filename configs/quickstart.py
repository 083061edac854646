"""The main job on five small tasks of four embodiments from both suites, for a bare 2-core CPU: about seven minutes.

The offline data is shipped (`pwm_jax/data/quickstart.npz`); its recipe is in the file and on the page that the job makes.
"""

from ml_collections import ConfigDict

from configs import base

TASKS = ("pendulum-swingup", "cartpole-swingup", "reacher-easy", "mw-drawer-close", "mw-button-press-topdown")


def get_config() -> ConfigDict:
    """One multi-task world model, a policy for each task and two seeds."""
    config = base.get_config()
    config.tasks = ",".join(TASKS)
    config.collect.shipped = "pwm_jax/data/quickstart.npz"
    config.model.update(
        task_dim=16, enc_hidden=(192,), mlp_hidden=(192, 192), latent_dim=128, reward_space="raw", bin_low=-4.0, bin_high=4.0,
    )  # fmt: skip
    config.world_model.update(horizon=5, batch_size=256, rho=0.9, reward_coef=1.0, lr=1e-3, encoder_lr_scale=1.0)
    config.policy.update(
        horizon=8, batch_size=128, detach_actor_input=False, actor_hidden=(128, 128), critic_hidden=(128, 128), num_critics=3,
        actor_lr=1e-3, critic_lr=1e-3, adam_b1=0.9, adam_b2=0.999, critic_passes=2, critic_minibatches=4, target_critic=0.05,
        entropy_coef=0.003, start_balance=0.3, behaviour_weight=0.1, behaviour_filter="advantage",
    )  # fmt: skip
    config.pretrain.update(steps=5_000, log_every=100, eval_every=1_000, checkpoint_every=1_000, heldout_fraction=0.1, balance="tasks")
    config.extract.update(
        seeds=(0, 1), steps=1_200, log_every=100, eval_every=400, eval_episodes=3, checkpoint_every=400, policies_per_batch=1
    )
    config.bc.update(steps=3_000, hidden=(128, 128))
    config.report.study = "quickstart"
    return config
