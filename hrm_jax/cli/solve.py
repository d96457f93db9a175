"""Answers puzzles with a trained model.

Puzzles come one per line (--puzzle, --file, or - for standard input), as a board over several
lines (--board), as an ARC task (--arc), or from the model's own test set (--random). How each task
is written: hrm_jax/tasks.py. Puzzles that cannot be read are reported and left out; the exit code
is then 1.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import json
import pathlib
import sys
import time
from typing import TYPE_CHECKING

from hrm_jax import files
from hrm_jax.cli import common
from hrm_jax.errors import PuzzleError

if TYPE_CHECKING:  # numpy and JAX are imported when a puzzle is answered, not for --help
    import numpy as np

    from hrm_jax.inference.solver import Solution, Solver


def parser() -> argparse.ArgumentParser:
    """Returns the flags of ``hrm-jax solve``."""
    parser = common.parser('solve', __doc__)
    parser.add_argument('--checkpoint', required=True, help='folder of a run or of a checkpoint')
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--puzzle', help='the puzzle, in one line')
    source.add_argument('--file', help='file with one puzzle per line')
    source.add_argument('--board', help='file with one board, a line per row')
    source.add_argument('--arc', help='JSON file of an ARC task')
    source.add_argument('--random', action='store_true', help='one of the test set')
    source.add_argument('stdin', nargs='?', choices=['-'], help='- reads one puzzle per line')
    parser.add_argument('--data', default='', help='data set (default: the one trained on)')
    parser.add_argument('--steps', type=int, default=0, help='most ACT steps; 0: as trained')
    parser.add_argument('--samples', type=int, default=1, help='symmetric views that vote')
    parser.add_argument('--seed', type=int, default=0, help='seed of --random and --samples')
    parser.add_argument(
        '--all-steps', action='store_true', help='never stop early: all puzzles run all steps'
    )
    parser.add_argument(
        '--show', choices=['text', 'html', 'gif', 'json'], default='text', help='form of the answer'
    )
    parser.add_argument('--output', '-o', help='file for html and gif (default: solution.*)')
    return parser


def _texts(flags: argparse.Namespace, solver: 'Solver') -> list[str]:
    if flags.puzzle is not None:
        return [flags.puzzle]
    if flags.board:
        return [files.read_text(flags.board, PuzzleError)]
    if flags.random:
        import numpy as np

        from hrm_jax.data import puzzles, records

        dataset = records.load(flags.data or solver.config.data.path, 'test')
        one = next(iter(dataset.sets.values()))
        chosen = np.random.default_rng(flags.seed).integers(one.num_examples, size=1)
        question, _ = puzzles.stored_examples(one, dataset.metadata, chosen)
        return [solver.task.text(question[0])]
    text = sys.stdin.read() if flags.stdin else files.read_text(flags.file, PuzzleError)
    return [line for line in text.splitlines() if line.strip()]


def _read(solver: 'Solver', texts: list[str]) -> tuple[list['np.ndarray'], int]:
    """Returns the puzzles that can be read; prints what is wrong with the others, counts them."""
    if not texts:
        raise PuzzleError('there must be at least one puzzle; the input is empty.')
    good, bad = [], 0
    for number, text in enumerate(texts, 1):
        try:
            good.append(solver.task.parse(text))
        except PuzzleError as error:
            print(f'puzzle {number}: {error}', file=sys.stderr)
            bad += 1
    return good, bad


def _describe(solver: 'Solver', solution: 'Solution') -> str:
    from hrm_jax.visualize import boards

    valid = {True: 'valid', False: 'not valid', None: 'validity unknown'}[solution.valid]
    facts = f'confidence {solution.confidence:.1%}, {solution.steps:g} steps, {valid}'
    if not solver.task.is_board:
        return f'{solution.text}\n{facts}'
    lines = [
        boards.board_lines(tokens, solver.task) for tokens in (solution.question, solution.answer)
    ]
    return f'{boards.side_by_side(("puzzle", "answer"), lines)}\n\n{solution.text}\n{facts}'


def _show_picture(flags: argparse.Namespace, solver: 'Solver', question: 'np.ndarray') -> None:
    import numpy as np

    from hrm_jax.types import IGNORE_LABEL_ID
    from hrm_jax.visualize import trace

    labels = np.full_like(question, IGNORE_LABEL_ID)[None]
    seen = trace.trace(
        solver.config, solver.weights, question[None], labels, np.zeros(1), flags.steps
    )
    path = flags.output or f'solution.{flags.show}'
    if flags.show == 'gif':
        from hrm_jax.visualize import animation

        animation.save_gif(seen, 0, solver.task, path)
    else:
        from hrm_jax.visualize import page

        page.write_trace(path, seen, solver.task)
    print(f'wrote {path}')


def _as_json(solution: 'Solution') -> str:
    values = dataclasses.asdict(solution)
    return json.dumps({k: v.tolist() if hasattr(v, 'tolist') else v for k, v in values.items()})


def _solve_arc(flags: argparse.Namespace, solver: 'Solver') -> None:
    from hrm_jax.data import records
    from hrm_jax.inference import arc
    from hrm_jax.scoring import arc_names

    path, data, maps = pathlib.Path(flags.arc), flags.data or solver.config.data.path, None
    if data and pathlib.Path(data).exists():
        maps = arc_names.find(records.load(data, 'test'))
    task = files.read_json(path, PuzzleError)
    answers, known = arc.solve_task(
        solver, task, path.stem, maps, flags.samples, flags.steps, flags.seed
    )
    if not known:
        print('the model was not trained on this task, so it can only guess', file=sys.stderr)
    for answer in answers:
        print(json.dumps(dataclasses.asdict(answer)))


def solve(flags: argparse.Namespace) -> int:
    """Answers the puzzles that the flags name; returns the exit code."""
    from hrm_jax.inference.solver import Solver
    from hrm_jax.run import backend
    from hrm_jax.run.progress import Progress

    backend.enable_compilation_cache()
    solver = Solver.from_checkpoint(flags.checkpoint, flags.data)
    if flags.arc:
        _solve_arc(flags, solver)
        return 0
    puzzles, bad = _read(solver, _texts(flags, solver))
    many = len(puzzles) > 1
    options = {'steps': flags.steps, 'samples': flags.samples, 'seed': flags.seed,
               'early_exit': not flags.all_steps}  # fmt: skip
    if many:
        began = time.perf_counter()
        with Progress('solve', len(puzzles), unit='puzzle') as bar:
            solutions = solver.solve(puzzles, progress=bar.update, **options)
        rate = len(puzzles) / (time.perf_counter() - began)
        mean = sum(solution.steps for solution in solutions) / len(solutions)
        print(f'{mean:.2f} steps a puzzle, {rate:.0f} puzzles/s', file=sys.stderr)
    else:
        solutions = solver.solve(puzzles, **options)
    for solution in solutions:
        if flags.show == 'json':
            print(_as_json(solution))
        elif many:
            note = {True: 'valid', False: 'invalid', None: '?'}[solution.valid]
            print(f'{solution.text}\t{solution.confidence:.4f}\t{solution.steps:g}\t{note}')
        else:
            print(_describe(solver, solution))
    if flags.show in ('html', 'gif') and puzzles:
        _show_picture(flags, solver, puzzles[0])
    return 1 if bad else 0


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command and exits."""
    flags = parser().parse_args(common.hyphenated(sys.argv[1:] if argv is None else argv))
    common.quiet_orbax()
    common.run(lambda: solve(flags))
