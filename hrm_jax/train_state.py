"""Makes a TrainState, placed on the mesh from the start."""

import dataclasses
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np

from hrm_jax import act, partitioning, types
from hrm_jax.config import ExperimentConfig, ModelConfig
from hrm_jax.config.model import FACTORS_OF_A_PUZZLE
from hrm_jax.errors import ConfigError
from hrm_jax.model import chains, hrm, puzzle_table, starts
from hrm_jax.types import Batch, Carry, TrainState, Weights


def _empty_batch(config: ExperimentConfig) -> Batch:
    rows, cells = config.train.global_batch_size, config.model.seq_len
    return Batch(
        inputs=jnp.zeros((rows, cells), jnp.int32),
        labels=jnp.zeros((rows, cells), jnp.int32),
        puzzle_identifiers=jnp.zeros(rows, jnp.int32),
    )


def init_variables(config: ExperimentConfig, rng: jax.Array) -> Any:
    """Draws ``{'params': ..., 'constants': ...}`` in linen boxes with logical axis names."""
    model = config.model
    puzzle_rows = jnp.zeros((1, model.puzzle_row_size)) if model.has_puzzle_table else None
    inputs = jnp.zeros((1, model.seq_len), jnp.int32)
    latent = starts.empty_latent(starts.one_chain(model), 1)
    return hrm.HRM(model).init(rng, latent, inputs, puzzle_rows)


def _empty_table(model: ModelConfig) -> Any:
    """The puzzle table in its box, or None without one."""
    if not model.has_puzzle_table:
        return None
    # Zeros, as in the original: a puzzle that was never trained has no voice.
    table = jnp.zeros((model.table_rows, model.puzzle_row_size), jnp.float32)
    return nn.LogicallyPartitioned(table, (types.PUZZLES if model.has_large_table else None, None))


def _build(config: ExperimentConfig, rng: jax.Array) -> TrainState:
    from hrm_jax import optim  # optax is not for who only answers puzzles

    model = config.model
    init_rng, train_rng = jax.random.split(rng)
    variables = init_variables(config, init_rng)
    if model.align_chains and 'constants' in variables:
        constants = variables['constants']
        kernel = chains.up_kernel(nn.unbox(variables['params']))
        variables['constants'] = constants | {'L_init': chains.aligned(constants['L_init'], kernel)}
    constants = variables.get('constants', {})
    if model.composes_embeddings:  # filled in from the data set (``with_factors``)
        shape = (model.num_puzzle_identifiers, FACTORS_OF_A_PUZZLE)
        constants = constants | {puzzle_table.FACTORS: jnp.zeros(shape, jnp.int32)}
    table = _empty_table(model)
    params = variables['params']
    opt_state = {
        'weights': optim.weight_optimizer(config.optimizer, 1).init(params),
        'puzzle_table': optim.puzzle_optimizer(config.optimizer, 1).init(table),
    }
    latent = starts.empty_latent(model, config.train.global_batch_size)
    return TrainState(
        step=jnp.zeros([], jnp.int32),
        weights=Weights(params, constants, table),
        opt_state=opt_state,
        ema=jax.tree.map(jnp.copy, params) if config.optimizer.ema_decay > 0 else None,
        carry=act.initial_carry(latent, _empty_batch(config)),
        rng=train_rng,
    )


def _check_sizes(config: ExperimentConfig) -> None:
    names = ['vocab_size', 'seq_len', 'num_puzzle_identifiers']
    for name in names + ['puzzle_tasks'] * config.model.composes_embeddings:
        if not getattr(config.model, name):
            raise ConfigError(
                f'model.{name} must be known before the model is made; it is 0. Fill it in with '
                f'config.model.for_dataset(...) from the metadata of the data set.'
            )


def _shardings(config: ExperimentConfig, mesh: Mesh) -> tuple[TrainState, TrainState]:
    boxed = jax.eval_shape(lambda rng: _build(config, rng), jax.random.key(0))
    shardings = partitioning.boxed_shardings(boxed, mesh)
    rows = jax.tree.map(lambda _: partitioning.batch_sharding(mesh), boxed.carry)
    return nn.unbox(boxed), dataclasses.replace(shardings, carry=rows)


def abstract(config: ExperimentConfig, mesh: Mesh) -> TrainState:
    """Shapes, dtypes and shardings of the state, without making it (to restore into)."""
    _check_sizes(config)
    shapes, shardings = _shardings(config, mesh)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings,
    )


def put_weights(config: ExperimentConfig, mesh: Mesh, weights: Weights) -> Weights:
    """Places saved weights (numpy) for an evaluation: as in training, whole on a split CPU."""
    table = weights.puzzle_table
    if table is not None and len(table) < config.model.table_rows:
        room = config.model.table_rows - len(table)
        weights = weights.replace(puzzle_table=np.pad(table, ((0, room), (0, 0))))
    whole = partitioning.replicated(mesh) if partitioning.is_split_cpu(mesh) else None
    like = abstract(config, mesh).weights
    return jax.tree.map(lambda x, to: jax.device_put(x, whole or to.sharding), weights, like)


def with_factors(state: TrainState, factors: np.ndarray) -> TrainState:
    """Returns a state with composed embeddings that knows what its identifiers are made of.

    Args:
      state: of a model with ``puzzle_embedding=composed``.
      factors: int32 [identifiers, 12] (data/factors.py).
    """
    constants = state.weights.constants
    placed = jax.device_put(factors, constants[puzzle_table.FACTORS].sharding)
    weights = state.weights.replace(constants={**constants, puzzle_table.FACTORS: placed})
    return state.replace(weights=weights)


def create_carry(config: ExperimentConfig, mesh: Mesh) -> Carry:
    """The carry of step 0: every row takes a puzzle at the next step."""
    latent = starts.empty_latent(config.model, config.train.global_batch_size)
    carry = act.initial_carry(latent, _empty_batch(config))
    return jax.device_put(carry, partitioning.batch_sharding(mesh))


def create(config: ExperimentConfig, mesh: Mesh) -> TrainState:
    """Makes the state of step 0 from ``config.seed``, every array in its place on the mesh.

    Raises:
      ConfigError: the sizes of the data set are not filled in, or the batch or the model does not
        divide over the mesh.
    """
    _check_sizes(config)
    partitioning.check_fits(config, mesh)
    _, shardings = _shardings(config, mesh)
    build = jax.jit(lambda rng: nn.unbox(_build(config, rng)), out_shardings=shardings)
    return build(jax.random.key(config.seed))
