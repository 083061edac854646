"""Methods as contacts become stiffer: the hopper on Brax's `generalized`, whose contacts are MuJoCo's: `--config=configs/stiffness.py`.

A study of experiments/compare.py. Other factors of the stiffness after a colon; three of them and one seed take 45 minutes on one core:
`--config=configs/stiffness.py:0.0625,1,16 --config.compare.seeds='(0,)'`. All of it takes some 4 hours.
"""

from ml_collections import ConfigDict

from configs import compare

FACTORS = "0.0625,0.25,1,4,16"


def get_config(factors: str = FACTORS) -> ConfigDict:
    """PWM, SHAC and PPO, three seeds each."""
    tasks = ("brax-hopper-generalized" + ("" if factor == "1" else f"-stiffness{factor}") for factor in factors.split(","))
    config = compare.get_config(",".join(tasks))
    config.compare.update(study="stiffness", methods=("pwm", "shac", "ppo"))
    return config
