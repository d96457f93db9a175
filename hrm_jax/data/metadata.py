"""Metadata of a split (``<split>/dataset.json``), checked key by key."""

from collections.abc import Callable, Mapping
import dataclasses
import json
import math
from typing import Any

from hrm_jax import files, tasks
from hrm_jax.data import augment, names
from hrm_jax.errors import DatasetError

METADATA = 'dataset.json'
DIGEST = 'digest'  # key of a digest of the puzzles (``puzzles.content_digest``)

# Largest sizes that are read. What is larger comes from damage: nobody has the memory for it.
_LIMITS = {
    'vocab_size': 1 << 24,
    'seq_len': 1 << 20,
    'num_puzzle_identifiers': 1 << 28,
    'total_groups': 1 << 40,
}
_CELL_BYTES = (1, 2, 4)


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
      grid: rows and columns in which the cells stand, for tasks that do not define it.
      vocabulary: text of every token, for tasks that do not define it; empty: unknown.
      row_marks: characters that separate rows, beside line breaks.
      blanks: characters that all stand for an empty cell, stored as the first of them.
      words: cells are words separated by blanks, also where each is one character.
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
    grid: tuple[int, int] | None = None
    vocabulary: tuple[str, ...] = ()
    row_marks: str = ''
    blanks: str = ''
    words: bool = False

    @property
    def side(self) -> int:
        """Rows of a square grid; 0 where an example is not a square."""
        side = round(self.seq_len**0.5)
        return side if side * side == self.seq_len else 0

    def task_of(self) -> tasks.Task:
        """The task of these puzzles: symbols, rules, colours."""
        return tasks.kind_of(self.task)(
            seq_len=self.seq_len,
            vocab_size=self.vocab_size,
            pad_id=self.pad_id,
            vocabulary={word: token for token, word in enumerate(self.vocabulary)},
            grid=self.grid,
            row_marks=self.row_marks,
            blanks=self.blanks,
            words=self.words,
            pads_are_scored=self.ignore_label_id != self.pad_id,
        )

    def to_json(self, **more: Any) -> str:
        """Returns the text of ``dataset.json``, with further keys at its end."""
        return json.dumps({**dataclasses.asdict(self), 'sets': list(self.sets), **more}, indent=2)

    @classmethod
    def from_json(cls, text: str | bytes, source: Any = METADATA) -> 'DatasetMetadata':
        """Parses ``dataset.json``; unknown keys (of other builders) are left out.

        Args:
          text: the JSON.
          source: names the file in messages.

        Raises:
          DatasetError: the text is not a JSON object, or a key is missing, of another type or out
            of range; file and key are named.
        """
        return cls.from_dict(files.parse_json(text, source, DatasetError, dict), source)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: Any = METADATA) -> 'DatasetMetadata':
        """Like ``from_json``, from the parsed object."""
        known = {}
        for field in dataclasses.fields(cls):
            if field.name in values:
                wanted, fits = _KEYS[field.name]
                _require(fits(values[field.name]), source, field.name, wanted, values[field.name])
                known[field.name] = values[field.name]
            elif field.default is dataclasses.MISSING:
                raise DatasetError(f'{source} must have the key {field.name}. {_AGAIN}')
        if 'sets' in known:
            for name in known['sets']:
                names.check_file_name(name, f'{source}, key sets: the name of a set')
            known['sets'] = tuple(known['sets'])
        if known.get('grid') is not None:
            known['grid'] = tuple(known['grid'])
        known['vocabulary'] = tuple(known.get('vocabulary', ()))
        metadata = cls(**known)
        cells = math.prod(metadata.grid or (metadata.seq_len,))
        _require(cells == metadata.seq_len, source, 'grid', 'two factors of seq_len', metadata.grid)
        words = len(metadata.vocabulary)
        _require(
            words in (0, metadata.vocab_size), source, 'vocabulary', 'a text for each of the '
            f'{metadata.vocab_size} tokens, or empty', metadata.vocabulary,
        )  # fmt: skip
        inside = (('pad_id', 'vocab_size'), ('blank_identifier_id', 'num_puzzle_identifiers'))
        for name, size in inside:
            value, stop = getattr(metadata, name), getattr(metadata, size)
            _require(value < stop, source, name, f'below {size}, {stop}', value)
        return metadata


_AGAIN = 'Build the set again.'


def _require(condition: bool, source: Any, key: str, wanted: str, value: Any) -> None:
    DatasetError.require(
        condition, f'{source}: {key} must be {wanted}; got {files.shown(value)}. {_AGAIN}'
    )


def _whole(low: int, high: int) -> tuple[str, Callable[[Any], bool]]:
    return f'a whole number in {low}..{high:,}', lambda v: type(v) is int and low <= v <= high


def _one_of(*choices: Any) -> tuple[str, Callable[[Any], bool]]:
    """A choice by value and type: JSON's true is not 1."""
    return f'one of {", ".join(map(str, choices))}', lambda v: any(
        type(v) is type(choice) and v == choice for choice in choices
    )


# Key -> what its value must be, in words and as a test.
_KEYS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **{name: _whole(1, limit) for name, limit in _LIMITS.items()},
    'mean_puzzle_examples': (
        'a number above 0',
        lambda v: type(v) in (int, float) and 0 < v < math.inf,
    ),
    'pad_id': _whole(0, _LIMITS['vocab_size']),
    'ignore_label_id': (
        'a whole number or null',
        lambda v: v is None or (type(v) is int and abs(v) < 1 << 31),
    ),
    'blank_identifier_id': _whole(0, _LIMITS['num_puzzle_identifiers']),
    'sets': (
        'a list of different names of sets',
        lambda v: (
            isinstance(v, list | tuple)
            and bool(v)
            and all(isinstance(one, str) for one in v)
            and len(set(v)) == len(v)
        ),
    ),
    'task': (
        'a text',
        lambda v: isinstance(v, str) and len(v) <= 100 and (not v or v.isprintable()),
    ),
    'transform': _one_of(*augment.TRANSFORMS),
    'cell_bytes': _one_of(*_CELL_BYTES),
    'held_out': _one_of(True, False, None),
    'grid': (
        'null or two whole numbers above 0',
        lambda v: (
            v is None
            or (
                isinstance(v, list | tuple)
                and len(v) == 2
                and all(type(n) is int and 0 < n <= _LIMITS['seq_len'] for n in v)
            )
        ),
    ),
    'vocabulary': (
        'a list of different texts',
        lambda v: (
            isinstance(v, list | tuple)
            and all(isinstance(word, str) for word in v)
            and len(set(v)) == len(v)
        ),
    ),
    'row_marks': ('a text', lambda v: isinstance(v, str)),
    'blanks': ('a text', lambda v: isinstance(v, str)),
    'words': _one_of(True, False),
}
