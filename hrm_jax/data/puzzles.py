"""A puzzle data set in memory: metadata, groups, puzzles, examples.

A group is one source puzzle, a puzzle is one of its augmentations, and examples belong to a
puzzle. A set holds the examples of a group once, and each puzzle as a map (augment.py) over
a range of them; so 1,000 augmentations of a board cost 28 bytes each, not 162. A folder in
the original's format has its augmented examples written out: there every puzzle has a range
of its own and no map.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import functools
import hashlib
import json

import numpy as np

from hrm_jax.data import augment, names
from hrm_jax.data.mapped import MappedFile
from hrm_jax.data.metadata import METADATA, DatasetMetadata
from hrm_jax.data.names import BLANK_NAME
from hrm_jax.errors import DatasetError

__all__ = ['BLANK_NAME', 'METADATA', 'DatasetMetadata', 'PuzzleDataset', 'PuzzleSet']


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
      files: those that inputs or labels are still in, mapped into memory.
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
    files: tuple[MappedFile, ...] = ()

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

    def check_files(self, sample: bool = False) -> None:
        """Raises DatasetError where a mapped file has changed; see ``MappedFile.check``."""
        for file in self.files:
            file.check(sample)

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
      stored_digest: what its builder recorded as ``digest``; '' where none did.
      ratings: set -> float32 [examples], difficulty as the source of the puzzles states it; only
        sets whose source does.
    """

    metadata: DatasetMetadata
    sets: dict[str, PuzzleSet]
    path: str = ''
    task_is_guessed: bool = False
    stored_digest: str = ''
    ratings: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def digest(self) -> str:
        """Digest of the puzzles: as recorded when the set was built, else computed once.

        Equal sets of one format have one digest, wherever they are stored. A folder with its
        augmentations written out has another one than the records it was made from.
        """
        return self.stored_digest or content_digest(self.metadata, self.sets)

    @functools.cached_property
    def has_answers(self) -> bool:
        """Whether any label counts. Without answers a split is there to be predicted only."""
        ignored = self.metadata.ignore_label_id
        return ignored is None or any(
            bool((part != ignored).any())
            for puzzles in self.sets.values()
            for part in _chunks(puzzles.labels)
        )

    def fingerprint(self) -> str:
        """Short digest of metadata and puzzles as they are in memory, for equal machines."""
        digest = hashlib.blake2b(self.metadata.to_json().encode(), digest_size=8)
        for name, puzzles in self.sets.items():
            digest.update(name.encode())
            for field in dataclasses.fields(puzzles):
                value = getattr(puzzles, field.name)
                if isinstance(value, np.ndarray):
                    digest.update(np.ascontiguousarray(value).data)
        return digest.hexdigest()


# Field of a PuzzleSet -> type in which it is digested, whatever it has in memory; None: that of
# the cells.
_DIGESTED = {
    'inputs': None, 'labels': None, 'group_indices': '<i8', 'puzzle_indices': '<i8',
    'puzzle_first': '<i8', 'puzzle_identifiers': '<i4', 'maps': 'u1', 'extents': 'u1',
    'offsets': 'u1',
}  # fmt: skip


def content_digest(metadata: DatasetMetadata, sets: Mapping[str, PuzzleSet]) -> str:
    """Returns the digest of a split's puzzles: 128 bits (BLAKE2b) as hexadecimal digits.

    It covers all that a run trains on: tokens, groups, augmentations, identifiers and names. What
    only describes them (task, held_out, total_groups) is left out.
    """
    legal = (0, metadata.vocab_size - 1, metadata.ignore_label_id or 0)
    cells = 'u1' if min(legal) >= 0 and max(legal) <= 255 else '<i4'
    keys = ('vocab_size', 'seq_len', 'pad_id', 'ignore_label_id', 'blank_identifier_id')
    facts = {key: getattr(metadata, key) for key in keys}
    digest = hashlib.blake2b(json.dumps(facts).encode(), digest_size=16)
    for name in metadata.sets:
        puzzles = sets[name]
        mapped = metadata.transform if puzzles.maps is not None else ''
        digest.update(json.dumps([name, mapped, puzzles.names]).encode())
        for field, dtype in _DIGESTED.items():
            values = getattr(puzzles, field)
            shape = None if values is None else values.shape
            digest.update(json.dumps([field, shape]).encode())
            for part in () if values is None else _chunks(values):
                digest.update(np.ascontiguousarray(part, np.dtype(dtype or cells)).data)
    return digest.hexdigest()


def _chunks(values: np.ndarray) -> Iterator[np.ndarray]:
    """Yields parts of an array, so that a mapped one is never copied as a whole."""
    step = max(1, (1 << 24) // max(1, values[:1].size))
    for start in range(0, len(values), step):
        yield values[start : start + step]


def puzzle_names(puzzles: PuzzleSet, separator: str = '_') -> list[str]:
    """Returns the name of every puzzle of an ARC set.

    The original's names: that of the source puzzle, and for augmentations
    ``<name>_t<dihedral id>_<new colour of each colour>``; TRM parts them by ``|||``.
    """
    groups = np.searchsorted(puzzles.group_indices, np.arange(puzzles.num_puzzles), side='right')
    of_groups = [puzzles.names[g - 1] for g in groups]
    if puzzles.maps is None:
        return of_groups
    plain = (puzzles.maps == augment.identity_map('arc', augment.ARC_SIDE)).all(axis=1)
    return [
        name if same else f'{name}{separator}t{row[0]}{separator}{"".join(map(str, row[1:]))}'
        for name, same, row in zip(of_groups, plain, puzzles.maps.tolist(), strict=True)
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
    puzzles.check_files()
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
        if puzzles.names:
            first = puzzles.puzzle_identifiers[puzzles.group_indices[:-1]].tolist()
            names.check_puzzle_names(puzzles.names, first, where)
        limits = (
            ('inputs', metadata.vocab_size, None),
            ('labels', metadata.vocab_size, metadata.ignore_label_id),
            ('puzzle_identifiers', metadata.num_puzzle_identifiers, None),
        )
        for field, stop, also in limits:
            low, high = _range(getattr(puzzles, field), also)
            DatasetError.require(
                low >= 0 and high < stop,
                f'{where}: {field} must be in 0..{stop - 1}'
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
    """Smallest and largest value, the ignored one left out."""
    low, high = 0, 0
    for chunk in _chunks(values):
        if ignored is not None and ignored < 0:
            chunk = np.where(chunk == ignored, 0, chunk)
        if chunk.size:
            low, high = min(low, int(chunk.min())), max(high, int(chunk.max()))
    return low, high
