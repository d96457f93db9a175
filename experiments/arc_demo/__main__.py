"""Trains on easy ARC tasks, adapts to 10 unseen ones within 30 minutes, and counts the score.

    python -m experiments.arc_demo runs/arc_demo

The same command resumes after a kill. It prints the score of the submission beside that of the same
model without adaptation and of copying the question (a guess that costs nothing).
"""

import argparse
import functools
import json
from pathlib import Path
import sys
import time
from typing import Any

import numpy as np

from experiments.arc_demo import selection
from hrm_jax import files, train
from hrm_jax.adaptation import adapt, task_files
from hrm_jax.adaptation.budget import Budget
from hrm_jax.adaptation.settings import Settings
from hrm_jax.checkpoint import layout
from hrm_jax.config import ExperimentConfig
from hrm_jax.run import backend, build_data
from hrm_jax.scoring import arc_votes

_MODEL = {
    'H_cycles': 2, 'L_cycles': 2, 'H_layers': 1, 'L_layers': 1, 'num_heads': 4,
    'forward_dtype': 'float32',
}  # fmt: skip
Log = functools.partial(print, flush=True)


def experiment(flags: argparse.Namespace, data: Path) -> ExperimentConfig:
    """The experiment that learns the easy tasks."""
    size = flags.hidden_size
    return ExperimentConfig.from_dict({
        'name': 'arc_demo',
        'model': _MODEL | {'hidden_size': size, 'puzzle_emb_ndim': size,
                           'puzzle_embedding': flags.puzzle_embedding},
        'act': {'halt_max_steps': flags.act_steps},
        'loss': {'loss_type': 'softmax_cross_entropy'},
        'data': {'path': str(data)},
        'optimizer': {'lr': 1e-3, 'lr_warmup_steps': 100, 'weight_decay': 0.1,
                      'puzzle_emb_lr': 1e-2, 'ema_decay': 0.99},
        'train': {'global_batch_size': flags.batch_size, 'epochs': 100000, 'eval_interval': 0,
                  'max_steps': flags.train_steps},
        'eval': {'split': 'train', 'subset': 'random128-seed0',
                 'global_batch_size': flags.batch_size},
        'checkpoint': {'every_steps': 100},
    })  # fmt: skip


def train_model(flags: argparse.Namespace, tasks: dict[str, Any], folder: Path) -> str:
    """Trains on demonstrations and tests of the tasks; returns the signal that ended it."""
    budget = Budget(folder, flags.train_minutes, time.monotonic())
    source, data, run = folder / 'tasks', folder / 'dataset', folder / 'run'
    if not source.exists():
        shown = {name: {'train': task['train'] + task['test'], 'test': []}
                 for name, task in tasks.items()}  # fmt: skip
        adapt.write_tasks(source, {'tasks': shown})
    build_data.build_arc(
        source, data, num_aug=flags.augmentations, seed=flags.seed, allow_leaks=True,
        side=flags.side, test_subsets=(),
    )  # fmt: skip
    steps = layout.steps(run)
    if steps and (steps[-1] >= flags.train_steps or budget.left <= 0):
        return ''
    with budget.recorded():
        outcome = train.train(experiment(flags, data), run, deadline=budget.deadline)
    return '' if outcome.signal == 'time limit' else outcome.signal


def answer(
    flags: argparse.Namespace, name: str, asked: task_files.Tasks, folder: Path, **settings: Any
) -> adapt.Result:
    """Adapts the trained model to the tasks with some settings."""
    origin = adapt.from_checkpoint(str(folder / 'training' / 'run'))
    common = {'augmentations': flags.adapt_augmentations, 'views': flags.views, 'seed': flags.seed}
    return adapt.run(
        asked, origin, Settings(**common | settings), folder / name,
        folder / f'{name}.json', time.monotonic(), Log,
    )  # fmt: skip


def main() -> None:
    """Runs the demonstration."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('workdir', type=Path)
    parser.add_argument('--tasks', type=int, default=36, help='tasks to train on')
    parser.add_argument('--unseen', type=int, default=10, help='tasks to adapt to')
    parser.add_argument('--side', type=int, default=12, help='rows and columns of the canvas')
    parser.add_argument('--hidden-size', type=int, default=64)
    parser.add_argument('--act-steps', type=int, default=4)
    parser.add_argument('--puzzle-embedding', choices=('table', 'composed'), default='table')
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument('--train-steps', type=int, default=3000)
    parser.add_argument('--train-minutes', type=float, default=180.0)
    parser.add_argument('--augmentations', type=int, default=50)
    parser.add_argument('--adapt-augmentations', type=int, default=20)
    parser.add_argument('--views', type=int, default=9)
    parser.add_argument('--steps', type=int, default=1000, help='most steps of the adaptation')
    parser.add_argument('--minutes', type=float, default=30.0, help='cap of the adaptation')
    parser.add_argument('--seed', type=int, default=0)
    flags = parser.parse_args()
    backend.enable_compilation_cache()
    folder = flags.workdir.absolute()
    (folder / 'training').mkdir(parents=True, exist_ok=True)
    trained, unseen = selection.choose(flags.tasks, flags.unseen, flags.seed)
    if train_model(flags, trained, folder / 'training'):
        sys.exit(1)
    challenges = folder / 'demo_test_challenges.json'
    files.write_text(challenges, json.dumps(unseen))  # the outputs in it are never read
    asked = task_files.read(str(challenges))
    truth = {name: [one['output'] for one in task['test']] for name, task in unseen.items()}
    results = {
        'adapted': answer(
            flags, 'adapted', asked, folder, steps=flags.steps, minutes=flags.minutes
        ),
        'without adaptation': answer(
            flags, 'unadapted', asked, folder, steps=1, checkpoints=1, folds=0, adapt='table',
            changes=(('optimizer.puzzle_emb_lr', 0.0),),
        ),
    }  # fmt: skip
    if any(one.signal for one in results.values()):
        sys.exit(1)
    submissions = {name: one.submission for name, one in results.items()}
    submissions['copying the question'] = {
        name: [dict.fromkeys(arc_votes.ATTEMPTS, one['input']) for one in task['test']]
        for name, task in unseen.items()
    }
    for name, submission in submissions.items():
        arc_votes.check_submission(submission, asked.tests)
        found = arc_votes.score_submission(submission, truth)
        Log(f'{name}: {found.right} of {found.tests} tests right in two attempts, '
            f'{cells_right(submission, truth):.1%} of the cells in the first')  # fmt: skip
    Log(f'expected before: {results["adapted"].expected}')


def cells_right(submission: arc_votes.Submission, truth: dict[str, list]) -> float:
    """Share of cells that the first attempts have right; attempts of another shape have none."""
    right = total = 0
    for name, answers in truth.items():
        for given, known in zip(submission[name], map(np.array, answers), strict=True):
            first = np.array(given[arc_votes.ATTEMPTS[0]])
            total += known.size
            right += int((first == known).sum()) if first.shape == known.shape else 0
    return right / total


if __name__ == '__main__':
    main()
