"""The one definition of a record: a block of consecutive groups of a set.

A record has the fields of ``FIELDS``, each a vector of bytes (integers little-endian).
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from hrm_jax import files
from hrm_jax.data import augment
from hrm_jax.data.metadata import DatasetMetadata
from hrm_jax.data.puzzles import PuzzleSet
from hrm_jax.errors import DatasetError

_REBUILD = 'The set is damaged; build it again.'
_MOST_EXAMPLES = 1 << 20  # ARC grids of one record: 1 GB on the canvas

# Field of a record -> dtype of its values; None: the dtype that metadata.cell_bytes names.
FIELDS = {
    'set_name': 'u1',  # utf-8
    'inputs': None,  # stored examples, un-padded, one after the other
    'labels': None,
    'extents': 'u1',  # h_in, w_in, h_out, w_out of each; empty: all fill seq_len
    'group_puzzles': '<i4',  # puzzles of each group
    'puzzle_first': '<i4',  # first stored example of each puzzle, within the block
    'puzzle_count': '<i4',  # how many
    'puzzle_identifiers': '<i4',
    'maps': 'u1',  # one row per puzzle; empty: identity
    'offsets': 'u1',  # row and column of each example of each puzzle; empty: 0
    'names': 'u1',  # utf-8, one line per group; empty: nameless
}
CELL_DTYPES = {1: np.dtype('u1'), 2: np.dtype('<u2'), 4: np.dtype('<i4')}


def encode(
    name: str, puzzles: PuzzleSet, metadata: DatasetMetadata, block_puzzles: int = 4096
) -> Iterator[dict[str, np.ndarray]]:
    """Cuts a set into records of at least ``block_puzzles`` puzzles (whole groups)."""
    start = 0
    while start < puzzles.num_groups:
        goal = puzzles.group_indices[start] + block_puzzles
        stop = min(int(np.searchsorted(puzzles.group_indices, goal)), puzzles.num_groups)
        yield _encode_block(name, puzzles, metadata, start, stop)
        start = stop


def _encode_block(
    name: str, puzzles: PuzzleSet, metadata: DatasetMetadata, start: int, stop: int
) -> dict[str, np.ndarray]:
    groups = puzzles.group_indices[start : stop + 1]
    units = slice(int(groups[0]), int(groups[-1]))
    counts = np.diff(puzzles.puzzle_indices[units.start : units.stop + 1])
    first = puzzles.puzzle_first[units]
    rows = slice(int(first.min()), int((first + counts).max()))
    inputs, labels = puzzles.inputs[rows], puzzles.labels[rows]
    extents = None if puzzles.extents is None else puzzles.extents[rows]
    examples = slice(*puzzles.puzzle_indices[[units.start, units.stop]])
    values = {
        'set_name': np.frombuffer(name.encode(), np.uint8),
        'inputs': inputs if extents is None else inputs[_inside(extents[:, :2], metadata.side)],
        'labels': labels if extents is None else labels[_inside(extents[:, 2:], metadata.side)],
        'extents': extents,
        'group_puzzles': np.diff(groups),
        'puzzle_first': first - rows.start,
        'puzzle_count': counts,
        'puzzle_identifiers': puzzles.puzzle_identifiers[units],
        'maps': None if puzzles.maps is None else puzzles.maps[units],
        'offsets': None if puzzles.offsets is None else puzzles.offsets[examples],
        'names': np.frombuffer('\n'.join(puzzles.names[start:stop]).encode(), np.uint8),
    }
    empty = np.zeros(0, np.uint8)
    return {
        field: empty
        if value is None
        else np.ascontiguousarray(value, _field_dtype(field, metadata)).reshape(-1).view(np.uint8)
        for field, value in values.items()
    }


def _field_dtype(field: str, metadata: DatasetMetadata) -> np.dtype:
    return np.dtype(FIELDS[field] or CELL_DTYPES[metadata.cell_bytes])


def _inside(extents_N2: np.ndarray, side: int) -> np.ndarray:
    """Cells of the ARC canvas that belong to grids of these sides: bool [N, side * side]."""
    line = np.arange(side)
    rows, columns = (line < extents_N2[:, k, None] for k in range(2))
    return (rows[:, :, None] & columns[:, None, :]).reshape(len(extents_N2), -1)


def decode(
    blocks: Iterable[dict[str, np.ndarray]], metadata: DatasetMetadata
) -> dict[str, PuzzleSet]:
    """Joins records back into sets; the inverse of ``encode``.

    Raises:
      DatasetError: fields that do not fit together.
    """
    parts: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in metadata.sets}
    for number, block in enumerate(blocks, start=1):
        name, values = _decode_block(block, metadata, f'record {number}')
        DatasetError.require(
            name in parts,
            f'record {number} is of a set {files.shown(name)} that the metadata do not name '
            f'({", ".join(metadata.sets)}). {_REBUILD}',
        )
        parts[name].append(values)
    return {name: _join(name, blocks, metadata) for name, blocks in parts.items()}


def _decode_block(
    block: dict[str, np.ndarray], metadata: DatasetMetadata, where: str
) -> tuple[str, dict[str, Any]]:
    """Returns the name of a record's set and its fields as arrays."""
    values: dict[str, Any] = {
        f: np.asarray(block[f]).view(_field_dtype(f, metadata)) for f in FIELDS
    }
    text = values['names'].tobytes().decode()
    values['names'] = text.split('\n') if text else []
    groups = len(values['group_puzzles'])
    DatasetError.require(
        len(values['names']) in (0, groups),
        f'{where} must have a name for each of its {groups} groups, or none; it has '
        f'{len(values["names"])}. {_REBUILD}',
    )
    extents = values['extents'] = values['extents'].reshape(-1, 4)
    for field, columns in (('inputs', slice(0, 2)), ('labels', slice(2, 4))):
        cells = values[field]
        if not len(extents):
            values[field] = cells.reshape(-1, metadata.seq_len)
            continue
        sides = extents[:, columns].astype(np.int64)
        # Before the canvas is made: a few bytes may claim more examples than the memory holds.
        DatasetError.require(
            sides.max() <= metadata.side
            and sides.prod(axis=1).sum() == len(cells)
            and len(extents) <= _MOST_EXAMPLES,
            f'{where}: {field} must have the cells of {len(extents)} grids (at most '
            f'{_MOST_EXAMPLES} of {metadata.side} x {metadata.side}); it has {len(cells)}. '
            f'{_REBUILD}',
        )
        mask = _inside(extents[:, columns], metadata.side)
        canvas = np.zeros(mask.shape, cells.dtype)
        canvas[mask] = cells
        values[field] = canvas
    return values['set_name'].tobytes().decode(), values


def _join(name: str, blocks: list[dict[str, Any]], metadata: DatasetMetadata) -> PuzzleSet:
    """Joins the records of one set."""
    DatasetError.require(
        bool(blocks), f'the metadata name a set {name!r} that has no records. {_REBUILD}'
    )
    joined = {f: np.concatenate([b[f] for b in blocks]) for f in FIELDS if f != 'names'}
    before = np.cumsum([0] + [len(b['inputs']) for b in blocks[:-1]])
    shift = np.repeat(before, [len(b['puzzle_first']) for b in blocks])
    width = augment.map_width(metadata.transform, metadata.side)
    puzzles = PuzzleSet(
        inputs=joined['inputs'],
        labels=joined['labels'],
        group_indices=np.concatenate([[0], np.cumsum(joined['group_puzzles'], dtype=np.int64)]),
        puzzle_indices=np.concatenate([[0], np.cumsum(joined['puzzle_count'], dtype=np.int64)]),
        puzzle_first=joined['puzzle_first'].astype(np.int64) + shift,
        puzzle_identifiers=joined['puzzle_identifiers'].astype(np.int32),
        maps=joined['maps'].reshape(-1, width) if len(joined['maps']) else None,
        extents=joined['extents'] if len(joined['extents']) else None,
        offsets=joined['offsets'].reshape(-1, 2) if len(joined['offsets']) else None,
        names=tuple(n for b in blocks for n in b['names']),
    )
    counts = (
        ('maps', puzzles.num_puzzles), ('extents', len(puzzles.inputs)),
        ('offsets', puzzles.num_examples),
    )  # fmt: skip
    for field, count in counts:
        values = getattr(puzzles, field)
        if values is not None:
            DatasetError.require(
                len(values) == count,
                f'set {name!r}: {field} must have {count} rows; got {values.shape}. {_REBUILD}',
            )
    return puzzles
