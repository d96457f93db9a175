"""Checks of a built data set, or of a folder of the original: structure, content, leaks.

Prints a report. The exit status is 1 when there are faults.
"""

import hashlib
import math
from typing import Any

import numpy as np

from data_builders import arc_puzzles, folder_format, leaks, maze, pathfinding, sources, sudoku
from data_builders.options import option, settings, with_settings
from hrm_jax.data import augment, records
from hrm_jax.data.puzzles import (
    DatasetMetadata,
    PuzzleDataset,
    PuzzleSet,
    content_digest,
    stored_examples,
)
from hrm_jax.errors import BuildError

EXAMPLES = """examples:
  python -m data_builders check data/sudoku-extreme-1k
  python -m data_builders check FOLDER_OF_THE_ORIGINAL --max-examples 10000
"""


@settings
class Options:
    """Settings of a check."""

    max_examples: int = option(100_000, help='examples of each split whose content is checked')
    check_unique: bool = option(
        False, help='also solve Sudokus and require exactly one solution of each'
    )
    show: bool = option(True, help='print the report', off='--quiet')


@with_settings(Options)
def build(path: str, options: Options) -> int:
    """Checks a data set, prints a report and returns 0, or 1 when there are faults.

    Args:
      path: folder of a data set.
      options: keyword arguments, the fields of ``Options``.

    Raises:
      BuildError: there is no readable data set.
    """
    lines, faults = report(path, options.max_examples, options.check_unique)
    if options.show:
        print('\n'.join(lines))
        print('\n'.join(f'FAULT: {fault}' for fault in faults) or 'no faults')
    return int(bool(faults))


def report(path: str, max_examples: int, check_unique: bool = False) -> tuple[list[str], list[str]]:
    """Returns the lines of the report and the faults."""
    lines, faults, splits = [path], [], {}
    for split in folder_format.splits_of(path):
        splits[split] = data = folder_format.load(path, split)
        m = data.metadata
        lines.append(
            f'{split}: task {m.task or "unknown"}, vocabulary {m.vocab_size}, {m.seq_len} cells, '
            f'{m.num_puzzle_identifiers} identifiers'
        )
        for name, puzzles in data.sets.items():
            sizes = np.unique(np.diff(puzzles.group_indices), return_counts=True)
            shown = ', '.join(f'{s} x {c}' for s, c in zip(*sizes, strict=True))
            lines.append(
                f'  {name}: {puzzles.num_groups:,} groups, {puzzles.num_puzzles:,} puzzles, '
                f'{puzzles.num_examples:,} examples; puzzles per group: {_shorten(shown)}'
            )
            more, wrong = _content(puzzles, m, max_examples, check_unique)
            lines += [f'  {name}: {line}' for line in more]
            faults += [f'{split}/{name}: {fault}' for fault in wrong]
        faults += [f'{split}: {fault}' for fault in _metadata_faults(data)]
        more, wrong = _answers(split, data)
        lines += [f'  {line}' for line in more]
        faults += [f'{split}: {fault}' for fault in wrong]
    if len({data.metadata.vocab_size for data in splits.values()}) > 1:
        faults.append(f'{", ".join(splits)} must have the same vocabulary')
    leak = _leaks(splits)
    lines.append(leaks.describe(leak))
    if leak['refused']:
        faults.append(f'{leak["refused"]} test pairs occur in training: {leak["examples"][:3]}')
    return lines, faults


def _shorten(text: str, width: int = 100) -> str:
    return text if len(text) <= width else f'{text[:width]} ...'


def _metadata_faults(data: PuzzleDataset) -> list[str]:
    metadata, faults = data.metadata, []
    groups = sum(puzzles.num_groups for puzzles in data.sets.values())
    examples = sum(puzzles.num_examples for puzzles in data.sets.values())
    puzzles = sum(puzzles.num_puzzles for puzzles in data.sets.values())
    if groups != metadata.total_groups:
        faults.append(f'total_groups is {metadata.total_groups}, but there are {groups}')
    if abs(examples / puzzles - metadata.mean_puzzle_examples) > 1e-6:
        faults.append(
            f'mean_puzzle_examples is {metadata.mean_puzzle_examples}, but it is '
            f'{examples / puzzles}'
        )
    if data.stored_digest and data.stored_digest != content_digest(metadata, data.sets):
        faults.append('the puzzles are not those whose digest dataset.json states')
    return faults


def _answers(split: str, data: PuzzleDataset) -> tuple[list[str], list[str]]:
    """Counts the examples without a label that counts."""
    ignored = data.metadata.ignore_label_id
    if split == folder_format.PREDICT:
        if data.has_answers:
            return [], ['the labels must all be ignored: these are questions to predict']
        return ['questions to predict: no answers, so nothing is trained on or scored'], []
    if ignored is None:
        return [], []
    missing = 0
    for puzzles in data.sets.values():
        answered = (puzzles.labels != ignored).any(axis=1)
        starts = np.concatenate([[0], np.cumsum(answered)])
        counts = np.diff(puzzles.puzzle_indices)
        first = puzzles.puzzle_first
        missing += int(counts.sum() - (starts[first + counts] - starts[first]).sum())
    return [], [f'{missing} examples have no answer: no label of theirs counts'] if missing else []


def _content(
    puzzles: PuzzleSet, metadata: DatasetMetadata, limit: int, unique: bool
) -> tuple[list[str], list[str]]:
    count = min(limit, puzzles.num_examples)
    # Evenly spaced over the whole set, so that all groups are covered.
    chosen = np.linspace(0, puzzles.num_examples - 1, count).astype(np.int64)
    inputs, labels = stored_examples(puzzles, metadata, chosen)
    check = {'sudoku': _sudoku, 'maze': _maze, 'pathfinding': _pathfinding, 'arc': _arc}
    if metadata.task not in check:
        same = int((inputs == labels).all(axis=1).sum())
        return [f'{count:,} examples read; in {same:,} the answer equals the question'], []
    lines, faults = check[metadata.task](inputs, labels, metadata, unique)
    return [f'{count:,} examples checked: {line}' for line in lines], [
        f'{fault} (of {count:,} checked)' for fault in faults
    ]


def _sudoku(inputs, labels, metadata, unique: bool) -> tuple[list[str], list[str]]:
    boards = sources.Table.unrated(inputs - 1, labels - 1, 'checked examples')
    if min(inputs.min(), labels.min()) < 1:
        return [], ['a board has padding tokens']
    try:
        sudoku.check(boards, unique)
    except BuildError as error:
        return [], [str(error)]
    blanks = (inputs == 1).sum(axis=1).mean()
    solved = ', one solution each' if unique else ''
    return [f'answers keep the rules and the questions{solved}; {blanks:.1f} blanks'], []


def _maze(inputs, labels, metadata, unique: bool) -> tuple[list[str], list[str]]:
    del unique
    wrong = maze.find_wrong(inputs, labels, metadata.side)
    if len(wrong):
        return [], [f'{len(wrong)} answers are not shortest paths, the first is {wrong[0] + 1}']
    moves = (labels == maze.PATH).sum(axis=1) + 1
    return [f'all answers are shortest paths, {moves.min()} to {moves.max()} moves'], []


def _pathfinding(inputs, labels, metadata, unique: bool) -> tuple[list[str], list[str]]:
    del unique
    wrong = 0
    for board, answer in zip(inputs, labels, strict=True):
        path = pathfinding.solve(board.tolist(), metadata.side)
        expected = board.copy()
        expected[path or []] = pathfinding.PATH
        wrong += path is None or not np.array_equal(expected, answer)
    if wrong:
        return [], [f'{wrong} answers are not the path that the search finds']
    return ['all answers are the path that the search finds'], []


def _arc(inputs, labels, metadata, unique: bool) -> tuple[list[str], list[str]]:
    del metadata, unique
    faults = []
    (boxes_in, bad_in), (boxes_out, bad_out) = arc_boxes(inputs), arc_boxes(labels)
    if bad := int((bad_in | bad_out).sum()):
        faults.append(f'{bad} examples have holes or misplaced end markers')
    known = labels.max(axis=1) > 1
    placeholders = int(((boxes_out[:, 2:] == 1).all(axis=1) & (labels == 2).any(axis=1)).sum())
    if apart := int((boxes_in[known, :2] != boxes_out[known, :2]).any(axis=1).sum()):
        faults.append(f'{apart} examples have input and answer at different places')
    lines = [] if faults else ['grids, end markers and places agree']
    if placeholders:
        lines.append(
            f'{placeholders} have the answer [[0]], which stands for an unknown one in sets of TRM'
        )
    return lines, faults


def arc_boxes(cells_BS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds ARC grids on the canvas.

    Returns:
      int [B, 4] (top, left, height, width), and bool [B]: the grid has holes, or its end
      markers are not exactly the row below and the column to the right.
    """
    side = math.isqrt(cells_BS.shape[1])
    canvas = cells_BS.reshape(-1, side, side)
    colour = canvas >= augment.FIRST_COLOUR
    rows, columns = colour.any(axis=2), colour.any(axis=1)
    top, left = rows.argmax(axis=1), columns.argmax(axis=1)
    height, width = rows.sum(axis=1), columns.sum(axis=1)
    line = np.arange(side)

    def inside(start, length):
        return (line >= start[:, None]) & (line < (start + length)[:, None])

    in_rows, in_columns = inside(top, height), inside(left, width)
    box = in_rows[:, :, None] & in_columns[:, None, :]
    below = line == (top + height)[:, None]
    right = line == (left + width)[:, None]
    ends = (below[:, :, None] & in_columns[:, None, :]) | (in_rows[:, :, None] & right[:, None, :])
    bad = (colour != box).any(axis=(1, 2)) | ((canvas == augment.EOS) != ends).any(axis=(1, 2))
    return np.stack([top, left, height, width], 1), bad


def _leaks(splits: dict[str, PuzzleDataset]) -> dict[str, Any]:
    """Compares the un-augmented examples (the first puzzle of each group)."""
    if all(data.metadata.task == 'arc' for data in splits.values()):
        return leaks.arc_report(*(arc_pairs(splits[name]) for name in folder_format.SPLITS))
    rows = []
    for name in folder_format.SPLITS:
        parts = []
        for puzzles in splits[name].sets.values():
            chosen = first_examples(puzzles)
            parts.append(stored_examples(puzzles, splits[name].metadata, chosen))
        rows.append(tuple(np.concatenate(column) for column in zip(*parts, strict=True)))
    if rows[0][0].shape[1] != rows[1][0].shape[1]:
        return {'test_pairs': len(rows[1][0]), 'equal': 0, 'refused': 0, 'equal_inputs': 0,
                'examples': []}  # fmt: skip
    return leaks.exact_report(*rows)


def first_examples(puzzles: PuzzleSet) -> np.ndarray:
    """Returns the examples of the first puzzle of each group: those before augmentation."""
    first = puzzles.group_indices[:-1]
    starts, stops = puzzles.puzzle_indices[first], puzzles.puzzle_indices[first + 1]
    return np.concatenate([np.arange(a, b) for a, b in zip(starts, stops, strict=True)])


def arc_pairs(data: PuzzleDataset) -> list[tuple[str, arc_puzzles.Pair]]:
    """Returns the un-augmented pairs of an ARC split with the names of their puzzles."""
    names = records.identifier_names([data])
    pairs = []
    for puzzles in data.sets.values():
        chosen = first_examples(puzzles)
        cells = stored_examples(puzzles, data.metadata, chosen)
        boxes = [arc_boxes(side)[0] for side in cells]
        owners = puzzles.puzzle_identifiers[puzzles.owners(chosen)[0]]
        for k, owner in enumerate(owners):
            grids = []
            for side, box in zip(cells, boxes, strict=True):
                top, left, height, width = box[k]
                canvas = side[k].reshape(data.metadata.side, data.metadata.side)
                grid = canvas[top : top + height, left : left + width]
                grids.append(grid - np.uint8(augment.FIRST_COLOUR))
            pairs.append((names[owner], arc_puzzles.Pair(*grids, is_test=False)))
    return pairs


def arc_digest(data: PuzzleDataset) -> str:
    """Returns the digest of a split's un-augmented pairs, as the builder's manifest has it."""
    lines = sorted(f'{name}|{pair.text()}' for name, pair in arc_pairs(data))
    return hashlib.sha256('\n'.join(lines).encode()).hexdigest()
