"""Shows a data set, predictions, or a model's reasoning.

PATH is a built data set, a folder or file of predictions, or a run or checkpoint, whose reasoning
on test puzzles is shown. The output ends in .html (one page that needs no server); .png draws the
first boards of a data set or the steps of a run on one puzzle, .gif moves the latter, and --curve
draws a run's learning curve as .png.
"""

import argparse
from collections.abc import Sequence
import functools
import pathlib
import sys

from hrm_jax import files
from hrm_jax.cli import common
from hrm_jax.errors import CheckpointError, UsageError


def parser() -> argparse.ArgumentParser:
    """Returns the flags of ``hrm-jax view``."""
    parser = common.parser('view', __doc__)
    parser.add_argument(
        'path', type=common.path, nargs='?', help='data set, predictions, run or checkpoint'
    )
    parser.add_argument('--workdir', type=common.path, help='the same: folder of a run')
    parser.add_argument(
        '-o', '--output', type=common.path, default='page.html', help='file to write'
    )
    parser.add_argument('--split', default='test', help='of the data set')
    parser.add_argument('--data', type=common.path, help='data set of predictions or of a run')
    parser.add_argument(
        '--identifiers', choices=['own', 'blank'], default='own',
        help='blank: the puzzles of --data are others than those of the training set',
    )  # fmt: skip
    common.add_model_flags(parser)
    parser.add_argument('--count', type=int, default=16, help='puzzles of a run')
    parser.add_argument('--row', type=int, help='puzzle of a .png or .gif (default: a telling one)')
    parser.add_argument('--curve', action='store_true', help="draw a run's learning curve")
    parser.add_argument('--steps', type=int, default=0, help='ACT steps; 0: as trained')
    return parser


def _require_ending(flags: argparse.Namespace, what: str, *endings: str) -> str:
    """Returns the ending of the output, one of those that there are for what is shown."""
    ending = pathlib.Path(flags.output).suffix.lower()
    UsageError.require(
        ending in endings,
        f'{what} must be shown as {" or ".join(endings)}; got --output {flags.output}.',
    )
    return ending


def _show_dataset(flags: argparse.Namespace, root: pathlib.Path) -> None:
    import numpy as np

    from hrm_jax.data import puzzles, records
    from hrm_jax.visualize import page

    ending = _require_ending(flags, 'a data set', '.html', '.png')
    dataset = records.load(root, flags.split)
    if ending == '.png':
        from hrm_jax.visualize import figures

        one = next(iter(dataset.sets.values()))
        chosen = np.arange(min(6, one.num_examples))
        inputs, labels = puzzles.stored_examples(one, dataset.metadata, chosen)
        figure = figures.draw_puzzles(inputs, labels, dataset.metadata.task_of(), title=root.name)
        figures.save(figure, flags.output)
        return
    path = root / 'identifiers.json'
    # HRM-Lisp keeps its tokens there.
    names = files.read_json(path) if path.is_file() and dataset.metadata.task != 'lisp' else []
    title = f'{root.name}, {flags.split}'
    page.write_dataset(flags.output, dataset, title, identifiers=names)


def _show_predictions(flags: argparse.Namespace, path: pathlib.Path) -> None:
    from hrm_jax.data import records
    from hrm_jax.interop import torch_reader
    from hrm_jax.scoring import examples, predictions
    from hrm_jax.visualize import page

    _require_ending(flags, 'predictions', '.html')
    found = predictions.find([path], torch_reader.read_torch)
    facts = predictions.folder_metadata(path) if path.is_dir() else {}
    data = flags.data or facts.get('data', '')
    dataset = records.load(data, facts.get('split', flags.split)) if data else None
    wanted = ['predictions', *(n for n in ('q_halt', 'steps', 'example') if n in found[0].fields)]
    for name in ('inputs', 'labels'):
        if name in found[0].fields or (dataset is not None and 'example' in found[0].fields):
            wanted.append(name)
    chunks = (c for file in found for c in examples.chunks(file, *wanted, dataset=dataset))
    task = dataset.metadata.task_of() if dataset is not None else facts.get('task', '')
    page.write_predictions(flags.output, chunks, task, path.name)


def _show_run(flags: argparse.Namespace, path: pathlib.Path) -> None:
    import numpy as np

    from hrm_jax.checkpoint import compatible
    from hrm_jax.data import puzzles, records
    from hrm_jax.inference.solver import Solver
    from hrm_jax.run import backend, writers
    from hrm_jax.visualize import animation, figures, page, trace

    backend.enable_compilation_cache()

    if flags.curve:
        _require_ending(flags, 'a learning curve', '.png')
        records_of_run = writers.read_records(path / 'metrics.jsonl')
        figure = figures.draw_learning_curve(records_of_run, title=path.name)
        figures.save(figure, flags.output)
        return
    suffix = _require_ending(flags, "a run's reasoning", '.html', '.png', '.gif')
    solver = Solver.from_checkpoint(
        path, flags.data or '', task=flags.task, config=flags.config or '', seq_len=flags.seq_len
    )
    data = flags.data or solver.config.data.path
    dataset = records.load(data, flags.split)
    own = compatible.check_data(
        solver.config.model, solver.meta, dataset, path, blank=flags.identifiers == 'blank',
        split=flags.split, log=functools.partial(print, file=sys.stderr),
    )  # fmt: skip
    solver = solver.for_data(dataset)
    one = next(iter(dataset.sets.values()))
    chosen = np.arange(min(flags.count, one.num_examples))
    inputs, labels = puzzles.stored_examples(one, dataset.metadata, chosen)
    labels = np.where(labels == dataset.metadata.ignore_label_id, -100, labels.astype(np.int32))
    ids = one.puzzle_identifiers[one.owners(chosen)[0]] * own
    seen = trace.trace(solver.config, solver.weights, inputs, labels, ids, flags.steps)
    if suffix in ('.png', '.gif'):
        row = trace.most_instructive(seen) if flags.row is None else flags.row
        task = solver.task
        if suffix == '.gif':
            animation.save_gif(seen, row, task, flags.output)
        else:
            figures.save(figures.draw_reasoning(seen, row, task), flags.output)
        return
    page.write_trace(flags.output, seen, solver.task, f'{path.name}, {flags.split}')


def _is_checkpoint(path: pathlib.Path) -> bool:
    """Whether a path is a run or a checkpoint of any format, rather than predictions."""
    from hrm_jax.interop import formats

    if path.suffix == '.npz' or 'all_preds' in path.name:
        return False
    try:
        formats.find(path)
    except (CheckpointError, OSError):
        return False
    return True


def view(flags: argparse.Namespace) -> None:
    """Shows what the flags name and prints the file that was written."""
    if (flags.path is None) == (flags.workdir is None):
        raise UsageError('give PATH, or the folder of a run with --workdir')
    path = pathlib.Path(flags.path or flags.workdir)
    if any((path / split).is_dir() for split in ('train', 'test')):
        _show_dataset(flags, path)
        print(f'wrote {flags.output}')
        return
    if _is_checkpoint(path):
        _show_run(flags, path)
    else:
        _show_predictions(flags, path)
    print(f'wrote {flags.output}')


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command and exits."""
    flags = parser().parse_args(common.hyphenated(sys.argv[1:] if argv is None else argv))
    common.quiet_orbax()
    common.run(lambda: view(flags))
