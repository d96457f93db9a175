"""How many shortest paths the mazes of a set have, and its labels under all three measures.

    python -m experiments.maze_metrics data/maze-30x30-hard-1k

Takes a data set of mazes or of path finding; prints JSON.
"""

import argparse
from collections.abc import Sequence
import json
import statistics
import sys

import numpy as np

from hrm_jax.data import records
from hrm_jax.data.puzzles import PuzzleDataset, stored_examples
from hrm_jax.errors import DatasetError, UserError
from hrm_jax.tasks.paths import PathTask


def measure(dataset: PuzzleDataset) -> dict[str, float]:
    """Counts the shortest paths of every question and judges every label.

    Raises:
      DatasetError: the task is not about paths.
    """
    task = dataset.metadata.task_of()
    if not isinstance(task, PathTask):
        raise DatasetError(
            f'{dataset.path} must be a set of mazes or of path finding; its task is '
            f'{dataset.metadata.task!r}.'
        )
    counts: list[int] = []
    right = dict.fromkeys(task.judged, 0)
    for one in dataset.sets.values():
        examples = np.arange(one.num_examples)
        for question, label in zip(*stored_examples(one, dataset.metadata, examples), strict=True):
            counts.append(task.count_shortest_paths(question))
            for name, value in task.judge(question, label).items():
                right[name] += value
    return {
        'mazes': len(counts),
        'with several shortest paths': sum(count > 1 for count in counts),
        'fewest': min(counts),
        'median': statistics.median(counts),
        'most': max(counts),
    } | {f'labels: {name}': number / len(counts) for name, number in right.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('data', help='folder of the data set')
    parser.add_argument('--split', default='test', help='its split')
    args = parser.parse_args(argv)
    try:
        print(json.dumps(measure(records.load(args.data, args.split)), indent=2))
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
