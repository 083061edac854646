"""The online loop of one task in a pure-JAX simulator, on the device: `--config=configs/single_task.py:brax-hopper-spring,pwm`.

After the colon: a simulated task (docs/environments.md; the backend may be its end) and a method, `pwm`, `shac` or `decoupled`.
"""

from ml_collections import ConfigDict

from configs import base

DYNAMICS = {"pwm": "model", "shac": "simulator", "decoupled": "decoupled"}
# What differs by robot, whatever the physics.
ROBOTS: dict[str, dict[str, dict]] = {
    "ant": dict(shac=dict(single_task=dict(env_steps=1_000_000))),
    # With 0.99, to dive forwards and fall after 170 steps is worth twice as much as to stand, and most runs stay at that.
    "hopper": {method: dict(policy=dict(gamma=0.997)) for method in DYNAMICS},
    # A step of `generalized`, and of its gradient, takes several times as long.
    "hopper-generalized": dict(shac=dict(single_task=dict(env_steps=500_000, eval_every=50_000))),
}


def get_config(preset: str = "brax-hopper-spring,pwm") -> ConfigDict:
    """Networks and rhythm for a 2-core CPU: few environments, many updates a step where there is a model."""
    task, _, method = preset.partition(",")
    if method not in DYNAMICS:
        raise ValueError(f"{preset!r} must be a task and a method, as in brax-hopper-spring,pwm; methods are {', '.join(DYNAMICS)}")
    config = base.get_config()
    config.tasks = task
    config.model.update(
        task_dim=0, enc_hidden=(128,), mlp_hidden=(128, 128), latent_dim=128, reward_space="raw", bin_low=-4.0, bin_high=4.0,
        residual_dynamics=True, termination_head=True, normalise_obs=True,
    )  # fmt: skip
    config.world_model.update(
        horizon=16, batch_size=80, rho=0.95, consistency_coef=200.0, reward_coef=1.0, clip_norm=200.0, lr=1e-3, encoder_lr_scale=1.0,
    )  # fmt: skip
    config.policy.update(
        dynamics=DYNAMICS[method], horizon=5, batch_size=128, actor_hidden=(128, 128), critic_hidden=(128, 128), num_critics=2,
        actor_lr=1e-3, critic_lr=1e-3, adam_b1=0.9, adam_b2=0.999, critic_passes=2, critic_minibatches=2, target_critic=0.2,
        entropy_coef=0.0005, reward_scale=0.1, min_return_scale=0.1,
    )  # fmt: skip
    config.single_task.update(
        env_steps=64_000, num_envs=16, steps_per_epoch=10, wm_updates=32, policy_updates=20, seed_steps=4_000, eval_every=4_000,
        replay_capacity=128_000, checkpoint_every=16_000,
    )  # fmt: skip
    if method != "pwm":
        # SHAC's (arXiv 2204.07137) optimiser and critic; a policy update is 1,024 steps of the simulator.
        config.policy.update(
            horizon=16, batch_size=64, detach_actor_input=False, adam_b1=0.7, adam_b2=0.95, num_critics=1, critic_passes=16,
            critic_minibatches=4,
        )  # fmt: skip
        config.single_task.update(env_steps=2_000_000, num_envs=64, policy_updates=1, wm_updates=0, eval_every=100_000)
    if method == "decoupled":
        config.single_task.update(env_steps=1_000_000, wm_updates=32, eval_every=50_000)
    for robot, changes in ROBOTS.items():
        if f"-{robot}" in task:
            config.update(changes.get(method, {}))
    return config
