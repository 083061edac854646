"""PWM, policy learning with multi-task world models (arXiv 2407.02466), in JAX and Flax.

One world model is pre-trained on the offline data of many tasks; one policy a task is then extracted from it
with first-order gradients through imagination. Nothing is imported here: `import pwm_jax` starts neither JAX nor a simulator.
"""

__version__ = "0.1.0"
