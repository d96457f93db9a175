"""Which key each random draw takes.

The key of a train step is ``fold_in(state.rng, state.step)``. Exploration draws from its ``split``
(act.exploration_min_steps), which no ``fold_in`` repeats. Everything else has a number of its own
in one table, which is never used again for something else: a new draw changes no other.

In training one key serves the whole batch. At inference every puzzle has a key of its own, made
from its number in the set, so that its answer does not depend on the puzzles beside it: a key is
then an array of keys, [B]. Compiled inference functions take a seed and make the key inside,
because a key made outside would live on one process only.
"""

import jax
import jax.numpy as jnp
import numpy as np

_NUMBERS = {
    'model': 1,  # what the model draws during an ACT step; dropout takes it as it is
}


def seed_of(seed: int) -> np.uint32:
    """A seed of any size as an argument of a compiled function; its key is ``random.key`` of it."""
    return np.uint32(seed % 2**32)


def key_of(name: str, key: jax.Array | None) -> jax.Array | None:
    """Returns the key of a named draw, or None without a key."""
    return fold(key, _NUMBERS[name])


def fold(key: jax.Array | None, number: jax.Array | int) -> jax.Array | None:
    """``jax.random.fold_in``, of each key where there are several; None stays None.

    Args:
      key: a key, keys [B], or None.
      number: of the fold; for keys [B] also int [B], one for each.
    """
    if key is None:
        return None
    if not key.ndim:
        return jax.random.fold_in(key, number)
    return jax.vmap(jax.random.fold_in)(key, jnp.broadcast_to(number, key.shape))


def per_row(key: jax.Array | None, numbers_B: jax.Array) -> jax.Array | None:
    """Returns a key for each puzzle, [B], from its number; None without a key."""
    return None if key is None else jax.vmap(lambda n: jax.random.fold_in(key, n))(numbers_B)


def normal(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """Standard normal numbers of shape [B, ...]: of one key, or row by row of keys [B]."""
    if not key.ndim:
        return jax.random.normal(key, shape, dtype)
    return jax.vmap(lambda k: jax.random.normal(k, shape[1:], dtype))(key)
