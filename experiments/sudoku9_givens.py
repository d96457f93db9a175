"""What the installed Sudoku model solves, by number of givens, and what a puzzle costs.

    python -m experiments.sudoku9_givens runs/givens --data data/sudoku9 --count 1000
    python -m experiments.sudoku9_givens runs/givens --data data/sudoku-hard --count 200

Answers test boards of a data set in one run of 16 ACT steps, in one of 64, and as ``hrm-jax solve``
does: until the rules hold, then by up to 64 more chains where they do not. All answers count by the
labels. Answers are kept as they come (WORKDIR/NAME.json), so the same command goes on where it was
ended; the table is WORKDIR/NAME.md.
"""

import argparse
from collections.abc import Mapping, Sequence
import functools
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from hrm_jax import files
from hrm_jax.cli import common
from hrm_jax.data import puzzles, records
from hrm_jax.errors import WorkdirError
from hrm_jax.inference import rollouts
from hrm_jax.inference.solver import Solver
from hrm_jax.interop import pretrained
from hrm_jax.run import backend

WAYS: Mapping[str, Mapping[str, Any]] = {
    '16 steps': {'steps': 16, 'early_exit': False},
    '64 steps': {'steps': 64, 'early_exit': False},
    'until the rules hold': {'steps': 16, 'retries': 64},
}
_AT_ONCE = 25  # puzzles between two writes
_BANDS = 6  # lines of the table, at most, beside that of all
Log = functools.partial(print, flush=True)


def boards(data: str, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Questions and labels of some test boards, int32 [N, 81] each, in an order of its own."""
    dataset = records.load(data, 'test')
    one = next(iter(dataset.sets.values()))
    chosen = np.random.default_rng(seed).permutation(one.num_examples)[:count]
    questions, labels = puzzles.stored_examples(one, dataset.metadata, chosen)
    return questions.astype(np.int32), labels.astype(np.int32)


def measure(solver: Solver, questions: np.ndarray, labels: np.ndarray, path: Path) -> list[Any]:
    """Answers boards in every way; goes on from the file, and keeps it up to date.

    Returns:
      For every board: givens, then for every way whether it is solved, and its ACT steps.
    """
    found = files.read_json(path, WorkdirError, list) if path.exists() else []
    blank = solver.task.tokens_of('.' * questions.shape[1])[0]
    while len(found) < len(questions):
        rows = slice(len(found), len(found) + _AT_ONCE)
        part = [[int((question != blank).sum())] for question in questions[rows]]
        for options in WAYS.values():
            solutions = solver.solve(questions[rows], **options)
            for row, solution, label in zip(part, solutions, labels[rows], strict=True):
                row += [int((solution.answer == label).all()), solution.steps * solution.chains]
        found += part
        files.write_text(path, json.dumps(found) + '\n')
        Log(f'{len(found)} of {len(questions)} boards')
    return found[: len(questions)]


def table(found: Sequence[Any], gflops: float) -> str:
    """Solved and billions of FLOPs a puzzle, in bands of givens, as Markdown.

    Args:
      found: of ``measure``.
      gflops: of one ACT step.
    """
    values = np.array(found, float)
    givens = values[:, 0]
    starts = np.unique(np.quantile(givens, np.arange(_BANDS) / _BANDS, method='lower'))
    edges = [*starts, givens.max() + 1]
    bands = [(low, after - 1) for low, after in itertools.pairwise(edges)]
    head = ' | '.join(f'{way} | GFLOP' for way in WAYS)
    lines = [f'| givens | boards | {head} |', f'|{" --- |" * (2 + 2 * len(WAYS))}']
    for low, high in [*bands, (givens.min(), givens.max())]:
        rows = values[(givens >= low) & (givens <= high)]
        cells = [f'{low:.0f}' if low == high else f'{low:.0f} to {high:.0f}', str(len(rows))]
        for number in range(len(WAYS)):
            solved, steps = rows[:, 1 + 2 * number : 3 + 2 * number].mean(0)
            cells += [f'{solved:.1%}', f'{steps * gflops:.3g}']
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog='python -m experiments.sudoku9_givens', description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument('workdir', type=Path)
    parser.add_argument('--data', required=True, help='data set of 9x9 boards')
    parser.add_argument('--count', type=int, default=200, help='test boards (default: 200)')
    parser.add_argument('--seed', type=int, default=0, help='of their choice (default: 0)')
    flags = parser.parse_args(argv)
    backend.enable_compilation_cache()
    flags.workdir.mkdir(parents=True, exist_ok=True)
    solver = Solver.pretrained(pretrained.DEFAULT)
    name = f'{Path(flags.data).name}-{flags.seed}'
    questions, labels = boards(flags.data, flags.count, flags.seed)
    found = measure(solver, questions, labels, flags.workdir / f'{name}.json')
    text = table(found, rollouts.flops_of(solver.config, 1) / 1e9)
    files.write_text(flags.workdir / f'{name}.md', text)
    print(text)
    return 0


if __name__ == '__main__':
    common.run(main)
