"""What matters while a policy is learnt: one setting at a time against the default: `--config=configs/choices.py`.

A study of experiments/ablation.py on a task of each suite, with one world model a seed for all but the last settings; half an hour on 2
cores for the seventeen that are neither the last five nor the longest horizon nor the largest batch, a quarter for the last five, half an
hour for the other two. Some settings alone after a colon: `--config=configs/choices.py:default,horizon-1,horizon-16`.
"""

from ml_collections import ConfigDict

from configs import regularisers

STEPS, BATCH = 600, 64
VARIANTS: dict[str, dict[str, dict[str, object]]] = {
    "default": {},
    **{f"horizon-{h}": dict(policy=dict(horizon=h)) for h in (1, 2, 4, 8, 16, 32)},
    **{f"batch-{b}": dict(policy=dict(batch_size=b)) for b in (16, 256, 2048)},
    # As many imagined trajectories, so about the wall time, of the default.
    **{f"batch-{b}-equal-time": dict(policy=dict(batch_size=b), extract=dict(steps=STEPS * BATCH // b)) for b in (16, 256, 2048)},
    **{f"lr-{name}": dict(policy=dict(actor_lr=lr, critic_lr=lr)) for name, lr in (("third", 3e-4), ("triple", 3e-3), ("tenfold", 1e-2))},
    "one-step-targets": dict(policy=dict(critic_target="one_step")),
    "bootstrap-offset": dict(policy=dict(bootstrap_power_offset=1)),
    "through-actor-input": dict(policy=dict(detach_actor_input=False)),
    # What follows needs world models of its own.
    "raw-rewards": dict(model=dict(reward_space="raw")),
    "unmasked-actions": dict(model=dict(mask_actions=False)),
    **{f"model-horizon-{h}": dict(world_model=dict(horizon=h)) for h in (2, 8)},
    "bfloat16": dict(model=dict(matmul_dtype="bfloat16"), policy=dict(matmul_dtype="bfloat16")),
}


def get_config(names: str = ",".join(VARIANTS)) -> ConfigDict:
    """Horizon, batch size, learning rate, critic target, bootstrap, detached input, reward space, action mask and windows; three seeds."""
    config = regularisers.study_of("choices", VARIANTS, names)
    config.policy.batch_size = BATCH
    config.extract.steps = STEPS
    return config
