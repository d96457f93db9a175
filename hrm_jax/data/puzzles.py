"""A puzzle data set in memory: metadata, groups, puzzles, examples.

A group is one source puzzle, a puzzle is one of its augmentations, and examples belong to a
puzzle. A set holds the examples of a group once, and each puzzle as a map (augment.py) over
a range of them; so 1,000 augmentations of a board cost 28 bytes each, not 162. A folder in
the original's format has its augmented examples written out: there every puzzle has a range
of its own and no map.
"""

import dataclasses
import hashlib
import json
from typing import Any

import numpy as np

from hrm_jax import tasks
from hrm_jax.data import augment
from hrm_jax.errors import DatasetError

METADATA = 'dataset.json'
BLANK_NAME = '<blank>'


@dataclasses.dataclass(frozen=True)
class DatasetMetadata:
    """What ``<split>/dataset.json`` states.

    The keys up to ``sets`` are the original's (dataset/common.py of sapientinc/HRM).

    Attributes:
      vocab_size: number of tokens, padding included.
      seq_len: cells of a padded example.
      num_puzzle_identifiers: rows of the puzzle table, the blank one included.
      total_groups: groups of all sets.
      mean_puzzle_examples: examples per puzzle.
      pad_id: token of cells outside a puzzle.
      ignore_label_id: label that is neither learned nor scored; None: every label counts.
      blank_identifier_id: identifier of rows that only pad a batch.
      sets: names of the sets of this split.
      task: a name of ``tasks.TASKS`` or another one; '' when it is unknown.
      transform: kind of the stored maps, and of maps drawn on the fly (augment.TRANSFORMS).
      cell_bytes: bytes of a stored token (1, 2 or 4).
      held_out: the builder rejected augmentations that lead to test answers, so drawing
        others on the fly would let test answers into training. None: nobody has looked.
    """

    vocab_size: int
    seq_len: int
    num_puzzle_identifiers: int
    total_groups: int
    mean_puzzle_examples: float
    pad_id: int = 0
    ignore_label_id: int | None = 0
    blank_identifier_id: int = 0
    sets: tuple[str, ...] = ('all',)
    task: str = ''
    transform: str = 'none'
    cell_bytes: int = 1
    held_out: bool | None = False

    @property
    def side(self) -> int:
        """Rows of a square grid; 0 where an example is no square."""
        side = round(self.seq_len**0.5)
        return side if side * side == self.seq_len else 0

    def task_of(self) -> tasks.Task:
        """The task of these puzzles: symbols, rules, colours."""
        return tasks.kind_of(self.task)(self.seq_len, self.vocab_size, self.pad_id)

    def to_json(self) -> str:
        return json.dumps({**dataclasses.asdict(self), 'sets': list(self.sets)}, indent=2)

    @classmethod
    def from_json(cls, text: str, source: Any = METADATA) -> 'DatasetMetadata':
        """Parses ``dataset.json``; unknown keys (of other builders) are left out.

        Raises:
          DatasetError: the text is no JSON object, or a key is missing or not a number.
        """
        try:
            values = json.loads(text)
            known = {f.name: values[f.name] for f in dataclasses.fields(cls) if f.name in values}
            known['sets'] = tuple(known.get('sets', ('all',)))
            metadata = cls(**known)
            sizes = ('vocab_size', 'seq_len', 'num_puzzle_identifiers', 'total_groups')
            wrong = [n for n in sizes if type(getattr(metadata, n)) is not int
                     or getattr(metadata, n) < 1]  # fmt: skip
        except (TypeError, ValueError, AttributeError) as error:
            raise DatasetError(
                f'{source} must hold the metadata of a data set as a JSON object; {error}. '
                f'Build the set again.'
            ) from None
        if wrong:
            raise DatasetError(
                f'{source}: {", ".join(wrong)} must be whole numbers above 0. Build the set again.'
            )
        return metadata


@dataclasses.dataclass(frozen=True)
class PuzzleSet:
    """The puzzles of one set, in memory.

    Attributes:
      inputs: [N, S] tokens of the stored examples (ARC: top left, padded, no end markers).
      labels: [N, S].
      group_indices: int64 [G + 1], first puzzle of each group.
      puzzle_indices: int64 [U + 1], first example of each puzzle, in the set's numbering.
      puzzle_first: int64 [U], first stored example of each puzzle.
      puzzle_identifiers: int32 [U].
      maps: uint8 [U, M], or None when every puzzle is as stored.
      extents: uint8 [N, 4] sides of stored ARC grids, or None.
      offsets: uint8 [E, 2] corner of each ARC example, or None when all are 0.
      names: one per group, or empty.
    """

    inputs: np.ndarray
    labels: np.ndarray
    group_indices: np.ndarray
    puzzle_indices: np.ndarray
    puzzle_first: np.ndarray
    puzzle_identifiers: np.ndarray
    maps: np.ndarray | None = None
    extents: np.ndarray | None = None
    offsets: np.ndarray | None = None
    names: tuple[str, ...] = ()

    @property
    def num_groups(self) -> int:
        return len(self.group_indices) - 1

    @property
    def num_puzzles(self) -> int:
        return len(self.puzzle_first)

    @property
    def num_examples(self) -> int:
        return int(self.puzzle_indices[-1])

    def owners(self, examples_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the puzzle of each example and the example's place within it, int64 [B]."""
        puzzles = np.searchsorted(self.puzzle_indices, examples_B, side='right') - 1
        return puzzles, examples_B - self.puzzle_indices[puzzles]

    @classmethod
    def of_examples(
        cls, inputs: np.ndarray, labels: np.ndarray, names: tuple[str, ...] = ()
    ) -> 'PuzzleSet':
        """One group, puzzle and example per row, all with the blank identifier."""
        count = np.arange(len(inputs) + 1)
        identifiers = np.zeros(len(inputs), np.int32)
        return cls(inputs, labels, count, count, count[:-1], identifiers, names=names)


@dataclasses.dataclass(frozen=True)
class PuzzleDataset:
    """One split of a data set.

    Attributes:
      metadata: sizes and ids.
      sets: name -> puzzles, in the order of ``metadata.sets``.
      path: folder it was read from, for messages.
      task_is_guessed: its metadata name no task, so ``metadata.task`` is a guess.
    """

    metadata: DatasetMetadata
    sets: dict[str, PuzzleSet]
    path: str = ''
    task_is_guessed: bool = False

    def fingerprint(self) -> str:
        """Short digest of metadata and puzzles: equal for equal data, wherever it is stored."""
        digest = hashlib.blake2b(self.metadata.to_json().encode(), digest_size=8)
        for name, puzzles in self.sets.items():
            digest.update(name.encode())
            for field in dataclasses.fields(puzzles):
                value = getattr(puzzles, field.name)
                if isinstance(value, np.ndarray):
                    digest.update(np.ascontiguousarray(value).data)
        return digest.hexdigest()


def puzzle_names(puzzles: PuzzleSet, separator: str = '_') -> list[str]:
    """Returns the name of every puzzle of an ARC set.

    The original's names: that of the source puzzle, and for augmentations
    ``<name>_t<dihedral id>_<new colour of each colour>``; TRM parts them by ``|||``.
    """
    groups = np.searchsorted(puzzles.group_indices, np.arange(puzzles.num_puzzles), side='right')
    names = [puzzles.names[g - 1] for g in groups]
    if puzzles.maps is None:
        return names
    plain = (puzzles.maps == augment.identity_map('arc', augment.ARC_SIDE)).all(axis=1)
    return [
        name if same else f'{name}{separator}t{row[0]}{separator}{"".join(map(str, row[1:]))}'
        for name, same, row in zip(names, plain, puzzles.maps.tolist(), strict=True)
    ]


def realise(
    puzzles: PuzzleSet,
    metadata: DatasetMetadata,
    stored_B: np.ndarray,
    maps_BM: np.ndarray | None,
    offsets_B2: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Applies maps to stored examples: tokens [B, S] of questions and answers, as stored dtype.

    ARC grids are placed and ended even without a map (None: identity; offsets: top left).
    """
    inputs, labels = puzzles.inputs[stored_B], puzzles.labels[stored_B]
    extents = None if puzzles.extents is None else puzzles.extents[stored_B]
    if extents is not None:
        if maps_BM is None:
            maps_BM = np.tile(augment.identity_map('arc', metadata.side), (len(stored_B), 1))
        if offsets_B2 is None:
            offsets_B2 = np.zeros((len(stored_B), 2), np.uint8)
    if maps_BM is None:
        return inputs, labels
    return augment.apply(
        metadata.transform, inputs, labels, maps_BM, metadata.side, extents, offsets_B2
    )


def stored_examples(
    puzzles: PuzzleSet, metadata: DatasetMetadata, examples_B: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the examples as the data set defines them: tokens [B, S] twice."""
    owners, within = puzzles.owners(examples_B)
    maps = None if puzzles.maps is None else puzzles.maps[owners]
    offsets = None if puzzles.offsets is None else puzzles.offsets[examples_B]
    return realise(puzzles, metadata, puzzles.puzzle_first[owners] + within, maps, offsets)


def validate(dataset: PuzzleDataset) -> None:
    """Checks what indexing relies on.

    Raises:
      DatasetError: indices that do not fit together, or a value out of range.
    """
    metadata = dataset.metadata
    for name, puzzles in dataset.sets.items():
        where = f'{dataset.path or "data set"}, set {name!r}'
        rebuild = 'The set is damaged or was made by another program; build it again.'
        DatasetError.require(
            puzzles.inputs.ndim == 2 and puzzles.inputs.shape[1] == metadata.seq_len,
            f'{where}: inputs must be rows of seq_len {metadata.seq_len} cells; got '
            f'{puzzles.inputs.shape}. {rebuild}',
        )
        DatasetError.require(
            puzzles.inputs.shape == puzzles.labels.shape,
            f'{where}: inputs and labels must have one shape; got {puzzles.inputs.shape} '
            f'and {puzzles.labels.shape}. {rebuild}',
        )
        for field, last in (('group_indices', puzzles.num_puzzles), ('puzzle_indices', None)):
            values = getattr(puzzles, field)
            rising = len(values) > 1 and values[0] == 0 and bool(np.all(np.diff(values) > 0))
            DatasetError.require(
                rising and (last is None or values[-1] == last),
                f'{where}: {field} must rise from 0'
                + (f' to {last}' if last is not None else '')
                + f'. {rebuild}',
            )
        counts = np.diff(puzzles.puzzle_indices)
        DatasetError.require(
            len(counts) == puzzles.num_puzzles
            and puzzles.puzzle_first.min() >= 0
            and (puzzles.puzzle_first + counts).max() <= len(puzzles.inputs)
            and len(puzzles.puzzle_identifiers) == puzzles.num_puzzles,
            f'{where}: a puzzle points outside the {len(puzzles.inputs)} stored examples. '
            f'{rebuild}',
        )
        limits = (
            ('inputs', metadata.vocab_size, None),
            ('labels', metadata.vocab_size, metadata.ignore_label_id),
            ('puzzle_identifiers', metadata.num_puzzle_identifiers, None),
        )
        for field, stop, also in limits:
            low, high = _range(getattr(puzzles, field), also)
            DatasetError.require(
                low >= 0 and high < stop,
                f'{where}: {field} must lie in 0..{stop - 1}'
                + (f' (or be ignore_label_id {also})' if also is not None else '')
                + f'; got {low}..{high}. {rebuild}',
            )


def check_identifiers(dataset: PuzzleDataset, rows: int) -> None:
    """Checks that every puzzle of a split has its row in a puzzle table of ``rows`` rows.

    Raises:
      DatasetError: the table ends before; a gather beyond it would give NaN without a word.
    """
    for name, puzzles in dataset.sets.items():
        highest = max(int(puzzles.puzzle_identifiers.max()), dataset.metadata.blank_identifier_id)
        DatasetError.require(
            highest < rows,
            f'{dataset.path or "data set"}, set {name!r}: puzzle identifiers go up to '
            f'{highest}, and the puzzle table of the model has {rows} rows. Use the data '
            f'set that the model is trained on, all splits built together.',
        )


def _range(values: np.ndarray, ignored: int | None) -> tuple[int, int]:
    """Smallest and largest value, the ignored one left out, without a copy of the whole."""
    low, high = 0, 0
    step = max(1, (1 << 24) // max(1, values[:1].size))
    for start in range(0, len(values), step):
        chunk = values[start : start + step]
        if ignored is not None and ignored < 0:
            chunk = np.where(chunk == ignored, 0, chunk)
        if chunk.size:
            low, high = min(low, int(chunk.min())), max(high, int(chunk.max()))
    return low, high
