"""Atomic writing of data sets: a half-written one never has the final name.

Everything goes into a hidden folder beside the output; the manifest is written last, and one
rename makes the set visible. A lock prevents two builds from writing to one place.
"""

from collections.abc import Callable, Iterable, Iterator
import contextlib
import dataclasses
import importlib.metadata
import itertools
import json
import os
import pathlib
import platform
import sys
import time
from typing import Any

import numpy as np

from data_builders.options import WriterOptions
from hrm_jax import files, locks
from hrm_jax.data import blocks, npy_folder, records
from hrm_jax.data.metadata import DIGEST, METADATA, DatasetMetadata
from hrm_jax.data.puzzles import PuzzleSet, content_digest
from hrm_jax.errors import BuildError
from hrm_jax.tasks import kind_of

_LARGEST_DRAWN = 16  # rows of a board that is drawn at the end of a build


@dataclasses.dataclass(frozen=True)
class Split:
    """One split, ready to be written."""

    metadata: DatasetMetadata
    sets: dict[str, PuzzleSet]

    def counts(self) -> dict[str, int]:
        return {
            name: sum(getattr(puzzles, f'num_{name}') for puzzles in self.sets.values())
            for name in ('groups', 'puzzles', 'examples')
        }


def one_set(puzzles: PuzzleSet, *, num_puzzle_identifiers: int = 1, **metadata: Any) -> Split:
    """Returns a split with the single set ``all`` and its sizes filled in."""
    return Split(
        DatasetMetadata(
            seq_len=puzzles.inputs.shape[1],
            num_puzzle_identifiers=num_puzzle_identifiers,
            total_groups=puzzles.num_groups,
            mean_puzzle_examples=puzzles.num_examples / puzzles.num_puzzles,
            cell_bytes=puzzles.inputs.dtype.itemsize,
            **metadata,
        ),
        {'all': puzzles},
    )


def progress(items: Iterable, what: str, total: int | None = None, show: bool = True) -> Iterable:
    """Wraps an iterable in a progress bar on the console."""
    if not show:
        return items
    from tqdm import tqdm

    return tqdm(items, desc=what, total=total, leave=False, dynamic_ncols=True, mininterval=0.5)


def require_memory(needed: int, what: str) -> None:
    """Raises BuildError where arrays would not fit in the memory of this machine.

    Args:
      needed: bytes.
      what: the arrays, their sizes, and how to make them smaller.
    """
    there = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    BuildError.require(
        needed <= there,
        f'{what} needs {needed / 1e9:,.1f} GB of memory; this machine has {there / 1e9:,.1f} GB.',
    )


def check_output(output_dir: str | pathlib.Path, overwrite: bool) -> pathlib.Path:
    """Returns the output folder as a path; called before the work starts.

    Raises:
      BuildError: it exists and ``overwrite`` is off, it exists and is not a data set, or its
        parent cannot be written to.
    """
    output = pathlib.Path(output_dir).expanduser().absolute()
    if output.exists():
        BuildError.require(
            overwrite, f'{output} exists. Choose another --output-dir, or add --overwrite.'
        )
        known = output.is_dir() and (
            (output / records.MANIFEST).is_file() or npy_folder.looks_like_one(output)
            or not any(output.iterdir())
        )  # fmt: skip
        BuildError.require(
            known,
            f'{output} is not a data set, so --overwrite does not replace it. Remove it yourself '
            f'or choose another --output-dir.',
        )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        BuildError.require(
            os.access(output.parent, os.W_OK), f'{output.parent} cannot be written to.'
        )
    except OSError as error:
        raise BuildError(f'{output.parent} cannot be made: {error}') from None
    return output


@contextlib.contextmanager
def replacing(output: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a hidden folder that takes the name ``output`` when the block ends well.

    Raises:
      BuildError: another build holds the same output.
    """
    try:
        with files.new_folder(output, existing='replace') as folder:
            yield folder
    except locks.Held as error:
        raise BuildError(
            f'another build is writing {output} ({error.owner}). Wait for it, or choose another '
            f'--output-dir.'
        ) from None
    except OSError as error:
        raise BuildError(f'{output} could not be written: {error}') from error


def write_dataset(
    output: pathlib.Path,
    task: str,
    splits: dict[str, Split],
    options: WriterOptions,
    *,
    sources: list[dict[str, Any]],
    started: float,
    notes: dict[str, Any] | None = None,
    recorded: dict[str, Any] | None = None,
    also: Callable[[pathlib.Path], None] | None = None,
) -> dict[str, Any]:
    """Writes records, metadata and manifest; prints a summary and returns the manifest.

    Args:
      output: final folder, from ``check_output``.
      task: name of the task and of the record files.
      splits: 'train', 'test' and, where there are questions without answers, 'predict'.
      options: the builder's settings; their seed goes into the manifest.
      sources: origin of the data: path or name, sha256, bytes.
      started: ``time.monotonic()`` at the start of the build.
      notes: facts to keep, such as the leak report.
      recorded: the manifest's options; None: those of ``options``.
      also: writes further files into the folder.
    """
    from data_builders import tfds_builder

    total = sum(split.counts()['groups'] for split in splits.values())
    with replacing(output) as folder, _bar(total, options.show) as advance:
        found = {name: _advancing(split, advance) for name, split in splits.items()}
        tfds_builder.write(folder, task, found)
        for name, split in splits.items():
            (folder / name).mkdir()
            digest = {DIGEST: content_digest(split.metadata, split.sets)}
            (folder / name / METADATA).write_text(split.metadata.to_json(**digest))
        if also is not None:
            also(folder)
        manifest = {
            'format_version': records.FORMAT_VERSION,
            'task': task,
            'counts': {name: split.counts() for name, split in splits.items()},
            'seed': options.seed,
            'options': options.recorded() if recorded is None else recorded,
            'sources': sources,
            'notes': notes or {},
            'versions': _versions(),
            'seconds': round(time.monotonic() - started, 2),
            'files': {
                str(file.relative_to(folder)): file.stat().st_size
                for file in sorted(folder.rglob('*'))
                if file.is_file()
            },
        }
        files.write_text(folder / records.MANIFEST, json.dumps(manifest, indent=2, default=str))
    if options.show:
        print(summary(output, manifest), file=sys.stderr)
        if drawn := example(splits['train']):
            print(drawn, file=sys.stderr)
    return manifest


def example(split: Split) -> str:
    """Returns the first puzzle of a split, drawn, to show how its source was read.

    '' for tasks whose puzzles are no small boards.
    """
    metadata, puzzles = split.metadata, next(iter(split.sets.values()))
    task = kind_of(metadata.task)(metadata.seq_len, metadata.vocab_size, metadata.pad_id)
    if not task.is_board or task.side > _LARGEST_DRAWN:
        return ''
    boxes = f' with boxes of {task.boxes[0]} x {task.boxes[1]}' if task.boxes else ''
    left, right = (
        [f'|{" ".join(row)}|' for row in task.cells(side[0])]
        for side in (puzzles.inputs, puzzles.labels)
    )
    width = max(map(len, left))  # an answer of ARC may have more rows than its question
    lines = [
        f'boards of {task.side} x {task.side}{boxes}; the first for training, with its answer:'
    ]
    rows = itertools.zip_longest(left, right, fillvalue='')
    lines += [f'  {q:{width}}   {a}'.rstrip() for q, a in rows]
    return '\n'.join(lines)


def summary(output: pathlib.Path, manifest: dict[str, Any]) -> str:
    """Returns a few lines on what was built: counts, size, time, seed."""
    lines = [f'{manifest["task"]}: {output}']
    for name, counts in manifest['counts'].items():
        listed = ', '.join(f'{value:,} {key}' for key, value in counts.items())
        lines.append(f'  {name:5} {listed}')
    size = sum(manifest['files'].values())
    lines.append(f'  {size / 1e6:,.1f} MB in {manifest["seconds"]:.1f} s, seed {manifest["seed"]}')
    return '\n'.join(lines)


@contextlib.contextmanager
def _bar(total: int, show: bool) -> Iterator[Callable[[int], Any]]:
    if not show:
        yield lambda count: None
        return
    from tqdm import tqdm

    with tqdm(
        total=total, desc='writing groups', leave=False, dynamic_ncols=True, mininterval=0.5
    ) as bar:
        yield bar.update


def _advancing(split: Split, advance: Callable[[int], Any]) -> Iterator[dict[str, np.ndarray]]:
    # ARC: one record per puzzle, so that a reader of single records sees whole puzzles.
    block = 1 if split.metadata.transform == 'arc' else 4096
    for name, puzzles in split.sets.items():
        for encoded in blocks.encode(name, puzzles, split.metadata, block):
            yield encoded
            advance(len(encoded['group_puzzles']) // 4)


def _versions() -> dict[str, str]:
    import tensorflow_datasets as tfds

    return {
        'hrm_jax': _own_version(),
        'python': platform.python_version(),
        'numpy': np.__version__,
        'tensorflow_datasets': tfds.__version__,
    }


def _own_version() -> str:
    try:
        return importlib.metadata.version('hrm_jax')
    except importlib.metadata.PackageNotFoundError:
        return 'not installed'
