"""The task of a saved model: stated by somebody, or inferred from its sizes."""

from collections.abc import Callable
import dataclasses
import os
from pathlib import Path
from typing import Any

from hrm_jax import files, tasks
from hrm_jax.checkpoint.store import SavedModel
from hrm_jax.data import records
from hrm_jax.data.puzzles import METADATA, DatasetMetadata
from hrm_jax.errors import DatasetError


def task_of(
    saved: SavedModel, data: str | os.PathLike, task: str, log: Callable[[str], None]
) -> tuple[tasks.Task, str]:
    """The task of a model's puzzles, and the kind of its symmetries.

    What is stated counts in this order: ``task``, the checkpoint, its data set; otherwise the task
    is inferred from the sizes.
    """
    model, root = saved.config.model, files.expanded(data or saved.config.data.path or '')
    facts = dict(saved.meta.get('dataset') or {})
    if not facts.get('task'):
        facts |= _facts_of_data(Path(root), model.vocab_size, model.seq_len) if root else {}
    sizes = {'vocab_size': model.vocab_size, 'seq_len': model.seq_len}
    one = {'num_puzzle_identifiers': 1, 'total_groups': 1, 'mean_puzzle_examples': 1.0}
    metadata = records.described(DatasetMetadata.from_dict(one | facts | sizes), root)
    name = task or metadata.task
    if not name and metadata.vocabulary:
        name = 'lisp'
    if not name:
        name = tasks.infer(model.vocab_size, model.seq_len)
        log(
            f'task: {name or "unknown, so puzzles are token ids"} (inferred from '
            f'{model.vocab_size} tokens and {model.seq_len} cells; --task NAME states another)'
        )
    made = dataclasses.replace(metadata, task=name).task_of()
    stated = facts.get('transform') if name == facts.get('task') else None
    return made, made.symmetries if stated is None else stated


def _facts_of_data(root: Path, vocab_size: int, seq_len: int) -> dict[str, Any]:
    """What the data set of a model states, if it is at hand and has the model's sizes."""
    for split in ('test', 'train'):
        path = root / split / METADATA
        if path.is_file():
            data = DatasetMetadata.from_dict(files.read_json(path, DatasetError, dict), path)
            if (data.vocab_size, data.seq_len) == (vocab_size, seq_len) and data.task:
                sizes = ('vocab_size', 'seq_len', 'num_puzzle_identifiers')
                facts = dataclasses.asdict(data)
                return {name: fact for name, fact in facts.items() if name not in sizes}
    return {}
