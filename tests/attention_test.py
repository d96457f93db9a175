"""Which implementation of attention ``auto`` stands for."""

import types

import jax
import pytest

from hrm_jax.model import attention


@pytest.mark.parametrize(
    ('backend', 'capability', 'dtype', 'head_dim', 'expected'),
    [
        ('gpu', '9.0', 'bfloat16', 64, 'cudnn'),
        ('gpu', '12.0', 'float16', 128, 'cudnn'),
        ('gpu', '7.5', 'bfloat16', 64, 'xla'),  # before Ampere
        ('gpu', 'gfx90a', 'bfloat16', 64, 'xla'),  # AMD
        ('gpu', '9.0', 'float32', 64, 'xla'),
        ('gpu', '9.0', 'bfloat16', 20, 'xla'),
        ('cpu', None, 'bfloat16', 64, 'xla'),
    ],
)
def test_auto_takes_what_the_device_can(
    monkeypatch, backend, capability, dtype, head_dim, expected
):
    monkeypatch.setattr(jax, 'default_backend', lambda: backend)
    device = types.SimpleNamespace(compute_capability=capability)
    monkeypatch.setattr(jax, 'local_devices', lambda: [device])
    assert attention.resolve('auto', dtype, head_dim) == expected
    assert attention.resolve('xla', dtype, head_dim) == 'xla'
