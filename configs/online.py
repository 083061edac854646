"""The online loop on one dm_control or Meta-World task, sized for a 2-core CPU: `--config=configs/online.py:cartpole-swingup`.

A task set works too, with one policy for each: `--config=configs/online.py:pendulum-swingup,reacher-easy`.
"""

from ml_collections import ConfigDict

from configs import base

# How long exploration noise is kept at most, in steps. A pendulum swings slowly and hardly feels faster noise; the same noise spins the
# reacher's arm at speeds that its model does not learn.
NOISE_HOLD = {"pendulum-swingup": 32}


def get_config(tasks: str = "cartpole-swingup") -> ConfigDict:
    """Small networks, short imagination and many updates a step: what learns fastest per minute here; see RESULTS.md for the scores.

    The disagreement of two dynamics networks is a bonus, which finds rewards that noise alone does not meet, such as pendulum-swingup's.
    """
    config = base.get_config()
    config.tasks = tasks
    config.model.update(
        task_dim=0 if "," not in tasks else 16, enc_hidden=(128,), mlp_hidden=(128, 128), latent_dim=128,
        reward_space="raw", bin_low=-4.0, bin_high=4.0, residual_dynamics=True, model_ensemble=2,
    )  # fmt: skip
    config.world_model.update(
        horizon=5, batch_size=128, rho=0.9, consistency_coef=200.0, reward_coef=1.0, clip_norm=200.0, lr=1e-3, encoder_lr_scale=1.0,
    )  # fmt: skip
    config.policy.update(
        horizon=5, batch_size=128, actor_hidden=(128, 128), critic_hidden=(128, 128), num_critics=2,
        actor_lr=1e-3, critic_lr=1e-3, adam_b1=0.9, adam_b2=0.999, critic_passes=2, critic_minibatches=2, target_critic=0.2,
        entropy_coef=0.0005, reward_scale=0.1, min_return_scale=0.1, exploration_bonus=0.003, start_balance=0.2,
    )  # fmt: skip
    config.online.update(
        env_steps=64_000, envs_per_task=16, steps_per_epoch=10, wm_updates=32, policy_updates=20, seed_steps=4_000,
        noise_hold=NOISE_HOLD.get(tasks, 4), replay_capacity=64_000, eval_every=8_000, checkpoint_every=16_000, policies_per_batch=1,
    )  # fmt: skip
    config.evaluate.methods = ("pwm", "data", "random")
    return config
