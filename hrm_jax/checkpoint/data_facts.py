"""Short digests of what a data set means, which a checkpoint records about its training data.

Three things: its content, what its tokens stand for, and what its puzzle identifiers stand for.
compatible.py compares them.
"""

from collections.abc import Iterable, Mapping
import dataclasses
import hashlib
import json
import re
from typing import Any

import numpy as np

from hrm_jax import tasks
from hrm_jax.data import records
from hrm_jax.data.puzzles import PuzzleDataset

# TRM separates the parts of an augmentation's name by |||, HRM by _.
_TRM_NAME = re.compile(r'\|\|\|t(\d)\|\|\|(\d{10})\Z')


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for line in lines:
        digest.update(line.encode('utf-8', 'surrogatepass') + b'\n')
    return digest.hexdigest()


def vocabulary_digest(dataset: PuzzleDataset) -> str:
    """Digest of what the tokens of a data set stand for; '' where nothing states it.

    Begins with its kind, ``words:`` or ``task:``; only digests of one kind can be compared.
    """
    words = records.described(dataset.metadata, dataset.path).vocabulary
    if words:
        return f'words:{_digest(json.dumps(word) for word in words)}'
    return of_task(dataset.metadata.task, dataset.metadata.vocab_size)


def of_task(task: str, vocab_size: int) -> str:
    """The same for a task with symbols of its own; '' for others."""
    symbols = tasks.kind_of(task).symbols[:vocab_size]
    return f'task:{_digest((task, symbols))}' if symbols else ''


def _names(splits: Iterable[PuzzleDataset]) -> list[str]:
    """Name of every puzzle identifier, in HRM's spelling; [] where the set does not name them."""
    splits = list(splits)
    count = max(one.metadata.num_puzzle_identifiers for one in splits)
    names = records.identifier_names(splits)
    if len(names) != count:  # HRM-Lisp lists its tokens in identifiers.json
        names = records.identifier_names([dataclasses.replace(one, path='') for one in splits])
    blank = splits[0].metadata.blank_identifier_id
    known = any(name for identifier, name in enumerate(names) if identifier != blank)
    return [_TRM_NAME.sub(r'_t\1_\2', name) for name in names] if known else []


def _pairs_digest(dataset: PuzzleDataset, names: list[str]) -> str:
    used = np.unique(np.concatenate([one.puzzle_identifiers for one in dataset.sets.values()]))
    blank = dataset.metadata.blank_identifier_id
    return _digest(f'{k} {names[k]}' for k in used.tolist() if k != blank)


def identifier_digests(splits: Mapping[str, PuzzleDataset]) -> dict[str, str]:
    """Digests of what the identifiers of a data set stand for.

    Args:
      splits: name -> split, all that are at hand.

    Returns:
      ``all`` -> of all names together, and split -> of the identifiers that occur in it; empty
      where there is but the blank identifier, or the set names none.
    """
    if max(one.metadata.num_puzzle_identifiers for one in splits.values()) <= 1:
        return {}
    names = _names(splits.values())
    if not names:
        return {}
    return {'all': _digest(names)} | {
        split: _pairs_digest(one, names) for split, one in splits.items()
    }


def data_facts(splits: Mapping[str, PuzzleDataset], train: str = 'train') -> dict[str, Any]:
    """What a checkpoint records about the meaning of its data, JSON-able.

    Args:
      splits: name -> split.
      train: name of the split that is trained on.
    """
    return {
        'digest': splits[train].digest,
        'vocabulary': vocabulary_digest(splits[train]),
        'identifiers': identifier_digests(splits),
    }
