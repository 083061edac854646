"""One world model on several devices: every device holds a share of each batch and, where asked, of the parameters.

Data- and parameter-parallel training by `jax.sharding` alone: arrays are placed, the compiler adds the communication. The devices may
belong to several processes (`jax.distributed`), which then all call the same functions.
"""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pwm_jax.types import Batch

State = TypeVar("State")

AXIS = "data"
_LEAST_SIZE = 2**14  # numbers of an array that is worth its own communication


class SharingError(ValueError):
    """Devices among which the work cannot be shared out evenly; names what to change."""


@dataclasses.dataclass(frozen=True)
class Sharing:
    """The devices that share the work; with `parameters` also parameters and optimiser states, each array along its longest axis."""

    mesh: Mesh
    parameters: bool = False

    @classmethod
    def of(cls, num_devices: int, parameters: bool, batch_size: int) -> Sharing | None:
        """Of so many devices, 0: all accelerators or, of several processes, all devices. None where it is one.

        Raises:
            SharingError: there are not so many devices, or they do not divide the batch.
        """
        devices = jax.devices()
        alone = jax.default_backend() == "cpu" and jax.process_count() == 1
        count = num_devices or (1 if alone else len(devices))
        if count > len(devices):
            raise SharingError(f"pretrain.devices is {count}, and JAX sees {len(devices)}")
        if count < len(devices) and jax.process_count() > 1:
            raise SharingError(f"pretrain.devices must be 0 or {len(devices)}, the devices of all processes, not {count}")
        if batch_size % count:
            raise SharingError(
                f"world_model.batch_size {batch_size} is no multiple of the {count} devices that share it (pretrain.devices)"
            )
        return None if count == 1 else cls(Mesh(np.array(devices[:count]), (AXIS,)), parameters)

    def placement(self, state: State) -> State:
        """For every leaf of a state where it lies; the state may be one of shapes."""
        count = self.mesh.size

        def of(leaf: jax.Array) -> NamedSharding:
            longest = max(range(leaf.ndim), key=lambda axis: leaf.shape[axis], default=0)
            split = self.parameters and leaf.size >= _LEAST_SIZE and leaf.shape[longest] % count == 0
            return NamedSharding(self.mesh, PartitionSpec(*[None] * longest, AXIS) if split else PartitionSpec())

        return jax.tree.map(of, state)

    def place(self, state: State) -> State:
        """A state that every process holds whole, on the devices."""
        return jax.device_put(state, self.placement(state))

    def replicate(self, tree: State) -> State:
        """What every device reads whole."""
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))

    def split(self, batch: Batch) -> Batch:
        """Within a compiled step: each device its share of the batch."""
        return jax.lax.with_sharding_constraint(batch, self._of_batch(batch))

    def keep(self, state: State) -> State:
        """Within a compiled step: the state stays where it lay."""
        return jax.lax.with_sharding_constraint(state, self.placement(state))

    def own_share(self) -> tuple[int, int]:
        """Which of how many equal shares of a batch this process reads, for `WindowSampler`."""
        return jax.process_index(), jax.process_count()

    def gather(self, batch: Batch) -> Batch:
        """A batch on the devices, of the shares that the processes have read."""
        return jax.tree.map(jax.make_array_from_process_local_data, self._of_batch(batch), batch)

    def _of_batch(self, batch: Batch) -> Batch:
        """Time-major leaves are shared along their second axis, task ids along their first."""
        along = lambda leaf: PartitionSpec(None, AXIS) if leaf.ndim > 1 else PartitionSpec(AXIS)  # noqa: E731
        return jax.tree.map(lambda leaf: NamedSharding(self.mesh, along(leaf)), batch)
