"""The first model update of a process that has nothing yet: `python -m benchmarks.first_update`; see `surroundings.first_update`."""

from __future__ import annotations

import functools

from experiments import launch

if __name__ == "__main__":
    launch.enable_compilation_cache()

    import jax

    from benchmarks.updates import batch_of
    from configs import quickstart
    from experiments import stages
    from pwm_jax import pwm

    settings = quickstart.get_config()
    config = stages.algorithm_of(settings, stages.task_set_of(settings))
    state = jax.jit(functools.partial(pwm.init_world_model, config))(jax.random.key(0))
    update = jax.jit(functools.partial(pwm.update_world_model, config=config), donate_argnums=0)
    jax.block_until_ready(update(state, batch_of(config), jax.random.key(1)))
