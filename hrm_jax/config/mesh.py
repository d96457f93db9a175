"""Configuration of the device mesh."""

import dataclasses
import math

from hrm_jax.config.checks import check_fields, require_not_negative
from hrm_jax.errors import ConfigError

MESH_AXES = ('data', 'fsdp', 'model')


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Sizes of the axes of the device mesh; their product is the number of devices.

    Rows of a batch spread over ``data`` and ``fsdp``; weights, optimizer state and average are
    sharded over ``fsdp``, attention heads and the gated unit's width over ``model``; a large puzzle
    table is sharded by rows over all three. Any arrangement computes the same numbers (up to the
    order of float32 sums).
    """

    data: int = -1  # -1: all devices that the other axes leave
    fsdp: int = 1
    model: int = 1
    # Devices that a CPU is split into when a command starts (run/cpu_devices.py); 0: one, or as
    # many as JAX was told to make. Chosen by ``hrm-jax train`` for new runs.
    cpu_devices: int = 0

    def __post_init__(self):
        check_fields(self, 'mesh.')
        require_not_negative(**{'mesh.cpu_devices': self.cpu_devices})
        sizes = self.sizes
        ConfigError.require(
            all(size == -1 or size > 0 for size in sizes.values()),
            f'the axes of mesh must be above 0, or -1 for the rest; got {self.describe()}.',
        )
        ConfigError.require(
            list(sizes.values()).count(-1) <= 1,
            f'only one axis of mesh may be -1; got {self.describe()}.',
        )

    @property
    def sizes(self) -> dict[str, int]:
        return {axis: getattr(self, axis) for axis in MESH_AXES}

    def describe(self) -> str:
        return ', '.join(f'mesh.{axis}={size}' for axis, size in self.sizes.items())

    def shape(self, devices: int) -> tuple[int, ...]:
        """Returns the sizes for so many devices, -1 filled in.

        Raises:
          ConfigError: they do not multiply to the number of devices.
        """
        sizes = tuple(self.sizes.values())
        fixed = math.prod(size for size in sizes if size != -1)
        whole = devices % fixed == 0 if -1 in sizes else devices == fixed
        ConfigError.require(
            whole,
            f'the axes of mesh must multiply to the number of devices, {devices}; got '
            f'{self.describe()}, which needs {"a multiple of " if -1 in sizes else ""}{fixed}. '
            f'Set one axis to -1 to take what is left, or change the others.',
        )
        return tuple(devices // fixed if size == -1 else size for size in sizes)
