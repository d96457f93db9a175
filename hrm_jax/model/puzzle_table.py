"""Vectors of puzzles out of the puzzle table, and where their gradients go."""

import jax
import jax.numpy as jnp

from hrm_jax.types import Weights

# Constant of models with composed embeddings: int32 [identifiers, 12] (data/factors.py).
FACTORS = 'puzzle_factors'


def puzzle_rows(weights: Weights, ids_B: jax.Array) -> jax.Array | None:
    """Vectors [B, E] of puzzles: rows of the table for int32 ids, or sums of rows; or None."""
    if weights.puzzle_table is None:
        return None
    if FACTORS not in weights.constants:
        return jnp.take(weights.puzzle_table, ids_B, axis=0)
    return jnp.take(weights.puzzle_table, _factors(weights, ids_B), axis=0).sum(1)


def row_gradients(
    weights: Weights, ids_B: jax.Array, vectors_BE: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Rows of the table that the vectors of ``puzzle_rows`` are made of, with their gradients.

    Args:
      weights: of which table and constants are read.
      ids_B: int32 puzzle identifiers.
      vectors_BE: gradients with respect to the vectors.

    Returns:
      int32 [R] and [R, E]; R is B, or B times the factors of a puzzle: each row of a sum has the
      gradient of the sum.
    """
    if FACTORS not in weights.constants:
        return ids_B, vectors_BE
    factors_BF = _factors(weights, ids_B)
    return factors_BF.reshape(-1), jnp.repeat(vectors_BE, factors_BF.shape[1], axis=0)


def _factors(weights: Weights, ids_B: jax.Array) -> jax.Array:
    return jnp.take(weights.constants[FACTORS], ids_B, axis=0)
