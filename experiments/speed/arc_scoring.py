"""Time and memory of scoring a large ARC prediction set.

    python -m experiments.speed.arc_scoring --folder=/tmp/arc_predictions [--puzzles=400]

Writes synthetic predictions (each puzzle in 1,000 augmentations, 7 of 10 answers with one wrong
cell) unless they are there, then scores them as ``hrm-jax score arc`` does.
"""

import argparse
from collections.abc import Sequence
import json
import pathlib
import resource
import sys
import time

import numpy as np

from hrm_jax import files
from hrm_jax.cli import score
from hrm_jax.data import augment
from hrm_jax.scoring import predictions

_SIDE = augment.ARC_SIDE


def _canvas(rng: np.random.Generator, height: int, width: int, copies: int) -> np.ndarray:
    canvas = np.zeros((_SIDE, _SIDE), np.uint8)
    canvas[:height, :width] = rng.integers(2, 12, (height, width))
    return np.tile(canvas.reshape(1, -1), (copies, 1))


def write(folder: pathlib.Path, puzzles: int, copies: int = 1000) -> None:
    """Writes ``puzzles * copies`` rows with inputs and labels, and identifiers.json."""
    rng, names, row = np.random.default_rng(0), ['<blank>'], 0
    corner = np.zeros((copies, 2), np.uint8)
    with predictions.Writer(folder, 'all', {}) as writer:
        for puzzle in range(puzzles):
            sides = rng.integers(3, _SIDE + 1, 4)
            question, answer = (_canvas(rng, *sides[k : k + 2], copies) for k in (0, 2))
            uniforms = rng.random((copies, augment.ARC_COLOURS))
            maps = augment.random_maps('arc', uniforms, _SIDE).astype(np.uint8)
            maps[0] = augment.identity_map('arc', _SIDE)
            extents = np.tile(sides, (copies, 1))
            question, answer = augment.apply('arc', question, answer, maps, _SIDE, extents, corner)
            given = answer.copy()
            wrong = rng.random(copies) < 0.7
            cells = rng.integers(0, _SIDE * _SIDE, copies)
            given[wrong, cells[wrong]] = rng.integers(0, 12, int(wrong.sum()))
            base = f'p{puzzle:05d}'
            names.append(base)
            names += [f'{base}_t{m[0]}_{"".join(map(str, m[1:]))}' for m in maps[1:]]
            numbers = np.arange(row, row + copies)
            writer.add(
                predictions=given, inputs=question, labels=answer, example=numbers,
                puzzle_identifiers=(numbers + 1).astype(np.int32),
                q_halt=rng.normal(size=copies).astype(np.float32),
            )  # fmt: skip
            row += copies
    files.write_text(folder / 'identifiers.json', json.dumps(names))


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the predictions, or scores them; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog='python -m experiments.speed.arc_scoring', description=__doc__
    )
    parser.add_argument('--folder', required=True, help='for the synthetic predictions')
    parser.add_argument('--puzzles', type=int, default=400)
    flags = parser.parse_args(argv)
    folder = pathlib.Path(flags.folder)
    if not (folder / 'identifiers.json').exists():
        write(folder, flags.puzzles)
        print('written; start again to measure the scoring alone')
        return 0
    began, used = time.perf_counter(), time.process_time()
    arguments = ['arc', str(folder), '--identifiers', str(folder / 'identifiers.json')]
    score.score(score.parser().parse_args(arguments))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f'{time.perf_counter() - began:.1f} s, {time.process_time() - used:.1f} s of processor '
        f'time, {peak:.0f} MB at most'
    )
    return 0


if __name__ == '__main__':
    sys.exit(main())
