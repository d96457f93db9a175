"""Losses and sums: safety in float32, rows without labels, who is counted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax import losses, metrics
from hrm_jax.config import LossConfig
from hrm_jax.types import IGNORE_LABEL_ID, Outputs


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_stablemax_gradient_is_finite_where_a_logit_is_one(dtype):
    logits = jnp.array([[[1.0, 0.0, -0.0, -1.0, 1e6, -1e6]]], dtype)
    labels = jnp.array([[0]])
    gradient = jax.grad(lambda x: losses.stablemax_cross_entropy(x, labels).sum())(logits)
    assert np.isfinite(np.asarray(gradient, np.float32)).all()


def _example():
    # Row 0 right, row 1 half right, row 2 without labels, row 3 right but still running.
    answers = jnp.array([[0, 1], [0, 1], [0, 1], [1, 1]])
    logits = 4.0 * jax.nn.one_hot(answers, 3)
    labels = jnp.array([[0, 1], [0, 2], [IGNORE_LABEL_ID] * 2, [1, IGNORE_LABEL_ID]])
    outputs = Outputs(
        logits=logits, q_halt=jnp.array([1.0, 1.0, -1.0, 1.0]), q_continue=jnp.zeros(4)
    )
    return outputs, labels, jnp.array([2, 3, 4, 1]), jnp.array([True, True, True, False])


def test_sums_count_halted_rows_with_labels():
    outputs, labels, steps, halted = _example()
    loss, sums = losses.act_loss(outputs, labels, steps, halted, jnp.full(4, 0.5), LossConfig())
    assert (sums.count, sums.rows) == (2, 3)
    assert sums.accuracy == 1.5
    assert sums.exact_accuracy == 1
    assert sums.q_halt_accuracy == 1  # row 1 is sure of a wrong answer
    assert sums.steps == 5
    assert sums.q_halt_mean == 3
    right, wrong = np.log1p(np.exp(-1.0)), np.log1p(np.exp(1.0))
    np.testing.assert_allclose(sums.q_halt_loss, 2 * right + wrong, rtol=1e-6)
    np.testing.assert_allclose(sums.q_continue_loss, 3 * np.log(2), rtol=1e-6)
    hit, miss = -np.log(5 / 7), -np.log(1 / 7)  # stablemax of 4 and twice 0
    np.testing.assert_allclose(sums.lm_loss, hit + (hit + miss) / 2 + hit, rtol=1e-5)
    total = sums.lm_loss + 0.5 * (sums.q_halt_loss + sums.q_continue_loss)
    np.testing.assert_allclose(loss, total, rtol=1e-6)


def test_the_original_counts_empty_rows_as_solved():
    outputs, labels, steps, halted = _example()
    config = LossConfig(count_empty_rows=True)
    _, ours = losses.act_loss(outputs, labels, steps, halted, None, LossConfig())
    _, theirs = losses.act_loss(outputs, labels, steps, halted, None, config)
    np.testing.assert_allclose(
        theirs.q_halt_loss - ours.q_halt_loss, np.log1p(np.exp(1.0)), rtol=1e-5
    )
    assert theirs.q_continue_loss == 0


def test_metrics_divide_once_over_everything_merged():
    outputs, labels, steps, halted = _example()
    _, sums = losses.act_loss(outputs, labels, steps, halted, None, LossConfig())
    nothing = jax.tree.map(jnp.zeros_like, sums)
    merged = metrics.train_metrics(sums, 4).merge(metrics.train_metrics(nothing, 4))
    values = metrics.to_floats(merged, 'train')
    assert values['train/accuracy'] == pytest.approx(0.75)
    assert values['train/lm_loss'] == pytest.approx(float(sums.lm_loss) / 8)
    assert values['train/halted'] == 0.25
    assert metrics.to_floats(metrics.train_metrics(nothing, 4), 'train')['train/steps'] == 0
    evaluated = metrics.to_floats(metrics.eval_metrics(sums), 'eval/all')
    assert evaluated['eval/all/q_halt_loss'] == pytest.approx(float(sums.q_halt_loss) / 2)
    empty = metrics.to_floats(metrics.eval_metrics(nothing), 'eval/all')
    assert np.isnan(empty['eval/all/accuracy'])
