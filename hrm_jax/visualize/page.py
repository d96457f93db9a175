"""One self-contained HTML page: no server, nothing from the network.

The page holds its data as zlib-compressed arrays and draws what is looked at. Augmented
puzzles are made in the page from the stored puzzle and its map, so a data set of 876,000
augmentations is a page of some megabytes. Names from data reach the page as JSON and become
text nodes, never markup.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
import html
import json
import os
import pathlib
from typing import Any
import zlib

import numpy as np

from hrm_jax import files
from hrm_jax.data.puzzles import PuzzleDataset, PuzzleSet
from hrm_jax.errors import PredictionError
from hrm_jax.tasks import CELL_COLOURS, TASKS, Task
from hrm_jax.visualize import document
from hrm_jax.visualize.trace import Trace, most_instructive

_SCRIPTS = ('boards.js', 'arrays.js', 'page.js')
# A page is read as a whole by the browser; more than this makes it slow.
MAX_BYTES = 96 << 20
_MAX_SIDE = 25  # of boards with boxes

_BODY = """<header>
<h1 id="title">{title}</h1>
<span class="facts" id="about"></span><span class="error" id="error"></span>
<label>open an original's folder
<input type="file" id="pick-folder" webkitdirectory multiple></label>
<label>open predictions (.npz)<input type="file" id="pick-file" accept=".npz"></label>
</header>
<main>
<nav><div class="tools">
<input type="text" id="filter" placeholder="find by name" aria-label="find by name">
<label class="wrong-only"><input type="checkbox" id="wrong-only"> show wrong only</label>
<div id="group-pager"></div></div><ul id="groups"></ul></nav>
<section id="cards"></section>
</main>"""


def write(
    path: str | os.PathLike, kind: str, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]
) -> pathlib.Path:
    """Writes a page; it appears whole or not at all.

    Args:
      path: of the HTML file.
      kind: 'dataset', 'predictions', 'trace', 'arc_task' or 'arc_tasks': how static/page.js reads
        the arrays and facts.
      arrays: by name.
      facts: JSON-able: title, look of the task, ...
    """
    facts = dict(facts) | {
        'kind': kind,
        'arrays': sorted(arrays),
        'tasks': _tasks(),
        'colours': CELL_COLOURS,
    }
    title = facts.get('title', 'hrm_jax')
    text = document.make(
        title,
        _BODY.format(title=html.escape(title)),
        facts,
        'page.css',
        _SCRIPTS,
        data='\n'.join(_embed(name, arrays[name]) for name in sorted(arrays)),
        images=True,
    )
    files.write_text(path, text)
    return pathlib.Path(path)


def look_of(task: Task) -> dict[str, Any]:
    """What boards.js needs to know of a task: texts and colours of tokens, shape, boxes."""
    rows, columns = task.drawn_shape
    return {
        'name': task.name,
        'symbols': [task.symbol(token) for token in range(task.vocab_size)]
        if task.symbols or task.vocabulary
        else [],
        'colours': task.colours,
        'blank': task.blank,
        'boxes': {task.side: task.boxes} if task.boxes else {},
        'shape': [rows, columns],
        'pad': task.pad_id,
        'crops': not task.symbols,
        'ends': [getattr(task, 'START', -1), getattr(task, 'END', -1)],
    }


def _tasks() -> dict[str, dict[str, Any]]:
    """The looks of all tasks, for files that are opened in the page and state no more."""
    looks = {}
    for name, kind in TASKS.items():
        look = look_of(kind(4, 6))
        look['symbols'], look['shape'] = list(kind.symbols), None
        look['boxes'] = {s: kind(s * s, s + 2).boxes for s in range(2, _MAX_SIDE + 1)}
        looks[name] = look
    return looks


def _embed(name: str, array: np.ndarray) -> str:
    array = np.asarray(array)
    if array.dtype == np.int64:
        array = array.astype(np.int32)
    elif array.dtype in (np.float64, np.float16):
        array = array.astype(np.float32)
    array = np.ascontiguousarray(array)
    packed = base64.b64encode(zlib.compress(array.tobytes(), 6)).decode()
    kind = array.dtype.str[1:]
    return (
        f'<script type="application/octet-stream" id="array-{name}" data-type="{kind}" '
        f'data-shape="{json.dumps(list(array.shape))}">{packed}</script>'
    )


def write_dataset(
    path: str | os.PathLike,
    dataset: PuzzleDataset,
    title: str = '',
    set_name: str = '',
    identifiers: Iterable[str] = (),
    max_bytes: int = MAX_BYTES,
) -> pathlib.Path:
    """Writes a page of a split: its first groups as far as ``max_bytes`` of arrays go.

    Args:
      path: of the HTML file.
      dataset: the split.
      title: of the page.
      set_name: set to show; '': the first.
      identifiers: name of every puzzle identifier (folders of the originals).
      max_bytes: of the arrays before compression.
    """
    name = set_name or dataset.metadata.sets[0]
    full = dataset.sets[name]
    shown, groups = _first_groups(full, max_bytes)
    note = ''
    if groups < full.num_groups:
        note = f'This page shows the first {groups} of {full.num_groups} groups.'
    identifiers = list(identifiers)
    starts = full.puzzle_identifiers[full.group_indices[:groups]]
    names = list(full.names[:groups]) or [identifiers[i] for i in starts if i < len(identifiers)]
    if len(set(names)) < len(names):
        names = []  # one identifier for all: no information
    metadata = dataset.metadata
    facts = {
        'title': title or f'{dataset.path or "data set"}, {name}',
        'look': look_of(metadata.task_of()),
        'transform': metadata.transform if full.maps is not None else 'none',
        'names': names,
        'note': note,
    }
    return write(path, 'dataset', shown, facts)


def _first_groups(full: PuzzleSet, max_bytes: int) -> tuple[dict[str, np.ndarray], int]:
    """Arrays of as many groups as fit (one at least), and their number."""
    ends = full.puzzle_first + np.diff(full.puzzle_indices)
    stored = np.maximum.accumulate(ends)[full.group_indices[1:] - 1]
    maps = 0 if full.maps is None else full.maps.shape[1]
    cost = stored * 2 * full.inputs.shape[1] * full.inputs.itemsize
    cost = cost + full.group_indices[1:] * (maps + 12)
    groups = max(1, int(np.searchsorted(cost, max_bytes, side='right')))
    puzzles, examples = int(full.group_indices[groups]), int(stored[groups - 1])
    arrays = {
        'inputs': full.inputs[:examples],
        'labels': full.labels[:examples],
        'group_indices': full.group_indices[: groups + 1],
        'puzzle_indices': full.puzzle_indices[: puzzles + 1],
        'puzzle_first': full.puzzle_first[:puzzles],
        'puzzle_identifiers': full.puzzle_identifiers[:puzzles],
    }
    if full.maps is not None:
        arrays['maps'] = full.maps[:puzzles]
    if full.extents is not None:
        arrays['extents'] = full.extents[:examples]
    return arrays, groups


def write_predictions(
    path: str | os.PathLike,
    chunks: Iterable[Mapping[str, np.ndarray]],
    task: Task | str,
    title: str,
    vocabulary: Iterable[str] = (),
    max_rows: int = 10_000,
) -> pathlib.Path:
    """Writes a page of predictions beside their labels.

    Args:
      path: of the HTML file.
      chunks: rows with ``predictions`` and what else there is of inputs, labels, q_halt,
        steps, example.
      task: how boards are drawn; a name, where no more is known.
      title: of the page.
      vocabulary: text of every token, where the task is a name.
      max_rows: the page holds the first ones.
    """
    parts, rows, cut = [], 0, False
    for chunk in chunks:
        parts.append({name: values[: max_rows - rows] for name, values in chunk.items()})
        rows += len(parts[-1]['predictions'])
        cut = rows == max_rows
        if cut:
            break
    if not rows:
        raise PredictionError('there must be at least one prediction to show.')
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    note = f'This page shows the first {rows:,} predictions.' if cut else ''
    if isinstance(task, str):
        facts = {'title': title, 'task': task, 'vocabulary': list(vocabulary), 'note': note}
        return write(path, 'predictions', arrays, facts)
    if 'labels' not in arrays and 'inputs' in arrays:
        arrays['predictions'] = _finished(task, arrays['inputs'], arrays['predictions'])
    facts = {'title': title, 'look': look_of(task), 'note': note}
    return write(path, 'predictions', arrays, facts)


def _finished(task: Task, inputs_NS: np.ndarray, answers_NS: np.ndarray) -> np.ndarray:
    """Answers without what a model writes after their end."""
    pairs = zip(inputs_NS, answers_NS, strict=True)
    return np.stack([task.finished(question, answer) for question, answer in pairs])


def write_trace(path: str | os.PathLike, seen: Trace, task: Task, title: str = '') -> pathlib.Path:
    """Writes a page that plays the reasoning step by step; it opens at a telling puzzle."""
    predictions = np.array(seen.predictions)
    unknown = np.flatnonzero((seen.labels < 0).all(-1))
    if len(unknown):
        for step in predictions:
            step[unknown] = _finished(task, seen.inputs[unknown], step[unknown])
    arrays = {'inputs': seen.inputs, 'labels': seen.labels, 'predictions': predictions}
    if seen.has_q:
        arrays['q_halt'] = seen.q_halt
    if seen.confidence is not None:
        arrays['confidence'] = seen.confidence
    facts = {
        'title': title or 'Reasoning, step by step',
        'look': look_of(task),
        'first': most_instructive(seen),
        'has_q': seen.has_q,
    }
    return write(path, 'trace', arrays, facts)


def write_arc_task(
    path: str | os.PathLike,
    name: str,
    pairs: Sequence[Sequence[tuple[str, Any]]],
    tests: Sequence[Sequence[tuple[str, Any]]],
) -> pathlib.Path:
    """Writes a page of one ARC task: (caption, rows of colours) for every board.

    Args:
      path: of the HTML file.
      name: of the task.
      pairs: boards of each demonstration.
      tests: boards of each test: question, attempts, and the solution if it is known.
    """
    facts = {'title': name, 'pairs': pairs, 'tests': tests}
    return write(path, 'arc_task', {}, facts)
