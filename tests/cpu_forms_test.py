"""Products are written otherwise for a CPU: the same numbers, without what its compiler copies."""

import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax import partitioning
from hrm_jax.model import attention, gated_unit, gradient_sums, layers

B, T, D, F = 3, 5, 16, 24
FUNCTIONS = {
    'product': (gradient_sums.product, (D, F)),
    'product with two new axes': (gradient_sums.product, (D, 2, F)),
    'gated unit': (gated_unit.plain, (D, 2, F)),
}


@pytest.fixture(params=FUNCTIONS)
def given(request):
    function, shape = FUNCTIONS[request.param]
    rng = np.random.default_rng(0)
    return function, rng.normal(size=(B, T, D)), jnp.asarray(rng.normal(size=shape), jnp.float32)


def on_another_platform(monkeypatch):
    device = types.SimpleNamespace(platform='tpu')
    monkeypatch.setattr(partitioning, 'device', lambda: device)


def gradients(function):
    def loss(x, kernel):
        y = function(x, kernel)
        return jnp.square(y.astype(jnp.float32)).sum(), y

    return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))


@pytest.mark.parametrize(('dtype', 'tolerance'), [('float32', 1e-6), ('bfloat16', 0.02)])
def test_both_forms_give_the_same_numbers(given, dtype, tolerance, monkeypatch):
    function, x, kernel = given
    x = jnp.asarray(x, dtype)
    found, y = gradients(function)(x, kernel)
    on_another_platform(monkeypatch)
    expected, other = gradients(lambda *args: function(*args))(x, kernel)
    for one, two in zip((*found, y), (*expected, other), strict=True):
        assert one.dtype == two.dtype
        assert one.shape == two.shape
        one, two = (np.asarray(array, np.float64) for array in (one, two))
        np.testing.assert_allclose(one, two, atol=tolerance * np.abs(two).max(), rtol=0)


def products(function, x, kernel):
    """The numbers of axes of the operands of the products."""
    text = gradients(function).lower(jnp.asarray(x, jnp.float32), kernel).as_text()
    found = re.findall(r'dot_general.* : \(tensor<([^>]*)>, tensor<([^>]*)>\)', text)
    assert found
    return {operand.count('x') for pair in found for operand in pair}


def test_a_cpu_has_one_axis_of_rows(given, monkeypatch):
    function, x, kernel = given
    axes = products(function, x, kernel)
    assert axes <= ({2} if kernel.ndim == 2 or function is gated_unit.plain else {2, 3})
    on_another_platform(monkeypatch)
    assert 3 in products(lambda *args: function(*args), x, kernel)


def test_the_gradient_of_gate_and_up_is_put_together_in_the_kernel_alone(monkeypatch):
    x, kernel = np.ones((B, T, D)), jnp.ones((D, 2, F))

    def padded():
        text = gradients(lambda *args: gated_unit.plain(*args)).lower(
            jnp.asarray(x, jnp.float32), kernel
        ).as_text()  # fmt: skip
        return set(re.findall(r'stablehlo.pad.*-> tensor<([\dx]*)xf32>', text))

    assert padded() == {f'{D}x2x{F}'}
    on_another_platform(monkeypatch)
    assert f'{B}x{T}x2x{F}' in padded()


@pytest.mark.parametrize('rate', [0.0, 0.3])
def test_attention_gives_the_same_numbers(rate, monkeypatch):
    rng = np.random.default_rng(0)
    shapes = ((B, T, 2, 8), (B, T + 2, 2, 8), (B, T + 2, 2, 8))
    qkv = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]
    mask = jnp.asarray(rng.random((B, 2, T, T + 2)) >= rate)

    def found():
        def loss(*qkv):
            drop = (lambda weights: jnp.where(mask, weights / (1 - rate), 0)) if rate else None
            y = attention.attend(*qkv, 'xla', drop)
            return jnp.square(y).sum(), y

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(*qkv)

    ours = found()
    on_another_platform(monkeypatch)
    theirs = found()
    for one, two in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        # The larger the scores, the more both lose against float64, ours up to three times as much.
        np.testing.assert_allclose(one, two, atol=5e-6 * np.abs(two).max(), rtol=0)
    assert any(
        (one != two).any()
        for one, two in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    )  # another form


@pytest.mark.parametrize(('dtype', 'tolerance'), [('float32', 1e-6), ('bfloat16', 0.02)])
def test_both_forms_of_rotation(dtype, tolerance, monkeypatch):
    q_BTNK = jnp.asarray(np.random.default_rng(0).normal(size=(B, T, 2, D)), dtype)
    tables = layers.rotary_tables(T, D, 10000.0)

    def values(form):
        def loss(x):
            y = form(x, *tables).astype(jnp.float32)
            return (y * jnp.arange(y.size).reshape(y.shape)).sum(), y

        found = jax.grad(loss, has_aux=True)(q_BTNK)
        return [np.asarray(array, np.float64) for array in found]

    found = values(layers.rotate)
    on_another_platform(monkeypatch)
    for one, two in zip(found, values(layers.rotate), strict=True):
        np.testing.assert_allclose(one, two, atol=tolerance * np.abs(two).max(), rtol=0)
