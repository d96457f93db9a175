"""Leak checks: test puzzles that occur in training.

Exactly equal pairs refuse a build. Pairs that are equal only after a dihedral map or a
permutation of the colours are reported: augmentation can make one from the other, but they
are different puzzles.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_builders.arc_augment import turn
from data_builders.arc_puzzles import Pair, grid_text
from hrm_jax.errors import BuildError

# sha256 of pairs that ARC-1 itself has in both splits; they are reported, not refused.
# There is one: test pair 1 of 070dd51e is a training pair of 40853293.
KNOWN_PAIRS = frozenset({'8e20a5c64d6ad80ed2ee2b798870f85d419a98cb6fbfd49228be243fc15fed98'})


# Help text of the setting ``allow_leaks`` of the builders.
ALLOW_HELP = 'build even when test examples occur in training'


def exact_report(
    train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]
) -> dict[str, Any]:
    """Compares rows of (questions, answers) of equal length.

    Returns:
      Counts of test rows, of those with an equal question and answer in training, and of
      those with an equal question; ``examples`` numbers some of the first, from 1.
    """
    questions, answers = (_row_numbers(column, seed) for seed, column in enumerate(train))
    asked, answered = (_row_numbers(column, seed) for seed, column in enumerate(test))
    # numbers of whole pairs: the same sum on both sides
    equal = np.flatnonzero(np.isin(asked + answered, questions + answers))
    return {
        'test_pairs': len(asked),
        'equal': len(equal),
        'refused': len(equal),
        'equal_inputs': int(np.isin(asked, questions).sum()),
        'examples': [f'test record {k + 1}' for k in equal[:10].tolist()],
    }


def _row_numbers(rows: np.ndarray, seed: int) -> np.ndarray:
    """Returns a random 64-bit sum per row: equal for equal rows, practically never for others."""
    weights = np.random.default_rng(seed).integers(0, 1 << 63, rows.shape[1]).astype(np.uint64)
    chunk = 1 << 16
    parts = [rows[k : k + chunk].astype(np.uint64) @ weights for k in range(0, len(rows), chunk)]
    return np.concatenate(parts)


def refuse(report: dict[str, Any], allowed: bool, advice: str = '') -> None:
    """Raises BuildError when test pairs occur in training, unless that is allowed."""
    BuildError.require(
        not report['refused'] or allowed,
        f'{report["refused"]} of {report["test_pairs"]} test pairs occur in training, e.g. '
        f'{", ".join(report["examples"][:3])}. {advice}Remove them from one side, or add '
        f'--allow-leaks.',
    )


def arc_report(
    train: Sequence[tuple[str, Pair]], test: Sequence[tuple[str, Pair]]
) -> dict[str, Any]:
    """Compares un-augmented (puzzle name, pair) lists.

    Returns:
      Counts: exactly equal pairs that refuse a build, known ones that do not, equal inputs
      with another answer, and pairs equal after a map; ``examples`` names some of the first.
    """
    pairs = {pair.text(): name for name, pair in train}
    inputs = {grid_text(pair.input) for _, pair in train}
    canonical = {_canonical(pair) for _, pair in train}
    report: dict[str, Any] = {
        'test_pairs': len(test), 'equal': 0, 'known': 0, 'refused': 0, 'equal_inputs': 0,
        'equal_after_a_map': 0, 'examples': [],
    }  # fmt: skip
    for name, pair in test:
        if grid_text(pair.input) in inputs:
            report['equal_inputs'] += 1
        if pair.text() in pairs:
            report['equal'] += 1
            known = pair.hash() in KNOWN_PAIRS
            report['known' if known else 'refused'] += 1
            if len(report['examples']) < 10:
                report['examples'].append(f'{name} = {pairs[pair.text()]}')
        elif _canonical(pair) in canonical:
            report['equal_after_a_map'] += 1
    return report


def describe(report: dict[str, Any]) -> str:
    """Returns the report in one line."""
    known = f' ({report["known"]} known)' if 'known' in report else ''
    mapped = ''
    if 'equal_after_a_map' in report:
        mapped = f', {report["equal_after_a_map"]} more are equal after a dihedral or colour map'
    return (
        f'leak check: {report["equal"]} of {report["test_pairs"]} test pairs occur in '
        f'training{known}, {report["equal_inputs"]} test inputs do{mapped}'
    )


def _canonical(pair: Pair) -> bytes:
    """Returns the smallest of the 8 dihedral versions, colours but 0 numbered by appearance."""
    versions = []
    for t in range(8):
        grids = [turn(grid, t) for grid in (pair.input, pair.output)]
        cells = np.concatenate([grid.reshape(-1) for grid in grids])
        colours, first = np.unique(cells, return_index=True)
        table = np.zeros(10, np.uint8)
        order = colours[np.argsort(first)]
        order = order[order > 0]
        table[order] = np.arange(1, len(order) + 1)
        versions.append(bytes((*grids[0].shape, *grids[1].shape)) + table[cells].tobytes())
    return min(versions)
