"""Kernels of the package tokamax, in its forms for any platform: equality, and a whole step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import kernel_equality
from hrm_jax import partitioning, train_state, train_step
from hrm_jax.config import ExperimentConfig, ModelConfig
from hrm_jax.model import attention, layers
from hrm_jax.model.kernels import choice, interpret
from hrm_jax.types import Batch

SIZES = {
    'vocab_size': 7, 'seq_len': 9, 'num_puzzle_identifiers': 5, 'hidden_size': 32, 'num_heads': 2,
    'H_layers': 1, 'L_layers': 1, 'H_cycles': 1, 'L_cycles': 2, 'puzzle_emb_ndim': 32,
    'forward_dtype': 'float32',
}  # fmt: skip
KERNELS = {'attention': 'tokamax', 'gated_unit_kernel': 'tokamax', 'norm_kernel': 'tokamax'}


def losses(settings):
    model = ModelConfig(**SIZES, **settings)
    config = ExperimentConfig(model=model)
    config = dataclasses.replace(
        config, train=dataclasses.replace(config.train, global_batch_size=8)
    )
    mesh = partitioning.make_mesh(jax.devices()[:1])
    state = train_state.create(config, mesh)
    step = train_step.make_train_step(config, 10, mesh)
    ids = np.random.default_rng(0).integers(1, 7, (8, 9), dtype=np.int32)
    found = []
    for _ in range(3):
        state, sums = step(state, Batch(ids, ids[:, ::-1].copy(), ids[:, 0] % 5))
        found.append(float(sums.lm_loss))
    return found


def test_without_the_package_a_step_is_that_of_xla(monkeypatch):
    known = choice.module
    monkeypatch.setattr(
        choice, 'module', lambda name: None if name == 'tokamax_kernels' else known(name)
    )
    choice.say_once.cache_clear()
    with pytest.warns(UserWarning, match='tokamax') as caught:
        found = losses(KERNELS)
    said = ' '.join(str(one.message) for one in caught)
    for name in KERNELS:
        assert f'model.{name}=tokamax runs through XLA: the package tokamax is not' in said
    assert found == losses({})


class TestWithThePackage:
    @pytest.fixture(autouse=True)
    def package(self):
        pytest.importorskip('tokamax', reason='an optional package')

    @pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
    def test_attention_and_gated_unit_equal_float32(self, dtype):
        with interpret.interpreted():
            assert attention.resolve('tokamax', jnp.dtype(dtype), 32) == 'tokamax'
            found = kernel_equality.errors('tokamax', 82, 32, dtype)
            unit = kernel_equality.unit_error(77, 40, 100, dtype, 'tokamax')
        assert max(*found.values(), unit) < kernel_equality.TOLERANCES[dtype]

    @pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
    def test_norm_is_ours(self, dtype):
        x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, 64)), dtype)
        model = ModelConfig(**SIZES, norm_kernel='tokamax')
        with interpret.interpreted():
            got = layers.Norm(model).apply({}, x)
        assert got.dtype == dtype
        np.testing.assert_allclose(
            np.asarray(got, np.float32), np.asarray(layers.rms_norm(x, 1e-5), np.float32),
            rtol=1e-6 if dtype == 'float32' else 8e-3,
        )  # fmt: skip

    def test_a_train_step_has_the_losses_of_xla(self):
        with interpret.interpreted():
            found = losses(KERNELS)
        np.testing.assert_allclose(found, losses({}), rtol=1e-5)
