"""Answers puzzles with a trained model.

  hrm-jax solve 53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79
  hrm-jax solve --checkpoint RUN .14.3.1..2..43..
  hrm-jax solve --checkpoint RUN - < puzzles.txt > answers.txt
  hrm-jax solve --checkpoint RUN --arc task.json -o task.html
  hrm-jax solve --checkpoint RUN --random 100 --rollouts 16 --depth 64 --noise 0.3 --select rules

PUZZLE is a puzzle, a file of puzzles (an ARC task where it ends in .json), or - for standard input.
Files hold one puzzle a line, or boards separated by empty lines; frames, commas, comment lines
(# ; //) and byte order marks are left out. Grids are written in lines or with / between the rows.
How each task is written: hrm_jax/tasks.

A file or standard input gives one line for each of its lines: answer, confidence, ACT steps and
status (valid, invalid, unsolved, ?), separated by tabs. A line that cannot be read has its error as
status, and the exit code is then 1. OUTPUT may end in .html, .png, .gif, .json, .jsonl, .tsv or
.txt.
"""

import argparse
from collections.abc import Sequence
import contextlib
import dataclasses
import io
import pathlib
import re
import sys
import time
import typing
from typing import TYPE_CHECKING, Any

from hrm_jax import files
from hrm_jax.cli import common, solutions
from hrm_jax.cli.solutions import Entry
from hrm_jax.config.rollouts import Selection, Views
from hrm_jax.errors import PuzzleError, UsageError

if TYPE_CHECKING:  # numpy and JAX are imported when a puzzle is answered, not for --help
    from hrm_jax.inference.solver import Solver

FORMS = ('text', 'html', 'png', 'gif', 'json')
_ENDINGS = {
    '.html': 'html', '.htm': 'html', '.png': 'png', '.gif': 'gif', '.json': 'json',
    '.jsonl': 'json', '.tsv': 'text', '.txt': 'text',
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Returns the flags of ``hrm-jax solve``."""
    parser = common.parser('solve', __doc__)
    parser.add_argument('puzzles', nargs='*', metavar='PUZZLE', help='puzzle, file, or -')
    parser.add_argument(
        '--checkpoint', '--workdir', type=common.path,
        help='folder of a run, a checkpoint of any format, or the name of an installed model '
        '(default: sudoku9, which solves 9x9 Sudokus)',
    )  # fmt: skip
    parser.add_argument('--puzzle', action='append', default=[], help='a puzzle, never a file')
    parser.add_argument('--file', type=common.path, help='file with one puzzle per line')
    parser.add_argument('--board', type=common.path, help='file with one board, a line per row')
    parser.add_argument(
        '--arc', type=common.path,
        help='JSON file of an ARC task; FILE:NAME: one of a file of several',
    )  # fmt: skip
    parser.add_argument(
        '--random', nargs='?', type=int, const=1, metavar='N', help='N puzzles of the test set'
    )
    parser.add_argument('--data', type=common.path, help='data set (default: the one trained on)')
    parser.add_argument(
        '--identifiers', choices=['own', 'blank'], default='own',
        help='blank: also where the puzzles of --data are known to the model, take no embedding',
    )  # fmt: skip
    common.add_model_flags(parser)
    parser.add_argument(
        '--side', type=int, default=0,
        help='rows of the boards, where the weights serve every size; 0: as trained',
    )  # fmt: skip
    parser.add_argument(
        '--steps', '--depth', type=int, default=0, help='most ACT steps; 0: as trained'
    )
    parser.add_argument('--samples', type=int, default=1, help='symmetric views that vote')
    parser.add_argument(
        '--retries', type=int, metavar='N', help='chains of each puzzle whose answer breaks '
        'the rules, in rounds of eight (default: 64 with an installed model, otherwise 0)',
    )  # fmt: skip
    parser.add_argument('--seed', type=int, default=0, help='seed of all that is drawn')
    _add_rollout_flags(parser)
    parser.add_argument(
        '--all-steps', action='store_true',
        help='never stop early, by the halting rule or those of the task: all run all steps',
    )  # fmt: skip
    parser.add_argument(
        '--show', choices=FORMS, help='form of the answers (default: by the ending of OUTPUT)'
    )
    parser.add_argument(
        '--output', '-o', type=common.path, help='file to write (html, png, gif: solution.*)'
    )
    parser.add_argument('--header', action='store_true', help='name the columns in a first line')
    return parser


def _add_rollout_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        'rollouts', 'several runs of each puzzle, one of which gives the answer; what is not given '
        'is as in eval of the checkpoint',
    )  # fmt: skip
    group.add_argument('--rollouts', type=int, metavar='N', help='runs of each puzzle')
    group.add_argument(
        '--select', choices=typing.get_args(Selection), help='which run gives the answer'
    )
    group.add_argument('--window', type=int, metavar='N', help='--select residual: steps compared')
    group.add_argument(
        '--views', choices=typing.get_args(Views), help='symmetric puzzles that the runs answer'
    )
    group.add_argument(
        '--random-start', action='store_true', help='each run starts from a random state'
    )
    group.add_argument(
        '--noise', type=float, metavar='STD', help='noise on the high state before every ACT step'
    )
    group.add_argument(
        '--halt-together', action='store_true', help='stop all runs of a puzzle with the first one'
    )
    group.add_argument(
        '--also', type=common.path, action='append', default=[], metavar='CHECKPOINT',
        help='another checkpoint of the model whose runs take part',
    )  # fmt: skip


def _with_rollouts(flags: argparse.Namespace, solver: 'Solver') -> 'Solver':
    """The solver with the settings that the flags name."""
    given = {
        'breadth': flags.rollouts, 'select': flags.select, 'views': flags.views,
        'window': flags.window, 'halt_together': flags.halt_together or None,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    section = solver.config.eval
    changes: dict[str, Any] = {'rollouts': dataclasses.replace(section.rollouts, **given)}
    if flags.random_start:
        changes['random_start'] = True
    if flags.noise is not None:
        if flags.noise < 0:
            raise UsageError(f'--noise must not be negative; got {flags.noise}.')
        changes['high_step_noise'] = flags.noise
    for path in flags.also:
        solver.add_checkpoint(path)
    halting = 'max' if flags.all_steps else 'adaptive'
    return solver.with_eval(halting=halting, depth_multiples=(), save_outputs=(), **changes)


def _form(flags: argparse.Namespace) -> str:
    """The form of the answers, by --show or the file's ending."""
    ending = pathlib.Path(flags.output).suffix.lower() if flags.output else ''
    if flags.show is None and ending and ending not in _ENDINGS:
        raise UsageError(
            f'--output must end in {", ".join(_ENDINGS)}; got {flags.output}. Or give --show.'
        )
    return flags.show or _ENDINGS.get(ending, 'text')


def _check_sources(flags: argparse.Namespace, fail) -> None:
    given = {
        'PUZZLE': flags.puzzles, '--puzzle': flags.puzzle, '--file': flags.file,
        '--board': flags.board, '--arc': flags.arc, '--random': flags.random is not None,
    }  # fmt: skip
    names = [name for name, value in given.items() if value]
    if not names:
        fail(f'give puzzles by one of {", ".join(given)}')
    if len(names) > 1:
        fail(f'{names[0]} and {names[1]} cannot be given together')
    if flags.random is not None and flags.random < 1:
        fail(f'--random must be 1 or more; got {flags.random}')
    if flags.random is not None and flags.side:
        fail('--random takes the boards of --data, in their size: leave out --side')
    if len(flags.puzzles) == 1 and flags.puzzles[0] != '-':
        path = pathlib.Path(flags.puzzles[0])
        with contextlib.suppress(OSError, ValueError):  # a puzzle may be no possible name
            if path.is_file():
                name = 'arc' if path.suffix == '.json' else 'file'
                setattr(flags, name, str(path))
                flags.puzzles = []


def _entries(flags: argparse.Namespace, solver: 'Solver') -> tuple[list[Entry], bool]:
    """Returns what was given, and whether it came as lines."""
    if flags.board:
        texts = [files.read_text(flags.board, PuzzleError)]
    elif flags.file:
        return _lines(solver, files.read_text(flags.file, PuzzleError)), True
    elif '-' in flags.puzzles:
        return _lines(solver, _standard_input()), True
    else:
        given = [(text, _read(solver, text)) for text in flags.puzzles]
        entries = [_or_no_file(text, entry) for text, entry in given]
        return [*entries, *(_read(solver, text) for text in flags.puzzle)], False
    return [_read(solver, text) for text in texts], False


def _or_no_file(text: str, entry: Entry) -> Entry:
    """Adds to the error of a puzzle that looks like the name of a file that there is none."""
    if entry.error and re.fullmatch(r'[^\n]*\w\.(txt|csv|tsv|json|jsonl)', text):
        return Entry(text, error=f'there is no file {text}, and as a puzzle: {entry.error}')
    return entry


def _standard_input() -> str:
    if isinstance(sys.stdin, io.TextIOWrapper):  # whatever the locale is
        sys.stdin.reconfigure(encoding='utf-8')
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise PuzzleError(f'standard input must be text in UTF-8; {error}.') from None


def _read(solver: 'Solver', text: str) -> Entry:
    try:
        return Entry(text, solver.task.parse(text))
    except PuzzleError as error:
        return Entry(text, error=str(error))


def _lines(solver: 'Solver', text: str) -> list[Entry]:
    """Reads one puzzle per line; boards over several lines where no line is a puzzle."""
    from hrm_jax.tasks import puzzle_text

    written = solver.task.written
    entries = []
    for line in text.removeprefix(puzzle_text.BYTE_ORDER_MARK).splitlines():
        is_puzzle = line.strip() and not puzzle_text.is_comment(line, written)
        entries.append(_read(solver, line) if is_puzzle else Entry(line))
    if any(entry.tokens is not None for entry in entries):
        return entries
    boards = [_read(solver, board) for board in puzzle_text.blocks(text, written)]
    return boards if any(board.tokens is not None for board in boards) else entries


def _from_test_set(flags: argparse.Namespace, solver: 'Solver') -> tuple[list[Entry], 'Solver']:
    """Puzzles of the test set, and the solver for boards of their size."""
    import numpy as np

    from hrm_jax.checkpoint import compatible
    from hrm_jax.data import puzzles, records
    from hrm_jax.types import IGNORE_LABEL_ID

    dataset = records.load(flags.data or solver.config.data.path, 'test')
    blank = flags.identifiers == 'blank'
    own = compatible.check_data(
        solver.config.model, solver.meta, dataset, flags.checkpoint, blank=blank, log=_note
    )
    one = next(iter(dataset.sets.values()))
    rng = np.random.default_rng(flags.seed)
    chosen = rng.integers(one.num_examples, size=flags.random)
    questions, labels = puzzles.stored_examples(one, dataset.metadata, chosen)
    ignored = labels == dataset.metadata.ignore_label_id
    labels = np.where(ignored, IGNORE_LABEL_ID, labels.astype(np.int32))
    ids = one.puzzle_identifiers[one.owners(chosen)[0]] * own
    solver = solver.for_data(dataset)
    return [
        Entry(solver.task.text(question), question.astype(np.int32), '', known, int(number))
        for question, known, number in zip(questions, labels, ids, strict=True)
    ], solver


def _answer(flags: argparse.Namespace, solver: 'Solver', entries: list[Entry]) -> None:
    """Fills in the solutions."""
    from hrm_jax.inference import rollouts
    from hrm_jax.run.progress import Progress

    asked = [entry for entry in entries if entry.tokens is not None]
    options = {'steps': flags.steps, 'samples': flags.samples, 'seed': flags.seed,
               'early_exit': not flags.all_steps, 'retries': flags.retries,
               'identifiers': [entry.identifier for entry in asked]}  # fmt: skip
    puzzles = [entry.tokens for entry in asked if entry.tokens is not None]
    if len(asked) < 2:
        found = solver.solve(puzzles, **options)
    else:
        began = time.perf_counter()
        with Progress('solve', len(puzzles), unit='puzzle') as bar:
            found = solver.solve(puzzles, progress=bar.update, **options)
        rate = len(puzzles) / (time.perf_counter() - began)
        mean = sum(solution.steps * solution.chains for solution in found) / len(found)
        cost = ''
        if found[0].chains > 1:
            gflops = rollouts.flops_of(solver.config, mean) / 1e9
            cost = f' in {found[0].chains} chains, {gflops:.3g} GFLOPs'
        print(f'{mean:.2f} steps a puzzle{cost}, {rate:.0f} puzzles/s', file=sys.stderr)
    for entry, solution in zip(asked, found, strict=True):
        entry.solution = solution


def _note(message: str) -> None:
    print(message, file=sys.stderr)


def _arc_task(path: str) -> tuple[Any, str]:
    """Reads a task and its name: of a file of its own, or as FILE:NAME of a file of several.

    Raises:
      PuzzleError: the file has several tasks, and none of them is named.
    """
    file, _, chosen = (path, '', '') if pathlib.Path(path).exists() else path.rpartition(':')
    task = files.read_json(pathlib.Path(file or path), PuzzleError)
    several = isinstance(task, dict) and not isinstance(task.get('test'), list)
    names = [name for name, one in task.items() if isinstance(one, dict)] if several else []
    if names and chosen not in names:
        shown = ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')
        raise PuzzleError(
            f'{file or path} must hold one task, or the task must be named as FILE:NAME; it holds '
            f'{len(names)}: {shown}.'
        )
    return (task[chosen], chosen) if names else (task, pathlib.Path(file or path).stem)


def _solve_arc(flags: argparse.Namespace, solver: 'Solver', form: str) -> None:
    from hrm_jax.checkpoint import compatible
    from hrm_jax.data import records
    from hrm_jax.inference import arc
    from hrm_jax.scoring import arc_names

    task, name = _arc_task(flags.arc)
    data, maps = flags.data or solver.config.data.path, None
    if data and pathlib.Path(data).exists() and flags.identifiers == 'own':
        dataset = records.load(data, 'test')
        if compatible.check_data(
            solver.config.model, solver.meta, dataset, flags.checkpoint, log=_note
        ):
            maps = arc_names.find(dataset)
    answers, known = arc.solve_task(
        solver, task, name, maps, flags.samples, flags.steps, flags.seed
    )
    if not known:
        print('the model was not trained on this task, so it can only guess', file=sys.stderr)
    solutions.show_arc(form, flags.output, name, task, answers)


def _choose_model(flags: argparse.Namespace) -> None:
    """Takes the installed model where none is named, and sets what depends on it."""
    from hrm_jax.interop import pretrained

    if not flags.checkpoint:
        flags.checkpoint = str(pretrained.find(pretrained.DEFAULT))
        _note(f'model: {pretrained.DEFAULT}, installed with hrm_jax (--checkpoint RUN: another)')
    if flags.retries is None:
        installed = pretrained.FOLDER in pathlib.Path(pretrained.resolved(flags.checkpoint)).parents
        flags.retries = 64 if installed else 0
    if flags.retries < 0:
        raise UsageError(f'--retries must not be negative; got {flags.retries}.')


def solve(flags: argparse.Namespace) -> int:
    """Answers the puzzles that the flags name; returns the exit code."""
    from hrm_jax.inference.solver import Solver
    from hrm_jax.run import backend

    form = _form(flags)
    backend.enable_compilation_cache()
    _choose_model(flags)
    solver = Solver.from_checkpoint(
        flags.checkpoint,
        flags.data or '',
        task=flags.task,
        config=flags.config or '',
        seq_len=flags.seq_len,
    )
    if flags.side:
        solver = solver.for_side(flags.side)
    solver = _with_rollouts(flags, solver)
    if flags.arc:
        _solve_arc(flags, solver, form)
        return 0
    if flags.random is not None:
        (entries, solver), as_lines = _from_test_set(flags, solver), False
    else:
        entries, as_lines = _entries(flags, solver)
    given = [entry for entry in entries if entry.tokens is not None or entry.error]
    if not given:
        raise PuzzleError('there must be at least one puzzle; the input is empty.')
    for number, entry in enumerate(given, 1):
        if entry.error:
            print(f'puzzle {number}: {entry.error}', file=sys.stderr)
    _answer(flags, solver, entries)
    show = solutions.Show(solver, form, flags.output, flags.steps, flags.header)
    show(entries, as_table=as_lines or len(given) > 1)
    return 1 if any(entry.error for entry in entries) else 0


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command and exits."""
    reader = parser()
    flags = reader.parse_args(common.hyphenated(sys.argv[1:] if argv is None else argv))
    _check_sources(flags, reader.error)
    common.quiet_orbax()
    common.run(lambda: solve(flags))
