"""What the solve command does: reads puzzles, has them solved, shows the answers."""

import argparse
import dataclasses
import json
import pathlib
import sys
import time

import numpy as np

from hrm_jax import arc_solve
from hrm_jax.data import puzzles as puzzles_lib
from hrm_jax.data import records
from hrm_jax.inference import Solution, Solver
from hrm_jax.puzzle_text import PuzzleError
from hrm_jax.scoring import arc_names
from hrm_jax.types import IGNORE_LABEL_ID
from hrm_jax.visualize import boards, trace
from hrm_jax.writers import Progress


def _texts(flags: argparse.Namespace, solver: Solver) -> list[str]:
    if flags.puzzle is not None:
        return [flags.puzzle]
    if flags.board:
        return [pathlib.Path(flags.board).read_text('utf-8')]
    if flags.random:
        dataset = records.load(flags.data or solver.config.data.path, 'test')
        one = next(iter(dataset.sets.values()))
        chosen = np.random.default_rng(flags.seed).integers(one.num_examples, size=1)
        question, _ = puzzles_lib.stored_examples(one, dataset.metadata, chosen)
        return [solver.alphabet.text(question[0])]
    text = sys.stdin.read() if flags.stdin else pathlib.Path(flags.file).read_text('utf-8')
    return [line for line in text.splitlines() if line.strip()]


def _read(solver: Solver, texts: list[str]) -> tuple[list[np.ndarray], int]:
    """Returns the puzzles that can be read; tells about the others and counts them."""
    if not texts:
        raise PuzzleError('there must be at least one puzzle; the input is empty.')
    good, bad = [], 0
    for number, text in enumerate(texts, 1):
        try:
            good.append(solver.alphabet.parse(text))
        except PuzzleError as error:
            print(f'puzzle {number}: {error}', file=sys.stderr)
            bad += 1
    return good, bad


def _describe(solver: Solver, solution: Solution) -> str:
    valid = {True: 'valid', False: 'not valid', None: 'validity unknown'}[solution.valid]
    facts = f'confidence {solution.confidence:.1%}, {solution.steps:g} steps, {valid}'
    if not solver.alphabet.is_board:
        return f'{solution.text}\n{facts}'
    lines = [
        boards.board_lines(tokens, solver.alphabet.task)
        for tokens in (solution.question, solution.answer)
    ]
    return f'{boards.side_by_side(("puzzle", "answer"), lines)}\n\n{solution.text}\n{facts}'


def _show_picture(flags: argparse.Namespace, solver: Solver, question: np.ndarray) -> None:
    labels = np.full_like(question, IGNORE_LABEL_ID)[None]
    seen = trace.trace(
        solver.config, solver.weights, question[None], labels, np.zeros(1), flags.steps
    )
    path = flags.output or f'solution.{flags.show}'
    if flags.show == 'gif':
        from hrm_jax.visualize import animation

        blank = 1 if solver.alphabet.task == 'sudoku' else -1
        animation.save_gif(seen, 0, solver.alphabet.task, path, blank)
    else:
        from hrm_jax.visualize import page

        page.write_trace(path, seen, solver.alphabet)
    print(f'wrote {path}')


def _as_json(solution: Solution) -> str:
    values = dataclasses.asdict(solution)
    return json.dumps({k: v.tolist() if hasattr(v, 'tolist') else v for k, v in values.items()})


def _solve_arc(flags: argparse.Namespace, solver: Solver) -> None:
    path, data, maps = pathlib.Path(flags.arc), flags.data or solver.config.data.path, None
    if data and pathlib.Path(data).exists():
        maps = arc_names.find(records.load(data, 'test'))
    task = json.loads(path.read_text('utf-8'))
    answers, known = arc_solve.solve_task(
        solver, task, path.stem, maps, flags.samples, flags.steps, flags.seed
    )
    if not known:
        print('the model was not trained on this task, so it can only guess', file=sys.stderr)
    for answer in answers:
        print(json.dumps(dataclasses.asdict(answer)))


def solve(flags: argparse.Namespace) -> int:
    """Does what the flags of the solve command say; returns the exit status."""
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
        mean = np.mean([solution.steps for solution in solutions])
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
