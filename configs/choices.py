"""What matters while a policy is learnt: one setting at a time against the default: `--config=configs/choices.py`.

A study of experiments/ablation.py on the quickstart's tasks and data, with one world model a seed for all but the last settings. One seed
takes about an hour on 2 cores; the names of some variants after a colon, `configs/choices.py:default,horizon-16`, measure those alone.
"""

from ml_collections import ConfigDict

from configs import regularisers

STEPS, BATCH = 1_400, 128  # of the quickstart
VARIANTS: dict[str, dict[str, dict[str, object]]] = {
    "default": {},
    **{f"horizon-{h}": dict(policy=dict(horizon=h)) for h in (1, 2, 4, 8, 16, 32)},
    **{f"batch-{b}": dict(policy=dict(batch_size=b)) for b in (16, 64, 512, 2048)},
    # As many imagined trajectories, so about the wall time, of the default.
    **{f"batch-{b}-equal-time": dict(policy=dict(batch_size=b), extract=dict(steps=STEPS * BATCH // b // 100 * 100)) for b in (64, 512)},
    **{f"lr-{name}": dict(policy=dict(actor_lr=lr, critic_lr=lr)) for name, lr in (("third", 3e-4), ("triple", 3e-3))},
    "one-step-targets": dict(policy=dict(critic_target="one_step")),
    "bootstrap-offset": dict(policy=dict(bootstrap_power_offset=1)),
    "through-actor-input": dict(policy=dict(detach_actor_input=False)),
    "raw-rewards": dict(model=dict(reward_space="raw")),
    "unmasked-actions": dict(model=dict(mask_actions=False)),
}


def get_config(names: str = ",".join(VARIANTS)) -> ConfigDict:
    """Horizon, batch size, learning rate, critic target, bootstrap, detached input, reward space and action mask; three seeds."""
    return regularisers.study_of("choices", VARIANTS, names)
