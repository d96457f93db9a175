"""Attention: which implementation runs where, and that all of them compute the same."""

import importlib
import json
import os
from pathlib import Path
import subprocess
import sys
import types
import warnings

import jax
from jax import export
import jax.numpy as jnp
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh
import numpy as np
import pytest

from experiments import kernel_equality
from hrm_jax.config import ModelConfig
from hrm_jax.errors import ConfigError
from hrm_jax.model import attention, kernels
from hrm_jax.model.kernels import attention_cuda, choice, interpret


@pytest.mark.parametrize(
    ('platform', 'capability', 'dtype', 'head_dim', 'expected'),
    [
        ('gpu', '9.0', 'bfloat16', 64, 'cudnn'),
        ('gpu', '12.0', 'float16', 128, 'cudnn'),
        ('gpu', '7.5', 'bfloat16', 64, 'xla'),  # before Ampere
        ('gpu', 'gfx90a', 'bfloat16', 64, 'xla'),  # AMD
        ('gpu', '9.0', 'float32', 64, 'xla'),
        ('gpu', '9.0', 'bfloat16', 20, 'xla'),
        ('tpu', None, 'bfloat16', 64, 'xla'),
        ('cpu', None, 'bfloat16', 64, 'xla'),
    ],
)
def test_auto_takes_what_the_device_can(
    monkeypatch, platform, capability, dtype, head_dim, expected
):
    device = types.SimpleNamespace(platform=platform, compute_capability=capability)
    monkeypatch.setattr(jax, 'local_devices', lambda: [device])
    assert attention.resolve('auto', dtype, head_dim) == expected
    assert attention.resolve('xla', dtype, head_dim) == 'xla'


def test_what_can_not_run_here_is_replaced_and_said_once():
    choice.say_once.cache_clear()
    for name in ('cudnn', 'pallas', 'tpu'):
        with pytest.warns(
            UserWarning, match=f'attention={name} runs through XLA: it needs .* on cpu'
        ):
            assert attention.resolve(name, jnp.bfloat16, 64) == 'xla'
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert attention.resolve('pallas', jnp.bfloat16, 64) == 'xla'
    with interpret.interpreted():
        assert attention.resolve('pallas', jnp.bfloat16, 64) == 'pallas'
        with pytest.warns(UserWarning, match='a head size of at most 128; this is bfloat16 with'):
            assert attention.resolve('pallas', jnp.bfloat16, 130) == 'xla'


@pytest.mark.parametrize(
    ('platform', 'capability', 'expected'), [('gpu', '9.0', 'cudnn'), ('cpu', None, 'xla')]
)
def test_a_jax_without_triton(monkeypatch, platform, capability, expected):
    """Nothing fails to import, and what needs it falls back with one line."""
    from jax.experimental import pallas

    for name in ('jax.experimental.pallas.triton', 'jax._src.pallas.triton'):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delattr(pallas, 'triton', raising=False)
    monkeypatch.delitem(sys.modules, 'hrm_jax.model.kernels.attention_cuda')
    for name in ('attention', 'kernels.choice'):
        monkeypatch.delitem(sys.modules, f'hrm_jax.model.{name}')
    monkeypatch.delattr(kernels, 'choice')
    attention = importlib.import_module('hrm_jax.model.attention')  # as in a new process
    device = types.SimpleNamespace(platform=platform, compute_capability=capability)
    monkeypatch.setattr(jax, 'local_devices', lambda: [device])
    through = {'cudnn': 'cuDNN', 'xla': 'XLA'}[expected]
    with pytest.warns(UserWarning, match=f'=pallas runs through {through}: this jax .* Pallas'):
        assert attention.resolve('pallas', 'bfloat16', 64) == expected
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert attention.resolve('auto', 'bfloat16', 64) == expected
        assert attention.resolve('pallas', 'bfloat16', 64) == expected
    if expected == 'xla':
        q, k, v = (jnp.full((1, 3, 2, 8), size, jnp.bfloat16) for size in (1, 2, 3))
        found = attention.attend(q, k, v, 'pallas')
        np.testing.assert_array_equal(found, attention.attend(q, k, v, 'xla'))


def test_configuration_refuses_what_no_device_could_run():
    size = attention_cuda.MAX_HEAD_DIM
    ModelConfig(attention='pallas', hidden_size=size, num_heads=1)
    with pytest.raises(ConfigError, match='attention=pallas needs a head size'):
        ModelConfig(attention='pallas', hidden_size=2 * size, num_heads=1)
    with pytest.raises(ConfigError, match='attention=tpu needs bfloat16 or float32'):
        ModelConfig(attention='tpu', forward_dtype='float16')


@pytest.mark.parametrize(
    ('implementation', 'length', 'head_dim', 'dtype'),
    [
        ('xla', 82, 64, 'bfloat16'),
        ('pallas', 82, 64, 'float32'),
        ('pallas', 97, 32, 'bfloat16'),
        ('pallas', 901, 128, 'bfloat16'),
        ('pallas', 916, 90, 'float16'),
        ('pallas', 33, 42, 'float32'),
        ('pallas', 256, 64, 'float16'),  # no tail at all
        ('tpu', 261, 42, 'float32'),
    ],
)
def test_equals_attention_in_float32(implementation, length, head_dim, dtype):
    with interpret.interpreted():
        found = kernel_equality.errors(implementation, length, head_dim, dtype)
    assert max(found.values()) < kernel_equality.TOLERANCES[dtype], found


@pytest.mark.parametrize(('length', 'head_dim', 'dtype'), [
    (82, 64, 'bfloat16'), (97, 32, 'float16'), (50, 42, 'float32'), (33, 18, 'float32'),
])  # fmt: skip
def test_heads_rotated_as_they_are_read_equal_rotated_heads(length, head_dim, dtype):
    with interpret.interpreted():
        assert attention.rotates('pallas', dtype, head_dim)
        found = kernel_equality.rotated_errors(length, head_dim, dtype)
    bound = kernel_equality.ROTATED * kernel_equality.TOLERANCES[dtype]
    assert max(found.values()) < bound, found


def test_heads_that_the_kernel_can_not_rotate():
    with interpret.interpreted():
        assert not attention.rotates('pallas', 'float32', 16)
        assert not attention.rotates('pallas', 'float32', 33)
        assert not attention.rotates('xla', 'float32', 64)
    with pytest.raises(ValueError, match=r'must be even and 17 at least; got 16'):
        attention_cuda.attend_rotated(jnp.ones((1, 5, 3, 1, 16)), *[jnp.ones((5, 8))] * 2)


def test_padding_does_not_win_where_all_scores_are_low():
    """A position beyond the end has the score 0, the others about -256."""
    q, k, v, do = kernel_equality.operands(20, 16, 'float32')
    operands = [q / 16 - 8, k / 16 + 8, v, do]
    expected = kernel_equality.output_and_gradients('xla', operands)
    with interpret.interpreted():
        got = kernel_equality.output_and_gradients('pallas', operands)
    # A score is a sum of 16 products of about -64, times 1/4. In another order of summation (which
    # depends on the CPU) it may differ by 16 half units in the last place of 1024, and a weight of
    # the softmax by the same share; a padding that wins would be off by whole values.
    bound = 16 * np.spacing(np.float32(1024)) / 2 / 4
    for x, y in zip(got, expected, strict=True):
        np.testing.assert_allclose(x, y, atol=bound * np.abs(y).max())


@pytest.mark.parametrize('rotated', [False, True])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_kernels_lower_for_cuda(dtype, rotated):
    """No GPU is needed to find what Triton does not know; float32 products are whole ones."""
    device = AbstractDevice(device_kind='NVIDIA H100 80GB HBM3', num_cores=None, platform='gpu')
    operands = [jax.ShapeDtypeStruct((2, 97, 4, 42), dtype)] * 3
    attend, of = attention_cuda.attend, (0, 1, 2)
    if rotated:
        tables = [jax.ShapeDtypeStruct((97, 21), 'float32')] * 2
        operands = [jax.ShapeDtypeStruct((2, 97, 3, 4, 42), dtype), *tables]
        attend, of = attention_cuda.attend_rotated, (0,)
    gradients = jax.grad(lambda *args: attend(*args).astype(jnp.float32).sum(), argnums=of)
    safe = [export.DisabledSafetyCheck.custom_call(n) for n in ('__gpu$xla.gpu.triton',)]
    with use_abstract_mesh(AbstractMesh((), (), abstract_device=device)):
        program = export.export(jax.jit(gradients), platforms=['cuda'], disabled_checks=safe)(
            *operands
        ).mlir_module()
    for name in ('attention_forward', 'attention_backward_keys', 'attention_backward_queries'):
        assert program.count(f'name = "{name}"') == 1
    products = str(jax.make_jaxpr(gradients)(*operands)).count('HIGHEST')
    assert bool(products) == (dtype == 'float32')


def test_train_step_on_many_devices():
    """HRM's whole step: the kernels run on each device's rows and heads."""
    environment = dict(os.environ, XLA_FLAGS='--xla_force_host_platform_device_count=8')
    code = """if True:
        import dataclasses, json
        import jax, numpy as np
        from hrm_jax import partitioning, train_state, train_step
        from hrm_jax.config import ExperimentConfig
        from hrm_jax.config.mesh import MeshConfig
        from hrm_jax.model.kernels import interpret
        from hrm_jax.types import Batch

        def moments(implementation):
            config = ExperimentConfig.from_dict({
                'model': {'vocab_size': 7, 'seq_len': 9, 'num_puzzle_identifiers': 5,
                          'hidden_size': 64, 'num_heads': 2, 'H_layers': 1, 'L_layers': 1,
                          'H_cycles': 1, 'L_cycles': 2, 'puzzle_emb_ndim': 64,
                          'forward_dtype': 'float32', 'attention': implementation,
                          'gated_unit_kernel': implementation},
                'train': {'global_batch_size': 8}})
            mesh = partitioning.make_mesh(config=MeshConfig(data=2, fsdp=2, model=2))
            state = train_state.create(config, mesh)
            ids = np.random.default_rng(0).integers(1, 7, (8, 9), dtype=np.int32)
            batch = Batch(ids, ids[:, ::-1].copy(), ids[:, 0] % 5)
            step = train_step.make_train_step(config, 10, mesh)
            with interpret.interpreted():
                batch = partitioning.put_global(batch, mesh)
                traced = step.trace(state, batch)
            names = 'shard_map[', 'name=attention_', 'name=gated_'
            found = [str(traced.jaxpr).count(name) for name in names]
            state, sums = traced.lower().compile()(state, batch)
            arrays = jax.tree.leaves((state.opt_state, sums))
            return found, [np.asarray(x, np.float64).tolist() for x in arrays]

        print(json.dumps([jax.device_count(), moments('pallas'), moments('xla')]))
    """
    done = subprocess.run(
        [sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    devices, (found, got), (nothing, expected) = json.loads(done.stdout.splitlines()[-1])
    assert devices == 8
    assert min(found) > 0
    assert nothing == [0, 0, 0]
    for x, y in zip(got, expected, strict=True):
        scale = np.abs(y).max() + 1e-12
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4 * scale)
