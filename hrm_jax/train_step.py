"""One train step: refill, think, loss, update. Pure, jitted, compiled once.

How a model is refilled and thinks, and what happens after the update, its ``Recipe`` states:
adaptive computation time (here and in act.py), or the pool of candidate sets (pool.py).

``make_train_steps`` runs several of them in one call, for models so small that dispatching from the
host takes the time.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import optax

from hrm_jax import (
    act,
    anchors,
    curriculum,
    losses,
    optim,
    partitioning,
    pool,
    train_state,
    types,
)
from hrm_jax.config import ExperimentConfig
from hrm_jax.model import chains, draws, flows, hrm, puzzle_table, starts
from hrm_jax.types import Batch, Carry, Outputs, Sums, TrainState, Weights


def step_loss(
    config: ExperimentConfig,
    weights: Weights,
    puzzle_rows_BE: jax.Array | None,
    carry: Carry,
    min_steps_B: jax.Array,
    key: jax.Array | None = None,
    step: jax.Array | int = 0,
) -> tuple[jax.Array, tuple[Carry, Outputs, jax.Array | None, Sums]]:
    """Loss of one ACT step on a carry that has been refilled, and what the step leads to.

    Args:
      config: the experiment; ``config.train.global_batch_size`` divides the loss.
      weights: of which params and constants are read.
      puzzle_rows_BE: rows of the puzzle table for the puzzles in the carry.
      carry: state in which no row is waiting for a puzzle.
      min_steps_B: int32, no earlier halting than this.
      key: of what the model draws: fold 0 for the step, fold 1 for the Q target; None: nothing.
        Answer anchors take a draw of their own (draws.py).
      step: train steps done, for what changes with them.

    Returns:
      The loss divided by the global batch size, and (new carry, outputs, target of
      q_continue or None, sums).
    """
    model, inputs = config.model, carry.batch.inputs
    weights = hrm.laid_out(model, weights)
    step_key, point = draws.fold(key, 0), None
    if carry.latent.answer is not None:
        labels = carry.batch.labels
        point = flows.interpolant(model, carry.latent.answer, inputs, labels, step_key, step)
    latent, outputs = hrm.act_step(
        model, weights, carry.latent, inputs, puzzle_rows_BE, step_key, training=True, point=point
    )
    latent = jax.lax.stop_gradient(latent)
    if model.chains > 1:
        per_chain = jax.vmap(
            lambda logits: losses.row_losses(logits, carry.batch.labels, config.loss), 1, 1
        )
        latent, outputs = chains.compete(model, latent, outputs, per_chain(outputs.logits))
    steps = carry.steps + 1
    halted = act.halt(outputs, steps, min_steps_B, config.act)
    target = None
    if act.has_continue_target(config.act):
        frozen, frozen_rows = jax.lax.stop_gradient((weights, puzzle_rows_BE))
        next_q = hrm.next_q(
            model, frozen, latent, inputs, frozen_rows, draws.fold(key, 1), training=True
        )
        target = act.continue_target(*next_q, steps, config.act)
    loss, sums = losses.act_loss(outputs, carry.batch.labels, steps, halted, target, config.loss)
    if config.loss.anchor_weight > 0:
        found = anchors.loss(config, weights, carry.batch, puzzle_rows_BE, key)
        loss += config.loss.anchor_weight * len(steps) * found
    carry = dataclasses.replace(carry, latent=latent, steps=steps, halted=halted)
    return loss / config.train.global_batch_size, (carry, outputs, target, sums)


def refill(
    config: ExperimentConfig,
    weights: Weights,
    carry: Carry,
    batch: Batch,
    key: jax.Array | None,
) -> Carry:
    """Gives halted rows a new puzzle and a fresh state; others keep theirs."""
    rows = carry.halted.shape[0]
    return act.refill(carry, batch, starts.initial_latent(config.model, weights, rows, key))


class Recipe(NamedTuple):
    """What a train step does besides its update; each part is pure.

    Attributes:
      refill: (config, weights, carry, batch, key) -> carry in which no row waits for a puzzle.
      step_loss: thinks, and gives the loss; see the function of that name.
      move: (config, updated weights, carry, key) -> (carry, sums that are added): what the rows do
        after the update. None: nothing.
    """

    refill: Callable[..., Carry]
    step_loss: Callable[..., Any]
    move: Callable[..., tuple[Carry, Sums]] | None = None


def recipe_of(config: ExperimentConfig) -> Recipe:
    """The recipe of an experiment."""
    if config.model.lattice.on:
        return Recipe(pool.refill, pool.step_loss, pool.move)
    return Recipe(refill, step_loss)


class Gradients(NamedTuple):
    """Gradients, new carry and metric sums of one (micro-)batch.

    Attributes:
      params: gradient of the loss with respect to ``weights.params``.
      rows: the same for the rows of the puzzle table, [B, E] or None.
      carry: after the ACT step.
      sums: numerators of the metrics.
    """

    params: Any
    rows: jax.Array | None
    carry: Carry
    sums: Sums


def gradients(
    config: ExperimentConfig,
    state: TrainState,
    carry: Carry,
    batch: Batch,
    min_steps_B: jax.Array,
    key: jax.Array | None,
) -> Gradients:
    """Refills halted rows of ``carry`` from ``batch``, thinks one step and differentiates it."""
    recipe = recipe_of(config)
    full = recipe.refill(config, state.weights, carry, batch, key)
    rows = puzzle_table.puzzle_rows(state.weights, full.batch.puzzle_identifiers)

    def loss(params, rows):
        weights = state.weights.replace(params=params)
        # Trained initial states get their gradient from the rows that begin at this step.
        begun = full
        if config.model.initial_state == 'learned':
            begun = recipe.refill(config, weights, carry, batch, key)
        return recipe.step_loss(config, weights, rows, begun, min_steps_B, key, state.step)

    (_, (new, _, _, sums)), (of_params, of_rows) = jax.value_and_grad(
        loss, argnums=(0, 1), has_aux=True
    )(state.weights.params, rows)
    return Gradients(of_params, of_rows, new, sums)


def accumulate(
    config: ExperimentConfig,
    state: TrainState,
    batch: Batch,
    min_steps_B: jax.Array,
    key: jax.Array | None,
) -> Gradients:
    """``gradients`` of the whole batch, from ``train.micro_batches`` parts one after the other.

    Part i takes the rows i, i + parts, ...: so each is on all devices. Refill and halting are
    per row, so the parts change the order of float32 sums and the memory needed, nothing else
    (what the model draws is drawn for each part).
    """
    parts = config.train.micro_batches
    if parts == 1:
        return gradients(config, state, state.carry, batch, min_steps_B, key)

    def place(x):
        return partitioning.constrain(x, (None, types.BATCH, *[None] * (x.ndim - 2)))

    def split(x):
        return place(jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1))

    def join(x):
        return jnp.swapaxes(place(x), 0, 1).reshape(-1, *x.shape[2:])

    def add(total, part):
        number, (carry, incoming, min_steps) = part
        found = gradients(config, state, carry, incoming, min_steps, draws.fold(key, number))
        return jax.tree.map(jnp.add, total, (found.params, found.sums)), (found.rows, found.carry)

    rows = jax.tree.map(split, (state.carry, batch, min_steps_B))
    zeros = (jax.tree.map(jnp.zeros_like, state.weights.params), Sums.zeros())
    (of_params, sums), by_row = jax.lax.scan(add, zeros, (jnp.arange(parts), rows))
    of_rows, carry = jax.tree.map(join, by_row)
    return Gradients(of_params, of_rows, carry, sums)


def train_step(
    config: ExperimentConfig, total_steps: int, state: TrainState, batch: Batch
) -> tuple[TrainState, Sums]:
    """Refills halted rows from ``batch``, thinks one step and updates every weight once.

    Args:
      config: the experiment.
      total_steps: length of the learning-rate schedule.
      state: state before the step.
      batch: incoming puzzles, global batch.

    Returns:
      The state after the step and the sums of its metrics.
    """
    key = jax.random.fold_in(state.rng, state.step)
    min_steps = act.exploration_min_steps(key, state.carry.steps.shape[0], config.act)
    model_key = draws.key_of('model', key)

    def run(model):
        staged = dataclasses.replace(config, model=model)
        return accumulate(staged, state, batch, min_steps, model_key)

    models = curriculum.models(config)
    if len(models) == 1:
        found = run(models[0])
    else:  # a program holds every stage, and the step decides: resuming needs nothing more
        stage = curriculum.stage(config, total_steps, state.step)
        found = jax.lax.switch(stage, [functools.partial(run, model) for model in models])

    weights = state.weights
    table, table_state = weights.puzzle_table, state.opt_state['puzzle_table']
    if table is not None:
        assert found.rows is not None  # the gradient of the table's rows
        sign_sgd = optim.puzzle_optimizer(config.optimizer, total_steps)
        row_updates, table_state = sign_sgd.update(
            optim.RowGradients(
                *puzzle_table.row_gradients(
                    weights, found.carry.batch.puzzle_identifiers, found.rows
                )
            ),
            table_state,
            table,
        )
        table = optim.apply_row_updates(table, cast(optim.RowGradients, row_updates))
    adam = optim.weight_optimizer(config.optimizer, total_steps)
    updates, weights_state = adam.update(found.params, state.opt_state['weights'], weights.params)
    params = optax.apply_updates(weights.params, updates)
    ema = state.ema
    if ema is not None:
        ema = optim.update_average(
            ema,
            params,
            config.optimizer.ema_decay,
            state.step + 1,
            config.optimizer.ema_start_step,
        )
    updated = weights.replace(params=params, puzzle_table=table)
    carry, sums, move = found.carry, found.sums, recipe_of(config).move
    if move is not None:
        carry, moved = move(config, updated, carry, model_key)
        sums += moved
    new_state = TrainState(
        step=state.step + 1,
        weights=updated,
        opt_state={'weights': weights_state, 'puzzle_table': table_state},
        ema=ema,
        carry=carry,
        rng=state.rng,
    )
    return new_state, sums


def jit_on(mesh: Mesh, config: ExperimentConfig, step: Callable[..., Any]) -> Callable[..., Any]:
    """Jits (state, batches) -> (state, sums) for the mesh; the state passed in is donated."""

    def on_mesh(state, batches):
        with partitioning.activate(mesh, config.train.gradient_sums):
            return step(state, batches)

    state_shardings = jax.tree.map(lambda leaf: leaf.sharding, train_state.abstract(config, mesh))
    return jax.jit(
        on_mesh,
        donate_argnums=0,
        in_shardings=(state_shardings, partitioning.batch_sharding(mesh)),
        out_shardings=(state_shardings, partitioning.replicated(mesh)),
    )


def make_train_step(
    config: ExperimentConfig, total_steps: int, mesh: Mesh
) -> Callable[[TrainState, Batch], tuple[TrainState, Sums]]:
    """Jits ``train_step`` for the mesh."""
    return jit_on(mesh, config, functools.partial(train_step, config, total_steps))


def make_train_steps(
    config: ExperimentConfig, total_steps: int, mesh: Mesh
) -> Callable[[TrainState, tuple[Batch, ...]], tuple[TrainState, tuple[Sums, ...]]]:
    """Jits ``train_step`` for one batch after another; the state passed in is donated.

    Each number of batches is a program of its own, compiled when it is first called.

    Args:
      config: the experiment.
      total_steps: length of the learning-rate schedule.
      mesh: devices of the state.

    Returns:
      (state, batches) -> (state after the last of them, the sums of every step).
    """

    def step(state, batch):
        return train_step(config, total_steps, state, batch)

    def rows(x):
        return partitioning.constrain(x, (None, types.BATCH, *[None] * (x.ndim - 2)))

    def steps(state, batches):
        if len(batches) == 1:
            state, sums = step(state, batches[0])
            return state, (sums,)
        stacked = jax.tree.map(lambda *x: rows(jnp.stack(x)), *batches)
        state, sums = jax.lax.scan(step, state, stacked)
        return state, tuple(jax.tree.map(lambda x, i=i: x[i], sums) for i in range(len(batches)))

    return jit_on(mesh, config, steps)
