"""Gradients of 16-bit models are summed over devices in float32: in the program, and in numbers.

XLA_FLAGS=--xla_force_host_platform_device_count=4 python -m tests.gradient_sums_test
"""

import dataclasses
import json
import os
from pathlib import Path
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax import partitioning, train_state, train_step
from hrm_jax.config import ActConfig, ExperimentConfig, LossConfig, ModelConfig, TrainConfig
from hrm_jax.model import gradient_sums
from hrm_jax.types import Batch

ROWS = 16
MODEL = ModelConfig(
    vocab_size=7, seq_len=9, num_puzzle_identifiers=1, hidden_size=32, num_heads=4, H_layers=1,
    L_layers=1, H_cycles=1, L_cycles=1, puzzle_emb_ndim=0, pos_encodings='learned', norm_scale=True,
    qkv_bias=True, forward_dtype='bfloat16', q_head=False,
)  # fmt: skip
CONFIG = ExperimentConfig(
    model=MODEL,
    act=ActConfig(halting='fixed', halt_max_steps=2),
    loss=LossConfig(q_weight=0.0),
    train=TrainConfig(global_batch_size=ROWS, epochs=10, eval_interval=10),
)


def _program(sums, mesh):
    """Text of the compiled gradients of a batch."""
    train = dataclasses.replace(CONFIG.train, gradient_sums=sums)
    config = dataclasses.replace(CONFIG, train=train)
    state = train_state.create(config, mesh)
    rng = np.random.default_rng(0)
    inputs, labels = (rng.integers(1, 7, (ROWS, 9)).astype(np.int32) for _ in range(2))
    batch = partitioning.put_global(Batch(inputs, labels, np.zeros(ROWS, np.int32)), mesh)

    def gradients(state, batch):
        with partitioning.activate(mesh, sums):
            least = jnp.zeros(ROWS, jnp.int32)
            found = train_step.gradients(config, state, state.carry, batch, least, None)
            return found.params

    return jax.jit(gradients).lower(state, batch).compile().as_text()


def _product(sums, mesh):
    """Gradient of a kernel, and that in float64."""
    rng = np.random.default_rng(0)
    x, g = (rng.normal(size=(ROWS, 9, size)).astype(jnp.bfloat16) for size in (32, 5))
    kernel = jnp.asarray(rng.normal(size=(32, 5)), jnp.float32)

    def gradient(x, g, kernel):
        with partitioning.activate(mesh, sums):
            return jax.vjp(gradient_sums.product, x, kernel)[1](g)[1]

    found = jax.jit(gradient)(*partitioning.put_global((x, g), mesh), kernel)
    exact = np.einsum('btf,btg->fg', x.astype(np.float64), g.astype(np.float64))
    return float(np.abs(np.asarray(found) - exact).max() / np.abs(exact).max())


def _report():
    mesh, found = partitioning.make_mesh(), {}
    for sums in ('float32', 'compute'):
        lines = _program(sums, mesh).splitlines()
        found[sums] = [line for line in lines if re.search(r' all-reduce(-start)?\(', line)]
    for sums in ('float32', 'compute', 'auto'):
        found[f'{sums} error'] = _product(sums, mesh)
    print(json.dumps(found))


def test_four_devices_sum_in_float32():
    environment = dict(os.environ, JAX_PLATFORMS='cpu',
                       XLA_FLAGS='--xla_force_host_platform_device_count=4')  # fmt: skip
    output = subprocess.run(
        [sys.executable, '-m', 'tests.gradient_sums_test'], cwd=Path(__file__).parents[1],
        env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    found = json.loads(output.splitlines()[-1])
    # XLA's CPU compiler marks the 16-bit sums that it makes in float32.
    for sums, is_narrow in (('float32', False), ('compute', True)):
        assert found[sums]
        assert any('promoted' in line for line in found[sums]) == is_narrow
    assert found['float32 error'] < 1e-6
    assert found['auto error'] == found['float32 error']
    assert found['compute error'] > 1e-3  # of bfloat16


def test_one_device_is_as_it_was():
    mesh = partitioning.make_mesh()
    assert mesh.size == 1
    for sums, is_wide in (('auto', False), ('compute', False), ('float32', True)):
        with partitioning.activate(mesh, sums):
            assert partitioning.sums_in_float32() == is_wide
    assert not partitioning.sums_in_float32()


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16', 'float32'])
def test_values_and_other_gradients_keep_their_bits(dtype):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(4, 9, 32)), dtype)
    kernel = jnp.asarray(rng.normal(size=(32, 5)), jnp.float32)
    mesh = partitioning.make_mesh()

    def run(sums):
        with partitioning.activate(mesh, sums):
            return jax.vjp(gradient_sums.product, x, kernel)

    (y, back), (y_wide, back_wide) = run('compute'), run('float32')
    g = jnp.asarray(rng.normal(size=y.shape), dtype)
    (of_x, of_kernel), (of_x_wide, of_kernel_wide) = back(g), back_wide(g)
    np.testing.assert_array_equal(y, y_wide)
    np.testing.assert_array_equal(of_x, of_x_wide)
    assert of_kernel.dtype == of_kernel_wide.dtype == jnp.float32
    exact = np.einsum('btf,btg->fg', *(np.asarray(one, np.float64) for one in (x, g)))
    wrong, wrong_wide = (np.abs(one - exact).max() for one in (of_kernel, of_kernel_wide))
    assert wrong_wide < 1e-5 * np.abs(exact).max()
    assert wrong_wide == wrong if dtype == 'float32' else wrong > 50 * wrong_wide


@pytest.mark.parametrize(('shape', 'product'), [((48, 16), (16, 48)), ((16, 48), (16, 48))])
def test_a_cpu_makes_the_gradient_of_a_tall_kernel_transposed(shape, product):
    x, kernel = jnp.ones((2, 5, shape[0])), jnp.ones(shape)

    def gradient(x, kernel):
        return jax.grad(lambda w: jnp.square(gradient_sums.product(x, w)).sum())(kernel)

    program = jax.jit(gradient).lower(x, kernel).compile().as_text()
    of_rows = re.findall(r'f32\[(\d+),(\d+)\]\S* dot\(.*lhs_contracting_dims=\{0\}', program)
    assert of_rows == [tuple(map(str, product))]


if __name__ == '__main__':
    _report()
