"""Refill, halting, exploration and Q targets."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax import act
from hrm_jax.config import ActConfig
from hrm_jax.types import Batch, Carry, LatentState, Outputs


def _batch(value: int, rows: int = 4) -> Batch:
    return Batch(
        inputs=jnp.full((rows, 3), value, jnp.int32),
        labels=jnp.full((rows, 3), value + 1, jnp.int32),
        puzzle_identifiers=jnp.full(rows, value, jnp.int32),
    )


def _outputs(q_halt, q_continue) -> Outputs:
    return Outputs(logits=None, q_halt=jnp.float32(q_halt), q_continue=jnp.float32(q_continue))


def test_refill_replaces_halted_rows_and_no_others():
    halted = jnp.array([True, False, True, False])
    latent = LatentState(high=jnp.ones((4, 5, 2)), low=2 * jnp.ones((4, 5, 2)))
    carry = Carry(latent=latent, steps=jnp.array([3, 1, 4, 2]), halted=halted, batch=_batch(1))
    initial = LatentState(high=jnp.array([7.0, 8.0]), low=jnp.array([9.0, 10.0]))
    after = act.refill(carry, _batch(5), initial)
    np.testing.assert_array_equal(after.steps, [0, 1, 0, 2])
    np.testing.assert_array_equal(after.batch.puzzle_identifiers, [5, 1, 5, 1])
    np.testing.assert_array_equal(after.batch.labels[:, 0], [6, 2, 6, 2])
    np.testing.assert_array_equal(after.latent.high[0], np.tile([7, 8], (5, 1)))
    np.testing.assert_array_equal(after.latent.low[2, 4], [9, 10])
    np.testing.assert_array_equal(after.latent.high[1], 1)
    np.testing.assert_array_equal(after.latent.low[3], 2)


def test_the_first_step_takes_every_row():
    latent = LatentState(high=jnp.zeros((4, 5, 2)), low=jnp.zeros((4, 5, 2)))
    carry = act.initial_carry(latent, _batch(0))
    after = act.refill(carry, _batch(3), LatentState(high=jnp.ones(2), low=jnp.ones(2)))
    np.testing.assert_array_equal(after.batch.inputs, 3)
    np.testing.assert_array_equal(after.latent.high, 1)


@pytest.mark.parametrize(('halting', 'want'), [
    ('q_learning', [True, False, False, True]),
    ('halt_only', [True, False, True, True]),
    ('fixed', [False, False, False, True]),
])  # fmt: skip
def test_halting_rules(halting, want):
    outputs = _outputs([2, -1, 1, -3], [1, -1, 3, 5])  # a tie goes on
    config = ActConfig(halting=halting, halt_max_steps=4)
    got = act.halt(outputs, jnp.array([1, 1, 1, 4]), jnp.zeros(4, jnp.int32), config)
    np.testing.assert_array_equal(got, want)


def test_a_minimum_delays_halting_but_not_the_last_step():
    config = ActConfig(halt_max_steps=4)
    outputs = _outputs([9, 9, 9], [0, 0, 0])
    got = act.halt(outputs, jnp.array([1, 3, 4]), jnp.array([3, 3, 4]), config)
    np.testing.assert_array_equal(got, [False, True, True])


def test_one_step_at_most_halts_at_once():
    config = ActConfig(halt_max_steps=1)
    got = act.halt(_outputs([-9], [9]), jnp.array([1]), jnp.array([2]), config)
    np.testing.assert_array_equal(got, [True])
    assert not act.has_continue_target(config)


def test_exploration_draws_its_share_over_the_whole_range():
    config = ActConfig(halt_max_steps=5, halt_exploration_prob=0.25)
    drawn = np.asarray(act.exploration_min_steps(jax.random.key(0), 40000, config))
    assert set(np.unique(drawn)) == {0, 2, 3, 4, 5}
    assert abs((drawn > 0).mean() - 0.25) < 0.01
    counts = np.bincount(drawn)[2:] / (drawn > 0).sum()
    np.testing.assert_allclose(counts, 0.25, atol=0.02)
    never = dataclasses.replace(config, halt_exploration_prob=0.0)
    assert not act.exploration_min_steps(jax.random.key(0), 100, never).any()


def test_the_target_is_the_best_action_one_step_later():
    config = ActConfig(halt_max_steps=4)
    target = act.continue_target(
        *jnp.array([[1, -2, -2], [0.0, 3, 3]]), jnp.array([1, 1, 4]), config
    )
    np.testing.assert_allclose(target, jax.nn.sigmoid(jnp.array([1.0, 3.0, -2.0])), rtol=1e-6)
