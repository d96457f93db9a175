"""Settings of the whole suite."""

import os

from hrm_jax.run import backend
from tests import tools

# Most of the suite's time is XLA's compiler; tests and the processes they start share its work.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Commands would choose as many CPU devices as this machine has cores: other bits on each.
os.environ.setdefault('XLA_FLAGS', '--xla_force_host_platform_device_count=1')
backend.enable_compilation_cache()


def pytest_runtest_setup(item):
    for tool in tools.NAMES:
        if item.get_closest_marker(tool):
            tools.need(tool)
