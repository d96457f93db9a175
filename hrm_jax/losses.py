"""Losses and metric numerators of one ACT step, as sums over the batch.

Source: sapientinc/HRM models/losses.py. The original computes stablemax in float64; here it
is float32, made safe by a double ``where``.
"""

import chex
import jax
import jax.numpy as jnp

from hrm_jax.config import LossConfig
from hrm_jax.types import IGNORE_LABEL_ID, Outputs, Sums


def _log_stablemax_terms(logits: jax.Array) -> jax.Array:
    # log s(x) with s(x) = x + 1 for x >= 0 and 1 / (1 - x) below. Each branch is fed values
    # from its own side only: the other side's derivative can be infinite, and inf * 0 is NaN.
    positive = logits >= 0
    upper = jnp.where(positive, logits, 0.0)
    lower = jnp.where(positive, 0.0, logits)
    return jnp.where(positive, jnp.log1p(upper), -jnp.log1p(-lower))


def stablemax_cross_entropy(
    logits_BSV: jax.Array, labels_BS: jax.Array, smoothing: float = 0.0
) -> jax.Array:
    """Cross entropy under stablemax, float32 [B, S]; 0 where the label is ignored."""
    log_terms = _log_stablemax_terms(logits_BSV.astype(jnp.float32))
    log_probs = log_terms - jax.nn.logsumexp(log_terms, axis=-1, keepdims=True)
    return _cross_entropy(log_probs, labels_BS, smoothing)


def stablemax(logits: jax.Array) -> jax.Array:
    """Probabilities that ``stablemax_cross_entropy`` scores, float32, over the last axis."""
    log_terms = _log_stablemax_terms(logits.astype(jnp.float32))
    return jnp.exp(log_terms - jax.nn.logsumexp(log_terms, axis=-1, keepdims=True))


def binary_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Cross entropy of logits and targets in [0, 1], float32 and of one shape, entry by entry."""
    log_yes, log_no = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    return -targets * log_yes - (1.0 - targets) * log_no


def softmax_cross_entropy(
    logits_BSV: jax.Array, labels_BS: jax.Array, smoothing: float = 0.0
) -> jax.Array:
    """Cross entropy under softmax, float32 [B, S]; 0 where the label is ignored."""
    log_probs = jax.nn.log_softmax(logits_BSV.astype(jnp.float32), axis=-1)
    return _cross_entropy(log_probs, labels_BS, smoothing)


def _cross_entropy(log_probs_BSV: jax.Array, labels_BS: jax.Array, smoothing: float) -> jax.Array:
    """With label smoothing a: (1 - a) of the label's loss, a of the mean over the vocabulary."""
    if smoothing > 0:
        everyone = smoothing * log_probs_BSV.mean(-1, keepdims=True)
        log_probs_BSV = (1 - smoothing) * log_probs_BSV + everyone
    return _pick(-log_probs_BSV, labels_BS)


def _pick(values_BSV: jax.Array, labels_BS: jax.Array) -> jax.Array:
    scored = labels_BS != IGNORE_LABEL_ID
    indices = jnp.where(scored, labels_BS, 0)[..., None]
    picked = jnp.take_along_axis(values_BSV, indices, axis=-1)[..., 0]
    return jnp.where(scored, picked, 0.0)


_TOKEN_LOSSES = {
    'stablemax_cross_entropy': stablemax_cross_entropy,
    'softmax_cross_entropy': softmax_cross_entropy,
}


def row_losses(logits_BSV: jax.Array, labels_BS: jax.Array, config: LossConfig) -> jax.Array:
    """Token losses of every row, averaged over its scored cells, float32 [B]."""
    cells_B = jnp.maximum((labels_BS != IGNORE_LABEL_ID).sum(-1), 1)
    token_loss = _TOKEN_LOSSES[config.loss_type]
    return token_loss(logits_BSV, labels_BS, config.label_smoothing).sum(-1) * (1.0 / cells_B)


def act_loss(
    outputs: Outputs,
    labels_BS: jax.Array,
    steps_B: jax.Array,
    halted_B: jax.Array,
    continue_target_B: jax.Array | None,
    config: LossConfig,
) -> tuple[jax.Array, Sums]:
    """Loss of one ACT step, summed over rows, and the sums of every metric.

    A row's token losses are averaged over its scored cells. ``q_halt`` learns whether the
    argmax answers every scored cell, ``q_continue`` the bootstrap target. With ``step_decay`` the
    token losses of ACT step n count decay^(n - 1) times in the loss; the sums are of all the same.

    Args:
      outputs: predictions of the step.
      labels_BS: int32 labels of the puzzles in the carry, not of the incoming batch.
      steps_B: int32 ACT steps spent, this one included.
      halted_B: bool, rows that stop after this step; the accuracies count those only.
      continue_target_B: float32 target of q_continue, or None where the rule has none.
      config: which token loss, the weight of the Q losses, and whether rows without a
        scored cell count as solved in them (``count_empty_rows``).

    Returns:
      The loss, float32 [], to be divided by the global batch size; and ``Sums``.
    """
    chex.assert_equal_shape_prefix([outputs.logits, labels_BS], 2)
    scored = labels_BS != IGNORE_LABEL_ID
    cells_B = scored.sum(-1)
    share_B = 1.0 / jnp.maximum(cells_B, 1)  # float32
    right_B = (scored & (jnp.argmax(outputs.logits, axis=-1) == labels_BS)).sum(-1)
    solved_B = right_B == cells_B  # a row without a scored cell counts as solved
    has_cells_B = cells_B > 0
    valid_B = halted_B & has_cells_B
    q_rows_B = jnp.ones_like(has_cells_B) if config.count_empty_rows else has_cells_B

    lm_loss_B = row_losses(outputs.logits, labels_BS, config)
    lm_loss = lm_loss_B.sum()
    weighted_lm_loss = lm_loss
    if config.step_decay < 1:
        weighted_lm_loss = (lm_loss_B * config.step_decay ** (steps_B - 1)).sum()

    def q_loss(logits_B, target_B):
        losses_B = binary_cross_entropy(logits_B, target_B)
        return jnp.where(q_rows_B, losses_B, 0.0).sum()

    q_halt_loss = q_continue_loss = jnp.float32(0.0)
    if config.q_weight > 0:
        q_halt_loss = q_loss(outputs.q_halt, solved_B.astype(jnp.float32))
        if continue_target_B is not None:
            q_continue_loss = q_loss(outputs.q_continue, continue_target_B)

    def total(mask_B, values_B: jax.Array | float = 1.0):
        return jnp.where(mask_B, values_B, 0).sum().astype(jnp.float32)

    sums = Sums(
        count=total(valid_B),
        accuracy=total(valid_B, right_B * share_B),
        exact_accuracy=total(valid_B & solved_B),
        q_halt_accuracy=total(valid_B & ((outputs.q_halt >= 0) == solved_B)),
        steps=total(valid_B, steps_B),
        lm_loss=lm_loss,
        q_halt_loss=q_halt_loss,
        q_continue_loss=q_continue_loss,
        q_halt_mean=total(has_cells_B, outputs.q_halt),
        q_continue_mean=total(has_cells_B, outputs.q_continue),
        rows=total(has_cells_B),
    )
    loss = weighted_lm_loss + config.q_weight * (q_halt_loss + q_continue_loss)
    return loss, jax.lax.stop_gradient(sums)
