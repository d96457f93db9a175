"""Settings of the whole suite."""

import os

from hrm_jax.run import backend
from tests import tools

# Most of the suite's time is XLA's compiler; tests and the processes they start share its work.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Commands would choose as many CPU devices as this machine has cores: other bits on each.
os.environ.setdefault('XLA_FLAGS', '--xla_force_host_platform_device_count=1')
backend.enable_compilation_cache()


# Files with a test of a minute or more: begun last, one worker would end them alone.
_LONG = (
    'mesh', 'variants', 'resume', 'lattice', 'equivariant_rollouts', 'cpu_devices', 'distributed',
)  # fmt: skip


def pytest_collection_modifyitems(items):
    names = [f'{name}_test.py' for name in _LONG]
    items.sort(key=lambda item: names.index(item.path.name) if item.path.name in names else 99)


def pytest_runtest_setup(item):
    for tool in tools.NAMES:
        if item.get_closest_marker(tool):
            tools.need(tool)
