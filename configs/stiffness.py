"""Methods as contacts become stiffer: the hopper on Brax's `generalized`, whose contacts are MuJoCo's: `--config=configs/stiffness.py`.

A study of experiments/compare.py at a small size, half an hour on 2 cores; every method learns for one to two minutes a seed. Other factors
of the stiffness after a colon, `--config=configs/stiffness.py:0.0625,0.25,1,4,16`; more steps by
`--config.changes.pwm.single_task.env_steps` and its like.
"""

from ml_collections import ConfigDict

from configs import compare

FACTORS = "0.0625,1,16"


def get_config(factors: str = FACTORS) -> ConfigDict:
    """PWM, SHAC and PPO, three seeds each, for about as many seconds."""
    tasks = ("brax-hopper-generalized" + ("" if factor == "1" else f"-stiffness{factor}") for factor in factors.split(","))
    config = compare.get_config(",".join(tasks))
    config.compare.update(study="stiffness", methods=("pwm", "shac", "ppo"), processes=2)
    config.changes = ConfigDict(
        dict(
            pwm=dict(single_task=dict(env_steps=16_000)),
            shac=dict(single_task=dict(env_steps=160_000, eval_every=32_000)),
            ppo=dict(agent=dict(env_steps=400_000, eval_every=100_000)),
        )
    )
    return config
