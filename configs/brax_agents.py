"""Brax's own PPO or SAC on a task of a simulator, sized for a 2-core CPU: `--config=configs/brax_agents.py:brax-hopper-spring,ppo`.

Values are Brax's published ones for locomotion where a CPU can afford them; environments, batches and networks are smaller.
"""

from ml_collections import ConfigDict

COMMON = dict(seeds=(0,), eval_envs=32, eval_seed=1_000, discounting=0.99, normalize_observations=True)
METHODS = {
    "ppo": dict(
        env_steps=3_000_000,
        eval_every=150_000,
        num_envs=256,
        learning_rate=5e-4,
        batch_size=128,
        reward_scaling=0.1,
        unroll_length=20,
        num_minibatches=16,
        num_updates_per_batch=8,
        entropy_cost=1e-3,
        gae_lambda=0.95,
        clipping_epsilon=0.3,
        policy_hidden_layer_sizes=(64, 64),
        value_hidden_layer_sizes=(128, 128),
    ),
    "sac": dict(
        env_steps=300_000,
        eval_every=20_000,
        num_envs=64,
        learning_rate=6e-4,
        batch_size=256,
        reward_scaling=1.0,
        tau=0.005,
        min_replay_size=8_192,
        max_replay_size=300_000,
        grad_updates_per_step=16,
        hidden_layer_sizes=(128, 128),
    ),
}
# What differs by robot, whatever the physics.
ROBOTS = {
    "ant": dict(ppo=dict(env_steps=1_500_000, reward_scaling=10.0, unroll_length=5, learning_rate=3e-4, entropy_cost=1e-2)),
    "hopper": dict(ppo=dict(discounting=0.997), sac=dict(discounting=0.997, reward_scaling=30.0)),
    "humanoid": dict(sac=dict(reward_scaling=0.1)),
    # As MuJoCo Playground publishes them for its suite of dm_control. Evaluations in MJX take long beside training.
    "swingup": dict(
        ppo=dict(eval_every=500_000, reward_scaling=10.0, unroll_length=30, learning_rate=1e-3, entropy_cost=1e-2, discounting=0.995),
        sac=dict(learning_rate=1e-3),
    ),
}


def get_config(task_and_method: str = "brax-hopper-spring,ppo") -> ConfigDict:
    """The agent's settings for a task: `<task>,<method>`, the method ppo or sac."""
    task, _, method = task_and_method.partition(",")
    if method not in METHODS:
        raise ValueError(f"{task_and_method!r} must be a task and ppo or sac, as brax-hopper-spring,ppo")
    config = ConfigDict(dict(tasks=task, method=method, agent={**COMMON, **METHODS[method]}))
    for robot, changes in ROBOTS.items():
        if f"-{robot}" in task:
            config.agent.update(changes.get(method, {}))
    return config
