"""Memory of one pre-training step and one policy update at the published sizes, from XLA's own analysis of the compiled programs.

Usage: python benchmarks/memory.py [--presets=5M-mt30,48M-mt30] [--json=memory.json]
Nothing is run. `state` is what is kept from step to step (parameters, optimiser, target heads), `temporary` what a step needs besides. The
analysis is of the default backend; an accelerator fuses and lays out differently, so take it as an estimate there.
"""

from __future__ import annotations

import json
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags

from configs import tdmpc2
from experiments import stages
from pwm_jax import pwm
from pwm_jax.config import Config
from pwm_jax.types import Batch, Starts

_PRESETS = flags.DEFINE_list("presets", ["5M-mt30", "19M-mt30", "48M-mt30", "48M-mt80", "317M-mt80"], "Arguments of configs/tdmpc2.py.")
_JSON = flags.DEFINE_string("json", None, "File for the results; none by default.")


def gib(tree: Any) -> float:
    """GiB of a tree of shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)) / 2**30


def arrays(*shape: int, dtype: Any = jnp.float32) -> Any:
    """The shape of an argument, which stands for an array."""
    return jax.ShapeDtypeStruct(shape, dtype)


def _temporaries(lowered: jax.stages.Lowered) -> float:
    """GiB that the compiled program needs beside its arguments."""
    analysis = lowered.compile().memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes / 2**30


def measure(config: Config) -> dict[str, float]:
    """GiB of state and temporaries, of the model's update at its batch size and of one policy's."""
    m, c, p = config.model, config.world_model, config.policy
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(lambda key: pwm.init_world_model(config, key), key)
    batch = Batch(
        arrays(c.horizon + 1, c.batch_size, m.obs_dim),
        arrays(c.horizon, c.batch_size, m.action_dim),
        arrays(c.horizon, c.batch_size),
        arrays(c.horizon, c.batch_size),
        arrays(c.batch_size, dtype=jnp.int32),
    )
    policy = jax.eval_shape(lambda key: pwm.init_policy(config, key), key)
    starts = Starts(arrays(p.batch_size, m.obs_dim), arrays(p.batch_size, m.action_dim), arrays(p.batch_size, dtype=jnp.int32))
    model_step = jax.jit(pwm.update_world_model, static_argnames="config", donate_argnums=0).lower(state, batch, key, config=config)
    policy_step = jax.jit(pwm.update_policy, static_argnames="config", donate_argnums=0).lower(
        policy, state.params, starts, key, config=config
    )
    temporary = [_temporaries(lowered) for lowered in (model_step, policy_step)]
    return {
        "model_state": gib(jax.eval_shape(lambda: state)),
        "model_temporary": temporary[0],
        "model_parameters": gib(state.params),
        "policy_state": gib(jax.eval_shape(lambda: policy)),
        "policy_temporary": temporary[1],
    }


def main(arguments: list[str]) -> None:
    """Print a table in GiB, one row a preset."""
    results = {}
    for preset in _PRESETS.value:
        config = tdmpc2.get_config(preset)
        results[preset] = measure(stages.algorithm_of(config, stages.task_set_of(config)))
        if len(results) == 1:
            print("preset".ljust(10), *(name.rjust(17) for name in results[preset]))
        print(preset.ljust(10), *(f"{value:17.2f}" for value in results[preset].values()), flush=True)
    if _JSON.value:
        with open(_JSON.value, "w") as file:
            json.dump({"gib": results, "backend": jax.default_backend()}, file, indent=1)


if __name__ == "__main__":
    app.run(main)
