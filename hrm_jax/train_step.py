"""One train step: ACT step, loss, gradients, both optimizers. Pure, jitted, compiled once."""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh
import optax

from hrm_jax import act, losses, optim, partitioning, train_state
from hrm_jax.config import ExperimentConfig
from hrm_jax.model import hrm
from hrm_jax.types import Batch, Carry, Outputs, Sums, TrainState


def act_step(
    config: ExperimentConfig,
    params: Any,
    constants: Any,
    puzzle_rows_BE: jax.Array | None,
    carry: Carry,
    min_steps_B: jax.Array,
    dropout_key: jax.Array | None = None,
) -> tuple[jax.Array, tuple[Carry, Outputs, jax.Array | None, Sums]]:
    """One ACT step on a carry that has been refilled.

    Args:
      config: the experiment; ``config.train.global_batch_size`` divides the loss.
      params: trained parameters.
      constants: fixed initial states.
      puzzle_rows_BE: rows of the puzzle table for the puzzles in the carry.
      carry: state in which no row is waiting for a puzzle.
      min_steps_B: int32, no earlier halting than this.
      dropout_key: turns dropout on.

    Returns:
      The loss divided by the global batch size, and (new carry, outputs, target of
      q_continue or None, sums).
    """
    core = hrm.HRM(config.model)

    def apply(params, latent, rows, number, method='__call__'):
        variables = {'params': params, 'constants': constants}
        rngs = None
        if dropout_key is not None:
            rngs = {'dropout': jax.random.fold_in(dropout_key, number)}
        return core.apply(variables, latent, carry.batch.inputs, rows, rngs=rngs, method=method)

    latent, outputs = apply(params, carry.latent, puzzle_rows_BE, 0)
    latent = jax.lax.stop_gradient(latent)
    steps = carry.steps + 1
    halted = act.halt(outputs, steps, min_steps_B, config.act)
    target = None
    if act.has_continue_target(config.act):
        frozen_params, frozen_rows = jax.lax.stop_gradient((params, puzzle_rows_BE))
        next_q = apply(frozen_params, latent, frozen_rows, 1, method='q_values')
        target = act.continue_target(*next_q, steps, config.act)
    loss, sums = losses.act_loss(outputs, carry.batch.labels, steps, halted, target, config.loss)
    carry = dataclasses.replace(carry, latent=latent, steps=steps, halted=halted)
    return loss / config.train.global_batch_size, (carry, outputs, target, sums)


def train_step(
    config: ExperimentConfig, total_steps: int, state: TrainState, batch: Batch
) -> tuple[TrainState, Sums]:
    """Refills halted rows from ``batch``, runs one ACT step and one update of every weight.

    Args:
      config: the experiment.
      total_steps: length of the learning-rate schedule.
      state: state before the step.
      batch: incoming puzzles, global batch.

    Returns:
      The state after the step and the sums of its metrics.
    """
    key = jax.random.fold_in(state.rng, state.step)

    def refill(params):
        return act.refill(state.carry, batch, hrm.initial_latent(state.constants, params))

    carry = refill(state.params)
    ids = carry.batch.puzzle_identifiers
    min_steps = act.exploration_min_steps(key, ids.shape[0], config.act)
    rows = hrm.gather_puzzle_rows(state.puzzle_table, ids)
    model = config.model
    drops = max(model.dropout, model.attention_dropout) > 0
    # Another number than the key's own split, which draws the exploration.
    dropout_key = jax.random.fold_in(key, 1) if drops else None

    def loss(params, rows):
        # Trained initial states get their gradient from the rows that begin at this step.
        begun = refill(params) if model.initial_state == 'learned' else carry
        return act_step(config, params, state.constants, rows, begun, min_steps, dropout_key)

    (_, (carry, _, _, sums)), (grads, row_grads) = jax.value_and_grad(
        loss, argnums=(0, 1), has_aux=True
    )(state.params, rows)

    table, table_state = state.puzzle_table, state.opt_state['puzzle_table']
    if table is not None:
        sign_sgd = optim.puzzle_optimizer(config.optimizer, total_steps)
        row_updates, table_state = sign_sgd.update(
            optim.RowGradients(ids, row_grads), table_state, table
        )
        table = optim.apply_row_updates(table, row_updates)
    adam = optim.weight_optimizer(config.optimizer, total_steps)
    updates, weights_state = adam.update(grads, state.opt_state['weights'], state.params)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if ema is not None:
        ema = optim.update_average(ema, params, config.optimizer.ema_decay)
    new_state = TrainState(
        step=state.step + 1,
        params=params,
        constants=state.constants,
        puzzle_table=table,
        opt_state={'weights': weights_state, 'puzzle_table': table_state},
        ema=ema,
        carry=carry,
        rng=state.rng,
    )
    return new_state, sums


def make_train_step(
    config: ExperimentConfig, total_steps: int, mesh: Mesh
) -> Callable[[TrainState, Batch], tuple[TrainState, Sums]]:
    """Jits ``train_step`` for the mesh; the state passed in is donated."""

    def step(state, batch):
        with partitioning.activate(mesh):
            return train_step(config, total_steps, state, batch)

    state_shardings = jax.tree.map(lambda leaf: leaf.sharding, train_state.abstract(config, mesh))
    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(state_shardings, partitioning.batch_sharding(mesh)),
        out_shardings=(state_shardings, partitioning.replicated(mesh)),
    )
