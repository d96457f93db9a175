"""Puzzles that a data set shares with another one: test puzzles in a training set."""

from collections.abc import Iterator

import numpy as np

from hrm_jax.data.puzzles import PuzzleDataset, stored_examples

_CELLS = 1 << 22  # of a part that is hashed at a time


def _keys(dataset: PuzzleDataset) -> Iterator[np.ndarray]:
    """Yields 64-bit keys of all questions as the data set defines them, a part at a time."""
    cells = dataset.metadata.seq_len
    # Sums of random odd multiples, modulo 2^64: equal questions have equal keys.
    odd_S = np.random.default_rng(0).integers(0, 2**63, cells, np.uint64) * 2 + 1
    rows = max(1, _CELLS // cells)
    for one in dataset.sets.values():
        for start in range(0, one.num_examples, rows):
            examples = np.arange(start, min(start + rows, one.num_examples))
            questions_BS, _ = stored_examples(one, dataset.metadata, examples)
            mixed_BS = (questions_BS.astype(np.uint64) + 1) * odd_S
            yield (mixed_BS ^ (mixed_BS >> np.uint64(29))).sum(1, dtype=np.uint64)


def count(dataset: PuzzleDataset, other: PuzzleDataset) -> int:
    """Returns how many examples of a data set have a question that the other one has too.

    Stored examples are compared cell by cell; augmentations that are drawn while training are not.
    """
    wanted = np.concatenate([*_keys(dataset), np.zeros(0, np.uint64)])
    found = np.zeros(len(wanted), bool)
    for keys in _keys(other):
        found |= np.isin(wanted, keys)
    return int(found.sum())
