"""Machines to compile for, by name, none of which needs to be at hand."""

import dataclasses
import functools
import re
from typing import Any

from hrm_jax.errors import ConfigError

NAMED = ('v5e:2x4', 'v5e:16x16', 'v6e:16x16', 'v5p:2x2x2', 'h100:8')
_GIB = 2**30
_TPU_MEMORY = {'v5e': 16 * _GIB, 'v6e': 32 * _GIB, 'v5p': 95 * _GIB}

# What XLA asks of a GPU, for an H100 with 80 GB (SXM5), as the driver would answer.
_H100_MEMORY = 84_942_979_072
_H100 = f"""
gpu_device_info {{
  name: "NVIDIA H100 80GB HBM3" device_vendor: "NVIDIA Corporation"
  cuda_compute_capability {{ major: 9 feature_extension: ACCELERATED_FEATURES }}
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  memory_bandwidth: 3352320000000 device_memory_size: {_H100_MEMORY} l2_cache_size: 52428800
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_block_limit: 65536 registers_per_core_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472 device_address_bits: 64
  driver_version: "13.0.0" runtime_version: "13.0.0" compile_time_toolkit_version: "13.0.0"
  dnn_version: "9.10.0"
}}
platform_name: "CUDA" device_description_str: "NVIDIA H100 80GB HBM3"
dnn_version_info {{ major: 9 minor: 10 }}
"""
# Of the memory of a GPU, JAX takes this share unless XLA_PYTHON_CLIENT_MEM_FRACTION sets
# another.
_GPU_SHARE = 0.75


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices of one kind.

    Attributes:
      name: as it stands on the command line.
      platform: ``tpu`` or ``cuda``.
      memory: bytes of one device.
      usable: bytes that a program may take.
      compiler_options: for ``Lowered.compile``.
    """

    name: str
    platform: str
    memory: int
    usable: int
    compiler_options: dict[str, Any]

    @property
    def devices(self) -> list[Any]:
        """The devices, made up; always the same objects, as programs distinguish them."""
        return _devices(self.name, self.platform)


def find(name: str) -> Target:
    """Returns a target by its name: ``v5e:4x4``, ``v6e:8x8``, ``v5p:2x2x1``, ``h100:8``.

    Raises:
      ConfigError: there is no such machine.
    """
    kind, _, size = name.partition(':')
    if kind in _TPU_MEMORY and re.fullmatch(r'\d+(x\d+){1,2}', size):
        return Target(name, 'tpu', _TPU_MEMORY[kind], _TPU_MEMORY[kind], {})
    if kind == 'h100' and size.isdigit() and int(size) > 0:
        # The Triton matrix products are chosen by timing them, which needs the device.
        options = {'xla_gpu_enable_triton_gemm': False}
        return Target(name, 'cuda', _H100_MEMORY, int(_GPU_SHARE * _H100_MEMORY), options)
    raise ConfigError(
        f'--target must be a machine such as {", ".join(NAMED)}; got {name!r}. The number after '
        f'the colon is the topology (TPU) or the number of devices (GPU).'
    )


@functools.cache
def _devices(name: str, platform: str) -> list[Any]:
    from jax.experimental import topologies

    kind, _, size = name.partition(':')
    try:
        if platform == 'tpu':
            return topologies.get_topology_desc(platform='tpu', topology_name=name).devices
        return topologies.get_topology_desc(
            platform='cuda', topology_name=kind, target_config=_H100, topology=f'1x1x{size}'
        ).devices
    except Exception as error:  # each platform has errors of its own
        raise ConfigError(
            f'{name} cannot be described: {str(error).strip()[:500]}\n'
            f'Run this through `make aot`, whose environment has the compilers, and use a topology '
            f'that exists.'
        ) from error
