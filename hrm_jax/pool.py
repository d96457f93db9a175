"""Training of candidate sets: a pool of puzzles in all stages of being solved.

The rows of the carry are the pool. A train step refills the rows that were replaced, some with
hints (``refill``), learns from every row's state as it stands (``step_loss``), and then, with the
updated weights, moves every row by one step of the search and decides which to replace (``move``).
The solution never moves a state; it is the target, and it tells which detected conflicts are true
ones. Each puzzle has one solution here; where a batch of the original has no cell whose choice it
could learn from, its AdamW leaves the choice head alone, and here the head decays.

Source: lattice deduction transformers, arXiv 2605.08605; santolucito/lattice-deduction-transformers
src/experiments/sudoku/train.py.
"""

import dataclasses

import jax
import jax.numpy as jnp

from hrm_jax import act, losses
from hrm_jax.config import DataConfig, ExperimentConfig, LossConfig, ModelConfig
from hrm_jax.model import draws, hrm, lattice, starts
from hrm_jax.model.candidates import Readings
from hrm_jax.types import IGNORE_LABEL_ID, Batch, Carry, Outputs, Sums, Weights


def refill(
    config: ExperimentConfig,
    weights: Weights,
    carry: Carry,
    batch: Batch,
    key: jax.Array | None,
) -> Carry:
    """Gives replaced rows a new puzzle, some with hints, and all candidates."""
    hinted = with_hints(config.model, config.data, batch, key)
    fresh = starts.initial_latent(config.model, weights, carry.halted.shape[0])
    return act.refill(carry, hinted, fresh)


def with_hints(model: ModelConfig, data: DataConfig, batch: Batch, key: jax.Array | None) -> Batch:
    """Fills open cells of some puzzles in, of some others also wrong ones.

    A share ``data.hint_prob`` of the rows gets floor(u * open cells) right ones, u in [0, 1). A
    share ``data.wrong_hint_prob`` gets max(1, floor(u * open cells)), u in [0.1, 1), of which
    max(1, floor(u * hints)), u in [0.01, 0.3), are another symbol; such a question has no solution,
    and its labels count no more (``IGNORE_LABEL_ID``). Rows without an open cell stay as they
    are.
    """
    if data.hint_prob == data.wrong_hint_prob == 0:
        return batch
    own = draws.key_of('hint', key)
    rows, cells = batch.inputs.shape
    kind_B, amount_B, wrong_B = draws.uniform(draws.fold(own, 0), (3, rows))
    open_BS = lattice.open_cells(model, batch.inputs) & (batch.labels >= model.first_symbol)
    open_B = open_BS.sum(-1)
    is_wrong_B = (kind_B < data.wrong_hint_prob) & (open_B > 0)
    is_right_B = ~is_wrong_B & (kind_B < data.wrong_hint_prob + data.hint_prob)
    right_B = jnp.where(is_right_B, jnp.floor(amount_B * open_B), 0)
    some_B = jnp.maximum(1, jnp.floor((0.1 + 0.9 * amount_B) * open_B))
    hints_B = jnp.where(is_wrong_B, some_B, right_B)
    errors_B = jnp.maximum(1, jnp.floor((0.01 + 0.29 * wrong_B) * hints_B)) * is_wrong_B

    # Cells in a random order, open ones first: hints are the first of them, errors the very first.
    scores_BS = draws.uniform(draws.fold(own, 1), (rows, cells))
    order_BS = jnp.argsort(jnp.where(open_BS, scores_BS, 2.0), axis=-1)
    place_BS = jnp.argsort(order_BS, axis=-1)
    hinted_BS = place_BS < hints_B[:, None]
    error_BS = place_BS < errors_B[:, None]
    size = model.num_symbols
    uniform_BS = draws.uniform(draws.fold(own, 2), (rows, cells))
    shift_BS = 1 + jnp.floor(uniform_BS * (size - 1)).astype(jnp.int32)
    other_BS = model.first_symbol + (batch.labels - model.first_symbol + shift_BS) % size
    hint_BS = jnp.where(error_BS, other_BS, batch.labels)
    return batch.replace(
        inputs=jnp.where(hinted_BS, hint_BS, batch.inputs),
        labels=jnp.where(is_wrong_B[:, None], IGNORE_LABEL_ID, batch.labels),
    )


def has_conflict(model: ModelConfig, alive_BSC: jax.Array, labels_BS: jax.Array) -> jax.Array:
    """Whether a cell has lost its solution, bool [B]; always without a solution."""
    return (~(alive_BSC & lattice.one_hot(model, labels_BS)).any(-1)).any(-1)


def loss_parts(
    readings: Readings,
    alive_BSC: jax.Array,
    open_BS: jax.Array,
    target_BSC: jax.Array,
    conflict_B: jax.Array,
    config: LossConfig,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The three losses of every loop, float32 [loops], not weighted against each other.

    Args:
      readings: of every loop.
      alive_BSC: the state that was read.
      open_BS: cells that are not given.
      target_BSC: the solution as sets of one candidate; empty where there is none.
      conflict_B: rows that no solution is left of.
      config: weights of the candidates.

    Returns:
      Of candidates that stay (a weighted mean over all), of the choice of a symbol (a mean over the
      open cells with a symbol of the rows without conflict), and of conflicts (a mean over rows).
    """
    stays = alive_BSC & target_BSC
    weight = jnp.where(stays, config.candidate_weight, config.removed_weight)
    keep = losses.binary_cross_entropy(readings.keep, stays.astype(jnp.float32))
    keep_L = (weight * keep).mean((1, 2, 3))
    scored_BS = open_BS & (target_BSC.sum(-1) == 1) & ~conflict_B[:, None]
    choice = -jnp.where(target_BSC, jax.nn.log_softmax(readings.choice, axis=-1), 0.0).sum(-1)
    choice_L = jnp.where(scored_BS, choice, 0.0).sum((1, 2)) / jnp.maximum(scored_BS.sum(), 1)
    conflict = losses.binary_cross_entropy(readings.conflict, conflict_B.astype(jnp.float32))
    return keep_L, choice_L, conflict.mean(1)


def weighted(
    parts: tuple[jax.Array, jax.Array, jax.Array], config: LossConfig
) -> tuple[jax.Array, jax.Array]:
    """The loss of candidates and choice and that of conflicts, float32 []: means over the loops."""
    keep, choice, conflict = (part.mean() for part in parts)
    return keep + config.choice_weight * choice, config.conflict_weight * conflict


def step_loss(
    config: ExperimentConfig,
    weights: Weights,
    puzzle_rows_BE: jax.Array | None,
    carry: Carry,
    min_steps_B: jax.Array,
    key: jax.Array | None = None,
    step: jax.Array | int = 0,
) -> tuple[jax.Array, tuple[Carry, Outputs | None, jax.Array | None, Sums]]:
    """Loss of every row's state as it stands; arguments and results are those of ACT's.

    See ``train_step.step_loss``. The loss is a mean over the whole batch, of every loop alike. The
    state stays, there are no outputs and no target, and the sums hold the losses alone: that of
    candidates and choice as ``lm_loss``, that of conflicts as ``q_halt_loss``.
    """
    del puzzle_rows_BE, min_steps_B, step
    model, inputs, labels = config.model, carry.batch.inputs, carry.batch.labels
    step_key = draws.fold(key, 0)
    view = lattice.draw_view(model, step_key, len(inputs))
    alive_BSC = lattice.meet(model, carry.latent.high, inputs)
    conflict_B = has_conflict(model, alive_BSC, labels)
    alive_BSC, target_BSC, open_BS = (
        lattice.through(view, x)
        for x in (alive_BSC, lattice.one_hot(model, labels), lattice.open_cells(model, inputs))
    )
    readings = hrm.read_candidates(
        model, weights, alive_BSC, step_key, training=True, all_loops=True
    )
    parts = loss_parts(readings, alive_BSC, open_BS, target_BSC, conflict_B, config.loss)
    answer, conflict = weighted(parts, config.loss)
    rows = len(inputs)
    sums = Sums.zeros().replace(lm_loss=rows * answer, q_halt_loss=rows * parts[2].mean())
    return answer + conflict, (carry, None, None, jax.lax.stop_gradient(sums))


def move(
    config: ExperimentConfig, weights: Weights, carry: Carry, key: jax.Array | None
) -> tuple[Carry, Sums]:
    """Moves every row by one step of the search, without dropout, and decides which to replace.

    Replaced are rows that the model holds for solved, those whose conflict it has seen and that
    have one by the solution, and those of ``act.halt_max_steps`` steps. Other conflicts stay, to be
    seen or taken back.

    Args:
      config: the experiment.
      weights: after the update.
      carry: rows that have been learned from.
      key: of the step.

    Returns:
      The carry, and the sums of the rows that are replaced.
    """
    labels = carry.batch.labels
    latent, outputs = hrm.act_step(
        config.model, weights, carry.latent, carry.batch.inputs, None,
        draws.key_of('pool_step', key),
    )  # fmt: skip
    steps = carry.steps + 1
    halted = act.halt(outputs, steps, jnp.zeros_like(steps), config.act)
    assert outputs.conflict is not None  # of candidate sets
    halted = halted | (outputs.conflict & has_conflict(config.model, latent.high, labels))
    _, sums = losses.act_loss(outputs, labels, steps, halted, None, config.loss)
    carry = dataclasses.replace(carry, latent=latent, steps=steps, halted=halted)
    return carry, sums.replace(lm_loss=jnp.float32(0))
