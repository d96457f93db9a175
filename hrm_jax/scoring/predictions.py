"""Prediction files: what a model answered, kept for scoring and for looking at.

A folder holds ``<set>-p<process>-<shard>.npz`` files and, once a process has written all of
its rows, ``<set>-p<process>.json`` with their number. Each array has one row per puzzle:

==================  ===========  =====================================================
array               type         content
==================  ===========  =====================================================
predictions         uint [n, S]  answered tokens, of the smallest type that holds them
q_halt, q_continue  f32 [n]      logits of the halting decision at the last step
puzzle_identifiers  int32 [n]    rows of the puzzle table
example             int64 [n]    place of the puzzle in its set (the split's own order)
steps               int32 [n]    ACT steps spent
inputs, labels      int [n, S]   only when asked for; labels hold -100 where not scored
logits              f32 [n,S,V]  only when asked for
==================  ===========  =====================================================

The originals' files (``step_N_all_preds.R``: a torch dict with logits and ``q_halt_logits``)
are read too when the caller brings a reader for them. Everything streams: no file is ever in
memory as a whole.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
import glob
import json
import os
import pathlib
import re
from typing import Any
import zipfile

import numpy as np

from hrm_jax import files
from hrm_jax.errors import PredictionError
from hrm_jax.scoring.prediction_rows import ArrayRows, MemberRows

FIELDS = (
    'predictions', 'q_halt', 'q_continue', 'puzzle_identifiers', 'example', 'steps', 'inputs',
    'labels', 'logits',
)  # fmt: skip
# Names of the same things in other programs' files.
_ALIASES = {
    'q_halt_logits': 'q_halt',
    'q_continue_logits': 'q_continue',
    'preds': 'predictions',
    'pred_ids': 'predictions',
}
_ORIGINAL = re.compile(r'(?P<run>.*step_(?P<step>\d+)|.*?)_all_preds\.(?P<rank>\d+)\Z')
_SHARD = re.compile(r'(?P<set>.+)-p(?P<process>\d+)-(?P<shard>\d+)\.npz\Z')
_FORMAT = 1
_MOST_PROCESSES = 100_000


def smallest_dtype(high: int, low: int = 0) -> np.dtype:
    """Returns the smallest integer type that holds ``low``..``high``."""
    return np.promote_types(np.min_scalar_type(high), np.min_scalar_type(low))


class Writer:
    """Writes the rows of one process in shards that appear whole or not at all.

    Use as a context manager; the closing record is written only when no error came.

    Args:
      folder: made when missing; shards of the same set and process are replaced.
      set_name: set of the data split.
      metadata: JSON-able facts about the run and the data, repeated in the closing record.
      process_index, process_count: this process among those that write.
      rows_per_shard: rows of a file.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        set_name: str,
        metadata: Mapping[str, Any],
        process_index: int = 0,
        process_count: int = 1,
        rows_per_shard: int = 16384,
    ):
        self._folder = pathlib.Path(folder)
        self._stem = f'{set_name}-p{process_index:03d}'
        self._metadata = dict(metadata)
        self._process_count = process_count
        self._rows_per_shard = rows_per_shard
        self._parts: list[dict[str, np.ndarray]] = []
        self._pending = 0
        self._shards: list[int] = []

    def __enter__(self) -> 'Writer':
        self._folder.mkdir(parents=True, exist_ok=True)
        # Without its closing record a folder counts as incomplete from here on.
        (self._folder / f'{self._stem}.json').unlink(missing_ok=True)
        for path in self._folder.glob(f'{glob.escape(self._stem)}-*.npz'):
            path.unlink()
        return self

    def add(self, **arrays: np.ndarray) -> None:
        """Appends rows; every call brings the same fields, one row per puzzle."""
        unknown = sorted(set(arrays) - set(FIELDS))
        counts = {len(values) for values in arrays.values()}
        if unknown or len(counts) != 1:
            raise PredictionError(
                f'prediction rows must be arrays of one length named {", ".join(FIELDS)}; got '
                f'{sorted(arrays)} of lengths {sorted(counts)}.'
            )
        # Copies, so that a small slice does not keep a whole batch alive.
        self._parts.append({name: np.array(values) for name, values in arrays.items()})
        self._pending += counts.pop()
        while self._pending >= self._rows_per_shard:
            self._write(self._rows_per_shard)

    def __exit__(self, kind, error, trace) -> None:
        if kind is not None:
            return
        if self._pending:
            self._write(self._pending)
        record = {
            'format': _FORMAT,
            'rows': self._shards,
            'process_count': self._process_count,
            'metadata': self._metadata,
        }
        path = self._folder / f'{self._stem}.json'
        files.write_text(path, json.dumps(record, indent=2))

    def _write(self, rows: int) -> None:
        joined: dict[str, Any] = {
            name: np.concatenate([part[name] for part in self._parts])
            for name in (self._parts[0] if self._parts else {})
        }
        path = self._folder / f'{self._stem}-{len(self._shards):05d}.npz'
        with files.replacing(path) as beside, open(beside, 'wb') as file:
            np.savez(file, **{name: values[:rows] for name, values in joined.items()})
        self._parts = [{name: values[rows:] for name, values in joined.items()}]
        self._pending -= rows
        self._shards.append(rows)


class PredictionFile:
    """One file of predictions, read in chunks.

    Attributes:
      path: its location.
      set_name: set of the data split, '' in other programs' files.
      rows: number of puzzles.
      fields: names of the arrays in it, in this project's words.
    """

    def __init__(self, path: pathlib.Path, arrays: Mapping[str, Any]):
        self.path = path
        match = _SHARD.match(path.name)
        self.set_name = match['set'] if match else ''
        self._arrays = {_ALIASES.get(name, name): rows for name, rows in arrays.items()}
        self.fields = tuple(self._arrays)
        counts = {len(rows) for rows in self._arrays.values()}
        if len(counts) > 1:
            raise PredictionError(f'{path}: all arrays must have one length; got {counts}.')
        self.rows = counts.pop() if counts else 0

    def require(self, *names: str) -> None:
        """Raises PredictionError unless every field is there (logits serve for predictions)."""
        missing = [n for n in names if n not in self.fields and not self._derivable(n)]
        if missing:
            raise PredictionError(
                f'{self.path} must hold {", ".join(names)}; it lacks {", ".join(missing)} and '
                f'has {", ".join(self.fields) or "nothing"}. Name what is missing in '
                f'eval.save_outputs and evaluate again.'
            )

    def chunks(self, *names: str, rows: int = 4096) -> Iterator[dict[str, np.ndarray]]:
        """Yields the named fields, up to ``rows`` puzzles at a time."""
        self.require(*names)
        sources = {n: n if n in self.fields else 'logits' for n in names}
        if 'logits' in sources.values():
            rows = min(rows, 512)
        readers = {n: self._arrays[n].read(rows) for n in set(sources.values())}
        for _ in range(0, self.rows, rows):
            read = {name: next(reader) for name, reader in readers.items()}
            yield {
                name: read[source].argmax(-1) if name != source else read[source]
                for name, source in sources.items()
            }

    def _derivable(self, name: str) -> bool:
        return name == 'predictions' and 'logits' in self.fields


def find(
    paths: Iterable[str | os.PathLike],
    read_torch: Callable[[str], Mapping[str, np.ndarray]] | None = None,
    step: int | None = None,
    all_steps: bool = False,
) -> list[PredictionFile]:
    """Opens prediction files, those of a folder in order of set, process and shard.

    Args:
      paths: folders or files.
      read_torch: reads a file of an original as arrays (memory mapped ones stay on disk).
      step: of an original's folder with several evaluations, the one to take; None: the last.
      all_steps: takes all of them, as the original's own tool does.

    Raises:
      PredictionError: nothing is there, a process has not finished, or a file is damaged.
    """
    files: list[pathlib.Path] = []
    for given in paths:
        path = pathlib.Path(given).expanduser()
        if path.is_dir():
            files += _in_folder(path, step, all_steps)
        elif path.exists():
            files.append(path)
        else:
            raise PredictionError(f'{path} must be a prediction file or folder; it is missing.')
    return [_open(path, read_torch) for path in files]


def folder_metadata(folder: str | os.PathLike) -> dict[str, Any]:
    """Returns the facts that a folder's closing records state; {} for other programs' files."""
    for path in sorted(_evaluation(pathlib.Path(folder)).glob('*-p*.json')):
        if not files.visible(path):
            continue
        facts = files.read_json(path, PredictionError, dict).get('metadata', {})
        PredictionError.require(
            isinstance(facts, dict)
            and all(isinstance(facts.get(key, ''), str) for key in ('data', 'split', 'task')),
            f'{path}: metadata must be an object whose data, split and task are texts; got '
            f'{files.shown(facts)}. Evaluate again.',
        )
        return facts
    return {}


def _evaluation(folder: pathlib.Path) -> pathlib.Path:
    """The folder itself, or the only evaluation within (``<workdir>/predictions/step_N_test``)."""
    within = _evaluations(folder)
    return within[0] if len(within) == 1 and not any(folder.glob('*-p*.npz')) else folder


def _evaluations(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted({path.parent for path in folder.glob('*/*-p*.npz')})


def _in_folder(folder: pathlib.Path, step: int | None, all_steps: bool) -> list[pathlib.Path]:
    folder = _evaluation(folder)
    shards = sorted(path for path in folder.glob('*.npz') if files.visible(path))
    own = [path for path in shards if _SHARD.match(path.name)]
    if own:
        _check_complete(folder, own)
        return own
    found: dict[int, list[tuple[int, pathlib.Path]]] = {}
    for path in filter(files.visible, folder.iterdir()):
        match = _ORIGINAL.match(path.name)
        if match:
            key = int(match['step'] or 0)
            found.setdefault(key, []).append((int(match['rank']), path))
    if not found:
        if shards:
            return shards
        if names := ', '.join(map(str, _evaluations(folder))):
            raise PredictionError(f'{folder} has several evaluations; name one: {names}.')
        raise PredictionError(
            f"{folder} must hold predictions (SET-pNNN-NNNNN.npz, or an original's "
            f'step_N_all_preds.R); it has none. Evaluate with eval.save_outputs.'
        )
    if step is not None and step not in found:
        raise PredictionError(f'{folder} has steps {sorted(found)}, not {step}.')
    steps = sorted(found) if all_steps else [max(found) if step is None else step]
    return [path for key in steps for _, path in sorted(found[key])]


def _check_complete(folder: pathlib.Path, shards: list[pathlib.Path]) -> None:
    names = {path.name for path in shards}
    for set_name in sorted({match['set'] for name in names if (match := _SHARD.match(name))}):
        records = {}
        for path in folder.glob(f'{glob.escape(set_name)}-p*.json'):
            records[path.stem] = record = files.read_json(path, PredictionError, dict)
            PredictionError.require(
                type(record.get('process_count')) is int
                and 0 < record['process_count'] <= _MOST_PROCESSES
                and isinstance(record.get('rows'), list),
                f'{path} must have process_count, a whole number in 1..{_MOST_PROCESSES:,}, and '
                f'rows, a list. Evaluate again.',
            )
        count = max((r['process_count'] for r in records.values()), default=1)
        wanted = [f'{set_name}-p{index:03d}' for index in range(count)]
        missing = [stem for stem in wanted if stem not in records]
        missing += [
            f'{stem}-{shard:05d}.npz'
            for stem, record in records.items()
            for shard in range(len(record['rows']))
            if f'{stem}-{shard:05d}.npz' not in names
        ]
        if missing:
            raise PredictionError(
                f'{folder} must hold the predictions of all {count} processes; '
                f'{", ".join(missing[:5])} did not finish or is missing. Evaluate again.'
            )


def _open(path: pathlib.Path, read_torch) -> PredictionFile:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise PredictionError(f'{path} must be an .npz or torch file; {error}.') from error
    if any(name.endswith('data.pkl') for name in members):
        if read_torch is None:
            raise PredictionError(f'{path} is a torch file; no reader for it was given.')
        return PredictionFile(path, {n: ArrayRows(a) for n, a in read_torch(str(path)).items()})
    names = [name for name in members if name.endswith('.npy')]
    if not names:
        raise PredictionError(f'{path} must hold arrays; it holds {members[:5]}.')
    return PredictionFile(path, {n.removesuffix('.npy'): MemberRows(path, n) for n in names})
