"""The gated unit's kernel: what it computes, where it runs, and which passes use it."""

import dataclasses
import types
import warnings

import jax
from jax import export
import jax.numpy as jnp
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh
import numpy as np
import pytest

from experiments import kernel_equality
from hrm_jax import eval_step, partitioning, train_state
from hrm_jax.config import ActConfig, ExperimentConfig, ModelConfig
from hrm_jax.errors import ConfigError
from hrm_jax.model import gated_unit, hrm, starts
from hrm_jax.model.kernels import choice, gated_unit_cuda, interpret


@pytest.mark.parametrize(('rows', 'depth', 'width', 'dtype'), [
    (97, 128, 192, 'bfloat16'), (77, 40, 100, 'float32'), (64, 64, 64, 'float32'),
    (130, 200, 70, 'float16'),
])  # fmt: skip
def test_equals_the_unit_in_float32(rows, depth, width, dtype):
    with interpret.interpreted():
        assert gated_unit.uses_kernel('pallas', dtype)
        error = kernel_equality.unit_error(rows, depth, width, dtype)
    assert error < kernel_equality.TOLERANCES[dtype]


def by_kernel(x, kernel):
    return gated_unit.swiglu(x, kernel, 'pallas')


def test_a_pass_with_gradient_is_that_of_xla():
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=s), 'float32') for s in ((2, 9, 16), (16, 2, 24)))

    def gradients(function):
        return jax.jit(jax.grad(lambda *args: jnp.square(function(*args)).sum(), argnums=(0, 1)))

    with interpret.interpreted():
        traced = gradients(by_kernel).trace(x, kernel)
    assert 'pallas_call' not in str(traced.jaxpr)
    got = traced.lower().compile()(x, kernel)
    for one, other in zip(got, gradients(gated_unit.plain)(x, kernel), strict=True):
        np.testing.assert_array_equal(one, other)
    still = jax.jit(lambda x, kernel: by_kernel(*jax.lax.stop_gradient((x, kernel))))
    with interpret.interpreted():
        assert 'pallas_call' in str(jax.make_jaxpr(jax.grad(lambda x: still(x, kernel).sum()))(x))


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_lowers_for_cuda(dtype):
    device = AbstractDevice(device_kind='NVIDIA H100 80GB HBM3', num_cores=None, platform='gpu')
    x, kernel = (jax.ShapeDtypeStruct(shape, dtype) for shape in ((97, 40), (40, 2, 100)))
    safe = [export.DisabledSafetyCheck.custom_call(n) for n in ('__gpu$xla.gpu.triton',)]
    with use_abstract_mesh(AbstractMesh((), (), abstract_device=device)):
        program = export.export(
            jax.jit(gated_unit_cuda.hidden), platforms=['cuda'], disabled_checks=safe
        )(x, kernel).mlir_module()
    assert program.count('name = "gated_unit"') == 1


def test_where_it_can_not_run_xla_does_and_says_so_once(monkeypatch):
    choice.say_once.cache_clear()
    assert not gated_unit.uses_kernel('xla', 'bfloat16')
    with pytest.warns(UserWarning, match='gated_unit_kernel=pallas runs through XLA: it needs'):
        assert not gated_unit.uses_kernel('pallas', 'bfloat16')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert not gated_unit.uses_kernel('pallas', 'bfloat16')
    device = types.SimpleNamespace(platform='gpu', compute_capability='9.0')
    monkeypatch.setattr(jax, 'local_devices', lambda: [device])
    assert gated_unit.uses_kernel('pallas', 'bfloat16')
    monkeypatch.setattr(choice, 'module', lambda name: None)
    with pytest.warns(UserWarning, match='runs through XLA: this jax .* has not the part'):
        assert not gated_unit.uses_kernel('pallas', 'bfloat16')
    with pytest.warns(UserWarning, match=r'runs through XLA: the package tokamax is not installed'):
        assert not gated_unit.uses_kernel('tokamax', 'bfloat16')


def test_other_gated_units_have_no_kernel():
    with pytest.raises(ConfigError, match=r'gated_unit_kernel=pallas has gated_unit=swiglu alone'):
        ModelConfig(gated_unit_kernel='pallas', gated_unit='sigmoid_rms')
    with pytest.raises(ValueError, match='float32, bfloat16, float16; got float64'):
        gated_unit_cuda.hidden(np.ones((2, 3)), np.ones((3, 2, 4)))


SMALL = ModelConfig(
    vocab_size=7, seq_len=9, num_puzzle_identifiers=1, hidden_size=32, num_heads=4, H_layers=1,
    L_layers=1, H_cycles=2, L_cycles=2, puzzle_emb_ndim=0, forward_dtype='float32',
)  # fmt: skip


@pytest.mark.parametrize('more', [{}, {'gated_unit': 'sigmoid_rms'}, {'gated_unit': 'conv_swiglu'}])
def test_an_evaluation_takes_gate_and_up_apart_once(more):
    model = dataclasses.replace(SMALL, **more)
    config = ExperimentConfig(model=model, act=ActConfig(halt_max_steps=3))
    mesh = partitioning.make_mesh(jax.devices()[:1])
    weights = train_state.create(config, mesh).weights
    inputs = jnp.asarray(np.random.default_rng(0).integers(0, 7, (4, 9)), jnp.int32)
    ids = jnp.zeros(4, jnp.int32)

    def answer(weights):
        return eval_step.answers(config, weights, inputs, ids, [3])[0].logits

    def by_steps(weights):
        latent = starts.fresh_latent(model, weights, 4)
        for _ in range(3):
            latent, outputs = hrm.act_step(model, weights, latent, inputs, None)
        return outputs.logits

    program = jax.make_jaxpr(answer)(weights)
    halves = f'f32[{model.hidden_size},1,{model.mlp_dim}] = slice'
    outside = sum(halves in str(equation) for equation in program.eqns)
    assert outside == str(program).count(halves) == 4  # of the two levels
    np.testing.assert_allclose(
        jax.jit(answer)(weights), jax.jit(by_steps)(weights), rtol=2e-6, atol=2e-6
    )
