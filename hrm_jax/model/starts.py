"""States before the first step: of rows that wait for a puzzle, and of puzzles just begun."""

import dataclasses

import jax
import jax.numpy as jnp

from hrm_jax.config.model import ModelConfig
from hrm_jax.model import chains, draws, flows, running_mean
from hrm_jax.types import LatentState, Weights


def initial_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of the initial states; they broadcast against those of ``empty_latent``."""
    dim = config.hidden_size
    if config.initial_state == 'random' or config.lattice.on:
        return {}
    if config.is_recurrent:
        return {'H_init': (config.H_layers, dim), 'L_init': (config.L_layers, dim)}
    if config.levels == 'single':
        return {'H_init': (dim,)}
    ones = (1,) * (1 + config.has_symbols)
    several = max(config.low_states, config.chains)  # not both
    return {'H_init': (dim,), 'L_init': (several, *ones, dim) if several > 1 else (dim,)}


def one_chain(config: ModelConfig) -> ModelConfig:
    """The same model with one chain, as the module itself sees each of several."""
    return dataclasses.replace(config, chains=1, chain_similarity=1.0, align_chains=False)


def empty_latent(config: ModelConfig, rows: int) -> LatentState:
    """Zeros, for rows that take a puzzle at their first step.

    [rows, T, D] in the compute dtype; several low states: low is [rows, states, T, D]; one-state
    models: low is None; recurrent blocks: float32 cells, [rows, layers, D]. Several chains: an axis
    of chains after that of rows. With a symbol axis G stands before T. Candidate sets: none, bool
    [rows, S, C].
    """
    if config.lattice.on:
        sets = (rows, config.seq_len, config.num_symbols)
        return LatentState(high=jnp.zeros(sets, jnp.bool_), low=None)
    if config.chains > 1:
        one = empty_latent(one_chain(config), rows * config.chains)
        alive = jnp.zeros((rows, config.chains), jnp.bool_)
        return chains.as_chains(one, config.chains).replace(alive=alive)
    dim = config.hidden_size
    answer = flows.empty(config, rows) if config.flow else None
    if config.is_recurrent:
        return LatentState(
            high=jnp.zeros((rows, config.H_layers, dim), jnp.float32),
            low=jnp.zeros((rows, config.L_layers, dim), jnp.float32),
            answer=answer,
        )
    dtype = jnp.dtype(config.forward_dtype)
    one = (config.total_len, dim)
    if config.has_symbols:
        one = (config.num_symbols, *one)
    high, low = jnp.zeros((rows, *one), dtype), None
    if config.levels != 'single':
        states = () if config.low_states == 1 else (config.low_states,)
        low = jnp.zeros((rows, *states, *one), dtype)
    means = running_mean.empty(config, rows) if config.running_mean else None
    return LatentState(high=high, low=low, answer=answer, weights=means)


def initial_latent(
    config: ModelConfig, weights: Weights, rows: int, key: jax.Array | None = None
) -> LatentState:
    """State of ``rows`` puzzles that were just begun; broadcasts against ``empty_latent``.

    Constants, params (``initial_state='learned'``), or drawn for every position and channel
    (``random``; EqR, models/eqr.py, reset_carry; ``random_in_training``, which inference makes
    ``fixed``: ``ExperimentConfig.inference_model``).

    Args:
      config: architecture.
      weights: hold the initial states where they are not drawn.
      rows: how many.
      key: of random states, one or one for each row.
    """
    like = empty_latent(config, rows)
    if config.lattice.on:  # all candidates; the question is met with them at every step
        return like.replace(high=jnp.ones_like(like.high))
    start_key = draws.key_of('start', key)
    fixed = weights.constants if 'H_init' in weights.constants else weights.params

    def drawn(number: int, like: jax.Array, std: float) -> jax.Array:
        own = draws.fold(start_key, number)
        return draws.start(own, like.shape, std, config.start_distribution).astype(like.dtype)

    if config.initial_state in ('random', 'random_in_training'):
        # Chains share their high state.
        high = drawn(0, like.high[:, :1] if config.chains > 1 else like.high, config.high_start_std)
    else:
        high = fixed['H_init']
    low = None
    if like.low is not None and config.has_random_start:
        low = drawn(1, like.low, config.low_start_std)
        if config.align_chains:
            low = chains.aligned(low, chains.up_kernel(weights.params))
    elif like.low is not None:
        low = fixed['L_init']
        if config.low_states == 1 and low.ndim == 3:
            # As many chains were trained, or more: the first ones answer.
            low = low[0] if config.chains == 1 else low[: config.chains]
    return like.replace(
        high=high,
        low=low,
        answer=flows.initial(config, rows, key) if config.flow else None,
        alive=None if like.alive is None else jnp.ones_like(like.alive),
    )


def fresh_latent(
    config: ModelConfig, weights: Weights, rows: int, key: jax.Array | None = None
) -> LatentState:
    """``initial_latent`` in the shapes and dtypes of ``empty_latent``."""
    return jax.tree.map(
        lambda init, like: jnp.broadcast_to(init.astype(like.dtype), like.shape),
        initial_latent(config, weights, rows, key),
        empty_latent(config, rows),
    )
