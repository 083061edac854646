"""Time of a pre-training step and of an extraction on several accelerators, by formula: `python -m benchmarks.scaling`.

Of every size and number of accelerators: the matrix products at the share of the peak rate that is reached, the exchange of gradients
(a ring sends 2 (N-1)/N of four bytes a parameter over each link) and the reading of windows, which overlap; the longest is the step.
The defaults are an H100's data sheet, in machines of eight, at 40 % of its peak: put in what `python -m benchmarks run` measured on yours.
"""

from __future__ import annotations

import argparse

import jax

from benchmarks import flops
from configs import base
from experiments import stages
from pwm_jax import pwm
from pwm_jax.config import Config

PRESETS = ("5M-mt30", "19M-mt30", "48M-mt30", "48M-mt80", "317M-mt80")
DEVICES = (1, 8, 64)
ITERATIONS = 10_000


def parameters(config: Config) -> int:
    """Numbers in the world model."""
    shapes = jax.eval_shape(lambda: pwm.init_world_model(config, jax.random.key(0)).params)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def pretraining(config: Config, devices: int, machine: argparse.Namespace) -> dict[str, float]:
    """Seconds of a step's parts, the batch shared by `devices`."""
    m, c = config.model, config.world_model
    hosts = -(-devices // machine.devices_per_host)
    link = machine.link if hosts == 1 else machine.network
    window = 4 * ((c.horizon + 1) * m.obs_dim + c.horizon * (m.action_dim + 2) + 1)
    return {
        "products": sum(flops.model_update(config).values()) / devices / (machine.peak * machine.reached),
        "exchange": 2 * (devices - 1) / devices * 4 * parameters(config) / link,
        "input": c.batch_size * window / hosts / machine.disk,
    }


def extraction(config: Config, devices: int, policies: int, machine: argparse.Namespace) -> float:
    """Seconds of ITERATIONS iterations of so many policies, shared out whole; devices exchange nothing."""
    each = -(-policies // devices)
    return ITERATIONS * each * sum(flops.policy_update(config).values()) / (machine.peak * machine.reached)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peak", type=float, default=989e12, help="FLOP/s of one accelerator")
    parser.add_argument("--reached", type=float, default=0.4, help="share of it that the updates reach")
    parser.add_argument("--devices_per_host", type=int, default=8)
    parser.add_argument("--link", type=float, default=450e9, help="bytes/s that one accelerator sends within a machine")
    parser.add_argument("--network", type=float, default=50e9, help="bytes/s that one accelerator sends between machines")
    parser.add_argument("--disk", type=float, default=2e9, help="bytes/s that a machine reads")
    machine = parser.parse_args()
    print("| size | accelerators | products (ms) | exchange (ms) | input (ms) | limit | 1 M steps | all policies |")
    print("|---|---:|---:|---:|---:|---|---:|---:|")
    for preset in PRESETS:
        settings = base.get_config(preset)
        task_set = stages.task_set_of(settings)
        config = stages.algorithm_of(settings, task_set)
        for devices in DEVICES:
            parts = pretraining(config, devices, machine)
            limit = max(parts, key=lambda name: parts[name])
            policies = extraction(config, devices, task_set.num_tasks, machine) / 60
            milliseconds = " | ".join(f"{1e3 * parts[name]:.2g}" for name in parts)
            print(f"| {preset} | {devices} | {milliseconds} | {limit} | {parts[limit] * 1e6 / 3600:.3g} h | {policies:.2g} min |")


if __name__ == "__main__":
    main()
