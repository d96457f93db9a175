"""ARC puzzles as grids: what a file must have, and which puzzles are one and the same."""

from collections.abc import Iterable, Iterator
import dataclasses
import hashlib
from typing import Any

import numpy as np

from hrm_jax import files
from hrm_jax.data.augment import ARC_SIDE
from hrm_jax.data.names import check_puzzle_name
from hrm_jax.errors import BuildError

SPLITS = ('train', 'test', 'predict')


@dataclasses.dataclass(frozen=True)
class Pair:
    """One demonstration or test pair.

    Attributes:
      input: uint8 [h, w] of colours.
      output: uint8 [h, w], or None: the answer of a test pair is not known.
      is_test: it is a test pair in its file.
      subset: 'training', 'evaluation', 'test' and so on.
    """

    input: np.ndarray
    output: np.ndarray | None
    is_test: bool
    subset: str = ''

    def text(self) -> str:
        """Returns ``RxC:digits|RxC:digits``, the input of digests and hashes."""
        answer = '?' if self.output is None else grid_text(self.output)
        return f'{grid_text(self.input)}|{answer}'

    def hash(self) -> str:
        return hashlib.sha256(self.text().encode()).hexdigest()

    def grids(self) -> tuple[np.ndarray, ...]:
        """Returns the grids that are known: input and output, or the input alone."""
        return (self.input,) if self.output is None else (self.input, self.output)


@dataclasses.dataclass(frozen=True)
class Puzzle:
    """One source puzzle; ``pairs`` are in the order of its file."""

    name: str
    subset: str
    pairs: tuple[Pair, ...]
    where: str


def grid_text(grid: np.ndarray) -> str:
    return f'{grid.shape[0]}x{grid.shape[1]}:{"".join(map(str, grid.reshape(-1).tolist()))}'


def parse(content: Any, stem: str, subset: str, where: str) -> Puzzle:
    """Checks and returns one puzzle.

    Args:
      content: the parsed JSON: ``train`` and ``test``, lists of pairs. A test pair whose
        ``output`` is missing, null or empty has no known answer.
      stem: its name, unless ``name`` inside the file replaces it.
      subset: that it belongs to.
      where: its place, for messages.

    Raises:
      BuildError: anything else; names the place and the pair.
    """
    BuildError.require(
        isinstance(content, dict), f'{where} must be a JSON object; got {files.shown(content)}.'
    )
    unknown = set(content) - {'train', 'test', 'name'}
    BuildError.require(
        not unknown and {'train', 'test'} <= set(content),
        f'{where} must have the keys train and test; got {", ".join(sorted(content))[:80]}.',
    )
    name = check_puzzle_name(content.get('name', stem), where, BuildError)
    pairs = []
    for part, listed in content.items():
        if part == 'name':
            continue
        BuildError.require(
            isinstance(listed, list), f'{where}, {part} must be a list; got {files.shown(listed)}.'
        )
        for number, pair in enumerate(listed, start=1):
            at, is_test = f'{where}, {part} pair {number}', part == 'test'
            BuildError.require(
                isinstance(pair, dict) and 'input' in pair and ('output' in pair or is_test),
                f'{at} must have an input and an output.',
            )
            answer = pair.get('output')
            known = not (is_test and answer in (None, []))
            pairs.append(
                Pair(
                    _grid(pair['input'], f'{at}, input'),
                    _grid(answer, f'{at}, output') if known else None,
                    is_test=is_test,
                    subset=subset,
                )
            )
    BuildError.require(bool(pairs), f'{where} has no pairs.')
    return Puzzle(name, subset, tuple(pairs), where)


def _grid(rows: Any, where: str) -> np.ndarray:
    try:
        grid = np.array(rows)
    except (ValueError, OverflowError):
        raise BuildError(f'{where}: all rows of a grid must have one length.') from None
    BuildError.require(
        grid.ndim == 2 and grid.size > 0 and np.issubdtype(grid.dtype, np.integer),
        f'{where} must be a grid of whole numbers, a list of rows of one length; got '
        f'{files.shown(rows)}.',
    )
    BuildError.require(
        max(grid.shape) <= ARC_SIDE,
        f'{where} must have at most {ARC_SIDE} rows and columns; got {grid.shape[0]} x '
        f'{grid.shape[1]}.',
    )
    BuildError.require(
        grid.min() >= 0 and grid.max() <= 9,
        f'{where}: colours must be in 0..9; got {grid.min()}..{grid.max()}.',
    )
    return grid.astype(np.uint8)


def split_pairs(puzzle: Puzzle, held_out: set[str]) -> dict[str, list[Pair]]:
    """Returns the pairs of each of ``SPLITS``, in the order of the file.

    Pairs without an answer are in no split that is trained on or scored. Where a file has one, all
    tests of its subset are to be predicted, so that a submission has them in their order.
    """
    parts: dict[str, list[Pair]] = {name: [] for name in SPLITS}
    unanswered = {pair.subset for pair in puzzle.pairs if pair.output is None}
    for pair in puzzle.pairs:
        if pair.is_test and pair.subset in unanswered:
            parts['predict'].append(dataclasses.replace(pair, output=None))
        if pair.output is not None:
            is_test = pair.is_test and pair.subset in held_out
            parts['test' if is_test else 'train'].append(pair)
    return parts


def merge(
    subsets: Iterable[list[Puzzle]], held_out: set[str]
) -> tuple[list[list[Puzzle]], dict[tuple[str, str], int]]:
    """Joins the puzzles of one name: a name is a key of submissions and has one learned vector.

    Kaggle's test challenges may be copies of others, without their answers; the copies bring
    questions to predict and no further demonstrations.

    Args:
      subsets: puzzles of each subset.
      held_out: subsets whose test pairs are for testing.

    Returns:
      The subsets, each name once, and the number of copies by (subset, subset of the first).

    Raises:
      BuildError: two different puzzles have one name.
    """
    first: dict[str, tuple[int, int]] = {}
    merged: list[list[Puzzle]] = []
    copies: dict[tuple[str, str], int] = {}
    for number, puzzles in enumerate(subsets):
        merged.append([])
        for puzzle in puzzles:
            if puzzle.name not in first:
                first[puzzle.name] = number, len(merged[-1])
                merged[-1].append(puzzle)
                continue
            at, place = first[puzzle.name]
            known = merged[at][place]
            BuildError.require(
                bool(_demonstrations(known) & _demonstrations(puzzle)),
                f'{puzzle.where} and {known.where} must not both be named {puzzle.name!r}: they '
                f'are different puzzles (no demonstration is in both). Rename one.',
            )
            merged[at][place] = dataclasses.replace(
                known, pairs=(*known.pairs, *_new_pairs(known, puzzle, held_out))
            )
            key = puzzle.subset, known.subset
            copies[key] = copies.get(key, 0) + 1
    return [puzzles for puzzles in merged if puzzles], copies


def _demonstrations(puzzle: Puzzle) -> set[str]:
    return {pair.text() for pair in puzzle.pairs if not pair.is_test}


def _new_pairs(known: Puzzle, copy: Puzzle, held_out: set[str]) -> Iterator[Pair]:
    """Yields the pairs of a copy that its splits do not have yet."""
    own, other = split_pairs(known, held_out), split_pairs(copy, held_out)
    new = {
        name: {pair.text() for pair in other[name]} - {pair.text() for pair in own[name]}
        for name in SPLITS
    }
    for pair in copy.pairs:
        name = 'test' if pair.is_test and pair.subset in held_out else 'train'
        question = dataclasses.replace(pair, output=None)
        if pair.output is not None and pair.text() in new[name]:
            yield pair
        elif pair.is_test and question.text() in new['predict']:
            yield question
