"""Splits the records of one source into training and test, equal puzzles on one side.

A puzzle that occurs twice and is drawn once would be a test puzzle with a known answer.
"""

from collections.abc import Hashable, Sequence

import numpy as np

from hrm_jax.data import augment
from hrm_jax.errors import BuildError

# Help text of the setting ``test_fraction`` of the builders that split a single file.
FRACTION_HELP = (
    'share of the records of a single file that is held out for testing; equal puzzles stay on '
    'one side'
)


def check_fraction(fraction: float) -> None:
    """Raises BuildError where a share leaves nothing on one side."""
    BuildError.require(
        0 < fraction < 1, f'--test-fraction must be between 0 and 1; got {fraction}.'
    )


def numbers_of(values: Sequence[Hashable]) -> np.ndarray:
    """Returns int64 [N], equal numbers for equal values, in the order of first appearance."""
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(value, len(known)) for value in values], np.int64)


def joined(*keys: np.ndarray) -> np.ndarray:
    """Returns int64 [N], a group for each row: rows that agree in any of the keys share it.

    Args:
      keys: int64 [N] each, from ``numbers_of``.
    """
    groups = keys[0]
    while True:
        before = groups
        for key in keys:
            smallest = np.full(key.max() + 1, len(key), np.int64)
            np.minimum.at(smallest, key, groups)
            groups = smallest[key]
        if np.array_equal(groups, before):
            return groups


def split(groups: np.ndarray, fraction: float, seed: int, what: str) -> dict[str, np.ndarray]:
    """Draws whole groups for testing, until they have their share of the records.

    Args:
      groups: int [N], the group of each record.
      fraction: wanted share of test records; the real one is smaller where a group would exceed
        it, and larger where every group does.
      seed: of the draw.
      what: the source, for the message.

    Returns:
      'train' and 'test' -> int64, numbers of records in their order.

    Raises:
      BuildError: one side would be empty.
    """
    check_fraction(fraction)
    _, first, sizes = np.unique(groups, return_index=True, return_counts=True)
    names = groups[np.sort(first)]
    size_of = dict(zip(groups[first].tolist(), sizes.tolist(), strict=True))
    total, wanted = len(groups), round(len(groups) * fraction)
    BuildError.require(
        0 < wanted < total,
        f'--test-fraction {fraction} of the {total} records of {what} must leave records on both '
        f'sides. Give more records, or another share.',
    )
    BuildError.require(
        len(names) > 1,
        f'the {total} records of {what} must have at least 2 different puzzles; they are all '
        f'equal. Give files for train and test.',
    )
    order = names[np.random.default_rng(seed).permutation(len(names))].tolist()
    chosen, count = set(), 0
    for name in order:
        if count + size_of[name] <= wanted:
            chosen.add(name)
            count += size_of[name]
    chosen = chosen or {min(order, key=size_of.__getitem__)}
    is_test = np.isin(groups, list(chosen))
    return {'train': np.flatnonzero(~is_test), 'test': np.flatnonzero(is_test)}


def without_turns(cells_NS: np.ndarray, side: int) -> list[bytes]:
    """Returns for each square grid the smallest of its 8 dihedral versions, as bytes."""
    count = len(cells_NS)
    turned = (
        augment.apply_dihedral(cells_NS, np.full((count, 1), k, np.uint8), side) for k in range(8)
    )
    return [min(versions) for versions in zip(*map(as_bytes, turned), strict=True)]


def as_bytes(cells_NS: np.ndarray) -> list[bytes]:
    """Returns each row as bytes, a key for ``numbers_of``."""
    return [row.tobytes() for row in cells_NS]
