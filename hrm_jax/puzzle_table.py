"""Giving a puzzle table another number of rows: an explicit choice, never a silent one."""

from typing import Any

import numpy as np

from hrm_jax.compatibility import CheckpointError
from hrm_jax.config import PUZZLE_TABLES


def resize(table: Any, rows: int, choice: str = 'error') -> np.ndarray:
    """Returns a table with ``rows`` rows, float32 [rows, E].

    Args:
      table: float32 [old rows, E].
      rows: rows wanted, the ``num_puzzle_identifiers`` of the new data.
      choice: what to do when the sizes differ.
        ``error``: refuse.
        ``mean``: forget every puzzle; each row is the mean of the old rows (what the TRM
        repository does when it loads a table of another size).
        ``zeros``: forget every puzzle; each row is zero, as before training.
        ``overlap``: keep the rows that both tables have (ids must mean the same puzzles);
        further rows are zero.

    Raises:
      CheckpointError: the sizes differ and the choice is ``error``.
      ValueError: the choice is unknown.
    """
    if choice not in PUZZLE_TABLES:
        raise ValueError(f'puzzle_table must be one of {", ".join(PUZZLE_TABLES)}; got {choice!r}.')
    old = len(table)
    if old == rows:
        return table
    if choice == 'error':
        raise CheckpointError(
            f'puzzle_emb.weights has {old} rows, but the data has {rows} puzzle identifiers. Say '
            f'what to do: mean (every row the mean of the old ones), zeros, or overlap (keep the '
            f'rows both have, zeros for the rest).'
        )
    if choice == 'mean':
        # In float64: the sum of a million float32 rows loses digits.
        mean = np.mean(table, axis=0, dtype=np.float64).astype(np.float32)
        return np.broadcast_to(mean, (rows, len(mean))).copy()
    new = np.zeros((rows, table.shape[1]), np.float32)
    if choice == 'overlap':
        new[: min(old, rows)] = table[: min(old, rows)]
    return new
