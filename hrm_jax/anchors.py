"""Answer anchors: training steps that start from a corrupted answer, and must lead back to it.

They make the right answer a fixed point of the step, so that the size of the state's last changes
distinguishes right answers from wrong ones. Settings: ``loss.anchor_*``. Source: the digit-field
model (Fixed-Point-Reasoner-Structures tools/pretrain.py, field_fpa_loss).
"""

import dataclasses

import jax
import jax.numpy as jnp

from hrm_jax import losses
from hrm_jax.config import ExperimentConfig, LossConfig
from hrm_jax.model import draws, hrm, starts, symbols
from hrm_jax.types import IGNORE_LABEL_ID, Batch, LatentState, Weights


def number_of_rows(rows: int, config: LossConfig) -> int:
    """How many of the first rows are anchored."""
    return max(1, round(rows * config.anchor_share))


def corrupt(
    batch: Batch, rate_B: jax.Array, uniform_BS: jax.Array, symbols_BS: jax.Array, first_symbol: int
) -> jax.Array:
    """Returns answers [B, S] of which a share of the cells was replaced, never a given one.

    Args:
      batch: puzzles with their answers.
      rate_B: share of the cells of each row.
      uniform_BS: a cell is replaced where this is below the rate.
      symbols_BS: tokens that take the place; may be the right ones.
      first_symbol: tokens from here on are given cells.
    """
    open_BS = (batch.inputs < first_symbol) & (batch.labels != IGNORE_LABEL_ID)
    replaced = open_BS & (uniform_BS < rate_B[:, None])
    return jnp.where(replaced, symbols_BS, batch.labels)


def start(config: ExperimentConfig, weights: Weights, answers_BS: jax.Array) -> LatentState:
    """A state that stands for answers [B, S]; the low state, if any, is that of inference."""
    model = config.model
    if model.initial_state in ('random_low', 'random_in_training'):
        model = dataclasses.replace(model, initial_state='fixed')
    latent = starts.fresh_latent(model, weights, len(answers_BS))
    roles = weights.params['embed_symbols']['roles']
    high = symbols.answer_state(model, roles, answers_BS).astype(latent.high.dtype)
    return latent.replace(high=latent.high.at[:, :, : high.shape[2]].set(high))


def loss(
    config: ExperimentConfig,
    weights: Weights,
    batch: Batch,
    puzzle_rows_BE: jax.Array | None,
    key: jax.Array | None,
) -> jax.Array:
    """Mean token loss of the anchored rows, float32 [].

    Args:
      config: the experiment.
      weights: gradients flow to the params.
      batch: the puzzles in the carry; the first rows are anchored.
      puzzle_rows_BE: their rows of the puzzle table, or None.
      key: of the corruption and of what the model draws.
    """
    model, rows = config.model, number_of_rows(len(batch.inputs), config.loss)
    batch, puzzle_rows_BE = jax.tree.map(lambda x: x[:rows], (batch, puzzle_rows_BE))
    key = draws.key_of('anchor', key)
    if key is None:
        raise ValueError('answer anchors are drawn at random: pass a key.')
    rate_key, cells_key, symbols_key = (jax.random.fold_in(key, number) for number in range(3))
    rate = config.loss.anchor_corruption * jax.random.uniform(rate_key, (rows,))
    uniform = jax.random.uniform(cells_key, batch.inputs.shape)
    tokens = jax.random.randint(
        symbols_key, batch.inputs.shape, model.first_symbol, model.vocab_size
    )
    answers = corrupt(batch, rate, uniform, tokens, model.first_symbol)
    latent, total = start(config, weights, answers), jnp.float32(0)
    for number in range(config.loss.anchor_steps):
        latent, outputs = hrm.act_step(
            model, weights, latent, batch.inputs, puzzle_rows_BE, draws.fold(key, 3 + number),
            training=True,
        )  # fmt: skip
        latent = jax.lax.stop_gradient(latent)
        total += losses.row_losses(outputs.logits, batch.labels, config.loss).mean()
    return total / config.loss.anchor_steps
