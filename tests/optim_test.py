"""Optimizers: the arc tangent, tiny gradients, row-sparse updates, clipping, schedule."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax import optim
from hrm_jax.config import OptimizerConfig


def test_arc_tangent_of_the_right_half_plane():
    rng = np.random.default_rng(0)

    def wide(values):
        return values * 10.0 ** rng.uniform(-14, 17, 20000)

    y = np.concatenate([wide(rng.normal(size=20000)), [0, 0, 2, -2, 1e18, 1e19]]).astype(np.float32)
    x = np.concatenate([wide(np.abs(rng.normal(size=20000))), [0, 3, 0, 0, 1e19, 1e19]])
    x_squared = np.square(x).astype(np.float32)
    got = np.asarray(optim.atan2_of_square(y, x_squared), np.float64)
    want = np.arctan2(y.astype(np.float64), np.sqrt(x_squared.astype(np.float64)))
    assert np.abs(got - want).max() < 2.5e-7
    near = np.abs(want) > 1e-18
    np.testing.assert_allclose(got[near], want[near], rtol=4e-7)
    assert got[20000] == 0


def test_arc_tangent_of_squares_that_overflow_is_finite():
    y, x_squared = jnp.float32([1e19, 1e20, -1e20]), jnp.float32([jnp.inf, jnp.inf, 1.0])
    got = optim.atan2_of_square(y, x_squared)
    assert jnp.isfinite(got).all()
    assert jnp.isnan(optim.atan2_of_square(jnp.float32(jnp.nan), jnp.float32(1.0)))


def test_one_pass_over_memory_for_each_array_of_an_update():
    transform = optim.adam_atan2(lambda count: 1e-2, 0.9, 0.95, 0.1)

    def step(weights, state, grads):
        updates, state = transform.update(grads, state, weights)
        return jax.tree.map(jnp.add, weights, updates), state

    weights = jnp.zeros((512, 512))
    compiled = jax.jit(step).lower(weights, transform.init(weights), weights).compile()
    program = compiled.as_text()
    passes = re.findall(r'= f32\[512,512\]\S* (?!parameter)\w+\(', program.split('ENTRY')[1])
    assert len(passes) == 3  # weights and two moments


def test_scale_of_the_gradients_does_not_matter():
    params = {'w': jnp.ones(3)}

    def after(scale):
        transform = optim.adam_atan2(lambda count: 1e-2, 0.9, 0.95, 0.1)
        state, p = transform.init(params), params
        for grad in ([1.0, -2.0, 0.5], [0.3, 1.0, -4.0]):
            updates, state = transform.update({'w': jnp.array(grad) * scale}, state, p)
            p = jax.tree.map(jnp.add, p, updates)
        return np.asarray(p['w'])

    # 1e-24: the squares would be flushed to 0, and the step would become pi / 2.
    for scale in (1e-24, 1e-12, 1e6):
        np.testing.assert_allclose(after(scale), after(1.0), rtol=1e-6)


def test_only_rows_of_the_batch_move_and_equal_ids_are_one_row():
    table = jnp.ones((6, 2))
    transform = optim.row_sparse_sign_sgd(lambda count: 0.1, 0.5)
    ids = jnp.array([4, 1, 4, 0])
    grads = jnp.array([[1.0, -3.0], [0.0, 2.0], [1.0, 1.0], [-1.0, -1.0]])
    updates, _ = transform.update(optim.RowGradients(ids, grads), transform.init(table), table)
    got = optim.apply_row_updates(table, updates)
    decayed = 1 - 0.1 * 0.5
    want = np.ones((6, 2))
    want[4] = [decayed - 0.1, decayed + 0.1]
    want[1] = [decayed, decayed - 0.1]  # sign(0) = 0, the decay stays
    want[0] = decayed + 0.1
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_no_dense_gradient_of_the_table():
    rows, ids = 1_000_000, jnp.zeros(8, jnp.int32)
    transform = optim.row_sparse_sign_sgd(lambda count: 0.1, 0.5)

    def step(table, grads):
        updates, _ = transform.update(optim.RowGradients(ids, grads), optim.SignSgdState(0), table)
        return optim.apply_row_updates(table, updates)

    shapes = (
        jax.ShapeDtypeStruct((rows, 16), jnp.float32),
        jax.ShapeDtypeStruct((8, 16), jnp.float32),
    )
    compiled = jax.jit(step, donate_argnums=0).lower(*shapes).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 1_000_000  # the table has 64 MB


def test_clipping_bounds_the_norm_before_the_moments():
    config = OptimizerConfig(grad_clip_norm=1.0, lr_warmup_steps=0)
    transform = optim.weight_optimizer(config, 10)
    params = {'w': jnp.zeros(2)}
    _, state = transform.update({'w': jnp.array([30.0, 40.0])}, transform.init(params), params)
    mu = next(leaf for leaf in jax.tree.leaves(state) if leaf.shape == (2,))
    np.testing.assert_allclose(mu / optim.GRADIENT_SCALE, [0.06, 0.08], rtol=1e-5)


@pytest.mark.parametrize(('step', 'want'), [(1, 0.1), (9, 0.9), (10, 1.0), (60, 0.55), (110, 0.1)])
def test_schedule(step, want):
    schedule = optim.warmup_cosine(1.0, 10, 110, 0.1)
    assert float(schedule(step)) == pytest.approx(want, abs=1e-6)


def test_updates_need_the_parameters():
    transform = optim.adam_atan2(lambda count: 1e-2, 0.9, 0.95, 0.1)
    with pytest.raises(ValueError, match='pass params'):
        transform.update({'w': jnp.ones(2)}, transform.init({'w': jnp.ones(2)}))
