"""Which key each random draw takes.

The key of a train step is ``fold_in(state.rng, state.step)``. Exploration draws from its ``split``
(act.exploration_min_steps), which no ``fold_in`` repeats. Everything else has a number of its own
in one table, which is never used again for something else: a new draw changes no other.

In training one key serves the whole batch. At inference every puzzle has a key of its own, made
from its number in the set, so that its answer does not depend on the puzzles beside it: a key is
then an array of keys, [B]. Several chains of one puzzle (rollouts) have a key each: the first has
the puzzle's own, the others folds of its fold 0, which neither a name nor a step has. Compiled
inference functions take a seed and make the key inside, because a key made outside would live on
one process only.
"""

import jax
import jax.numpy as jnp
import numpy as np

from hrm_jax.model import layers

_NUMBERS = {
    'model': 1,  # what the model draws during an ACT step; dropout takes it as it is
    'start': 2,  # random initial states: fold 0 of it for the high one, 1 for the low one
    'update_noise': 3,  # a fold for the cycle, then one for the update in it
    'step_noise': 4,  # fold 0 for the high state, 1 for the low one
    'anchor': 5,  # answers that the train step corrupts (anchors.py)
    # Candidate sets (lattice.py, pool.py): the symmetry of a call: fold 0 of it for the symbols, 1
    # for the board; the pinned cell and its symbol: fold 0 and 1; hints: see pool.py.
    'candidate_view': 30,
    'pin': 31,
    'hint': 32,
    'pool_step': 33,  # the step of the pool that follows an update
    'flow_start': 20,  # noise that a looped flow starts from
    'flow_times': 21,
    'flow_noise': 22,  # of the sampler
    'pseudotarget': 23,
    'chain': 24,  # of one of several chains of a puzzle
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


def per_chain(key: jax.Array | None, numbers_B: jax.Array, breadth: int) -> jax.Array | None:
    """Returns a key for each chain, [B]: that of its puzzle, folded by its number from 1 on.

    Args:
      key: of the whole set, or None.
      numbers_B: int32, ``breadth`` * number of the puzzle + number of the chain.
      breadth: chains of a puzzle.
    """
    keys = per_row(key, numbers_B // breadth)
    if breadth == 1:
        return keys
    chain_B = numbers_B % breadth
    others = fold(fold(keys, 0), chain_B)
    if keys is None or others is None:
        return None
    return jnp.where(chain_B == 0, keys, others)


def normal(key: jax.Array | None, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal numbers, float32 [B, ...]: of one key, or row by row of keys [B]."""
    return _draw(jax.random.normal, key, shape)


def truncated_normal(key: jax.Array | None, shape: tuple[int, ...], std: float) -> jax.Array:
    """Numbers as of ``layers.truncated_normal``, float32 [B, ...]; keys as in ``normal``."""
    return _draw(layers.truncated_normal(std), key, shape)


def start(
    key: jax.Array | None, shape: tuple[int, ...], std: float, distribution: str
) -> jax.Array:
    """Random initial states, float32 [B, ...] (``model.start_distribution``)."""
    match distribution:
        case 'truncated_normal':
            return truncated_normal(key, shape, std)
        case 'normal':
            return std * normal(key, shape)
    raise ValueError(f'no start distribution called {distribution!r}')


def _draw(draw: layers.Initializer, key: jax.Array | None, shape: tuple[int, ...]) -> jax.Array:
    if key is None:
        raise ValueError('this model draws random numbers: pass a key.')
    if not key.ndim:
        return draw(key, shape)
    return jax.vmap(lambda k: draw(k, shape[1:]))(key)


def uniform(key: jax.Array | None, shape: tuple[int, ...]) -> jax.Array:
    """Numbers in [0, 1), float32 [B, ...]; keys as in ``normal``."""
    return _draw(jax.random.uniform, key, shape)
