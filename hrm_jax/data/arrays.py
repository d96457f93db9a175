"""Data sets from arrays or texts in memory, written as a folder of the original's format."""

from collections.abc import Sequence
import dataclasses
import hashlib
import json
import os
import pathlib
from typing import Any

import numpy as np

from hrm_jax import files
from hrm_jax.data import text
from hrm_jax.data.metadata import METADATA, DatasetMetadata
from hrm_jax.data.names import BLANK_NAME, IDENTIFIERS, VOCABULARY
from hrm_jax.errors import DatasetError, PuzzleError

DIGEST = 'arrays.json'  # what the folder was made of
_TASK = 'custom'


@dataclasses.dataclass(frozen=True)
class Examples:
    """Questions and answers as token ids.

    Attributes:
      inputs, labels: int32 [N, S].
      grid: rows and columns; one row for sequences.
      vocab_size: tokens, the padding included.
      pad_id: token of padding.
      ignored: label that is neither learned nor scored, or None.
      reading: how texts become tokens; None for examples that were ids.
    """

    inputs: np.ndarray
    labels: np.ndarray
    grid: tuple[int, int]
    vocab_size: int
    pad_id: int
    ignored: int | None
    reading: text.Reading | None = None


def encode(
    inputs: Any, labels: Any, *, words: bool = False, rows: str = '', blank: str = ''
) -> Examples:
    """Returns questions and answers as token ids.

    Args:
      inputs, labels: whole numbers from 0, [N, S] or [N, H, W] (labels below 0 do not count); or
        texts: N strings, or arrays of characters or words of these shapes. Texts may differ in
        size; line breaks separate the rows of a grid.
      words: texts are words separated by blanks, not characters.
      rows: further characters that separate rows.
      blank: characters that all stand for an empty cell.

    Raises:
      DatasetError: shapes or values that do not fit; the example is named.
    """
    DatasetError.require(
        len(inputs) == len(labels) > 0,
        f'there must be one label for each input; got {len(inputs)} inputs and {len(labels)} '
        f'labels.',
    )
    questions, answers = (_as_array(side) for side in (inputs, labels))
    are_texts = [side.dtype.kind in 'UO' for side in (questions, answers)]
    DatasetError.require(
        are_texts[0] == are_texts[1], 'inputs and labels must both be numbers or both be texts.'
    )
    if are_texts[0]:
        return _of_texts(questions, answers, text.Form(words, rows, blank))
    return _of_ids(questions, answers)


def _as_array(side: Any) -> np.ndarray:
    try:
        array = np.asarray(side)
    except ValueError:  # lists of several lengths
        array = np.empty(len(side), object)
        array[:] = list(side)
    if array.dtype.kind == 'b':
        array = array.astype(np.uint8)
    DatasetError.require(
        array.dtype.kind in 'iuUO' and array.ndim >= 1,
        f'inputs and labels must be arrays of whole numbers, or texts; got {array.dtype} of shape '
        f'{array.shape}. (Round numbers with .astype(int).)',
    )
    return array


def _of_ids(inputs: np.ndarray, labels: np.ndarray) -> Examples:
    DatasetError.require(
        inputs.shape == labels.shape and inputs.ndim in (2, 3) and inputs.size > 0,
        f'inputs and labels must have one shape, [N, S] or [N, H, W]; got {inputs.shape} and '
        f'{labels.shape}.',
    )
    low = int(inputs.min())
    DatasetError.require(low >= 0, f'the tokens of inputs must be whole numbers from 0; got {low}.')
    highest = max(int(inputs.max()), int(labels.max()))
    DatasetError.require(
        highest < 1 << 16, f'tokens must be below {1 << 16}; got {highest}. Number them anew.'
    )
    grid = inputs.shape[1:] if inputs.ndim == 3 else (1, inputs.shape[1])
    flat = [side.reshape(len(side), -1).astype(np.int32) for side in (inputs, labels)]
    # Every number may be a symbol, 0 too, so padding is a token of its own.
    ignored = -1 if flat[1].min() < 0 else None
    return Examples(flat[0], np.maximum(flat[1], -1), grid, highest + 2, highest + 1, ignored)


def _of_texts(inputs: np.ndarray, labels: np.ndarray, form: text.Form) -> Examples:
    grids = [
        [_grid(one, form, f'{name} {number}') for number, one in enumerate(side)]
        for name, side in (('inputs', inputs), ('labels', labels))
    ]
    every = [grid for side in grids for grid in side]
    height, width = (max(size) for size in zip(*[(len(g), len(g[0])) for g in every], strict=True))
    tokens = sorted({cell for grid in every for row in grid for cell in row})
    vocabulary = {token: number for number, token in enumerate(tokens, start=1)}
    reading = text.Reading(form, height, width, vocabulary)
    questions, answers = (np.stack([reading.encode(grid) for grid in side]) for side in grids)
    same = all((len(q), len(q[0])) == (len(a), len(a[0])) for q, a in zip(*grids, strict=True))
    # Where answers have the size of their questions, nobody has to learn the padding.
    ignored = 0 if same else None
    size = (height, width)
    return Examples(questions, answers, size, len(tokens) + 1, 0, ignored, reading)


def _grid(one: Any, form: text.Form, where: str) -> text.Grid:
    try:
        if isinstance(one, str):
            return form.parse(one)
        rows = [[row] if isinstance(row, str) else list(row) for row in one]
        if all(len(row) == 1 for row in rows):  # a sequence of cells
            rows = [[row[0] for row in rows]]
        return form.of_rows([[str(cell) for cell in row] for row in rows])
    except (PuzzleError, TypeError) as error:
        raise DatasetError(f'{where}: {error}') from None


def split_off(inputs: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the examples to train on and those held out, equal questions on one side.

    Args:
      inputs: [N, S].
      share: of the examples that are held out, at least one.
      seed: of the choice.

    Raises:
      DatasetError: one side would be empty.
    """
    _, number = np.unique(inputs, axis=0, return_inverse=True)
    number = number.reshape(-1)
    order = np.random.default_rng(seed).permutation(number.max() + 1)
    sizes = np.cumsum(np.bincount(number)[order])
    taken = min(int(np.searchsorted(sizes, max(1, round(share * len(inputs))))) + 1, len(order))
    held_out = np.isin(number, order[:taken])
    DatasetError.require(
        0 < share < 1 and not held_out.all(),
        f'a share of {share} of {len(inputs)} examples must leave examples on both sides. Give '
        f'test=(inputs, labels), or more examples.',
    )
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def write(
    folder: str | os.PathLike,
    splits: dict[str, np.ndarray],
    examples: Examples,
    puzzles: Sequence[str],
) -> None:
    """Writes a data set, or finds that it is there already.

    Args:
      folder: to make; it appears whole or not at all.
      splits: name -> which examples it has.
      examples: of all splits.
      puzzles: name of the rule or theme that each example follows; '': none. Those of one name
        share a learned vector.

    Raises:
      DatasetError: the folder has a set that was made of other examples.
    """
    names = [BLANK_NAME, *sorted(set(puzzles) - {''})]
    number = {'': 0} | {name: k for k, name in enumerate(names[1:], start=1)}
    identifiers = np.array([number[name] for name in puzzles], np.int32)
    digest = _digest(splits, examples, identifiers)
    known = pathlib.Path(folder) / DIGEST
    if known.is_file():
        same = files.read_json(known, DatasetError, dict).get('digest') == digest
        DatasetError.require(
            same,
            f'{folder} was made of other arrays. Continue with the same ones (and seed), or give '
            f'another workdir.',
        )
        return
    with files.new_folder(folder) as root:
        for split, chosen in splits.items():
            _write_split(root / split, examples, chosen, identifiers[chosen], len(names))
        if examples.reading is not None:
            words = {text.PAD: 0, **examples.reading.vocabulary}
            (root / VOCABULARY).write_text(json.dumps(words), encoding='utf-8')
            (root / text.READING).write_text(examples.reading.to_json(), encoding='utf-8')
        (root / IDENTIFIERS).write_text(json.dumps(names), encoding='utf-8')
        (root / DIGEST).write_text(json.dumps({'digest': digest}))


def _digest(splits: dict[str, np.ndarray], examples: Examples, identifiers: np.ndarray) -> str:
    digest = hashlib.blake2b(digest_size=16)
    reading = examples.reading
    facts = [examples.grid, examples.vocab_size, examples.ignored]
    facts.append(list(reading.vocabulary) if reading is not None else None)
    digest.update(json.dumps(facts).encode())
    for array in (examples.inputs, examples.labels, identifiers, *splits.values()):
        digest.update(np.ascontiguousarray(array, np.int64).data)
    return digest.hexdigest()


def _write_split(
    folder: pathlib.Path,
    examples: Examples,
    chosen: np.ndarray,
    identifiers: np.ndarray,
    rows_of_table: int,
) -> None:
    # One group for each example, or for all examples of a puzzle.
    order = np.argsort(identifiers, kind='stable') if identifiers.any() else np.arange(len(chosen))
    chosen, identifiers = chosen[order], identifiers[order]
    starts = np.arange(len(chosen))
    if identifiers.any():
        changes = identifiers[1:] != identifiers[:-1]
        starts = np.append(0, np.flatnonzero(changes | (identifiers[1:] == 0)) + 1)
    arrays = {
        'inputs': _small(examples.inputs[chosen]),
        'labels': _small(examples.labels[chosen]),
        'puzzle_identifiers': identifiers[starts],
        'puzzle_indices': np.append(starts, len(chosen)).astype(np.int64),
        'group_indices': np.arange(len(starts) + 1, dtype=np.int64),
    }
    folder.mkdir()
    for name, values in arrays.items():
        np.save(folder / f'all__{name}.npy', values)
    metadata = DatasetMetadata(
        vocab_size=examples.vocab_size,
        seq_len=examples.inputs.shape[1],
        num_puzzle_identifiers=rows_of_table,
        total_groups=len(starts),
        mean_puzzle_examples=len(chosen) / len(starts),
        pad_id=examples.pad_id,
        ignore_label_id=examples.ignored,
        task=_TASK,
        grid=examples.grid,
    )
    (folder / METADATA).write_text(metadata.to_json(), encoding='utf-8')


def _small(cells: np.ndarray) -> np.ndarray:
    return cells.astype(np.uint8 if cells.min() >= 0 and cells.max() < 256 else np.int32)
