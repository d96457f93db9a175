"""The installed model's recipe beside the published ones of HRM and TRM, after the same time.

    python -m experiments.sudoku9_minutes runs/sudoku9_minutes --data data/sudoku9
    taskset -c 1 python -m experiments.sudoku9_minutes runs/sudoku9_minutes --data ... --arm trm_mlp

Trains each recipe on the same boards for 60 minutes of CPU time on one core (``taskset``): that of
this process, so other programs take nothing from it; compiling counts, testing does not. Tests the
same boards after a quarter, a half and all of it. The same command resumes; the table is
WORKDIR/minutes.md, the curves are minutes.png and minutes.json.

HRM and TRM keep the values of their configurations but for what an hour of a CPU cannot carry:
batches of 32 rows as the installed model's, float32, a warm-up of 100 steps in place of 2,000, and
TRM's weights are tested as they are, not averaged over more steps than there are.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import json
import os
from pathlib import Path
import signal
import time
from typing import Any

import jax
import numpy as np

from configs import sudoku9_cpu, sudoku_extreme_1k, sudoku_trm_mlp
from hrm_jax import eval_checkpoint, files, train
from hrm_jax.checkpoint import layout
from hrm_jax.cli import common
from hrm_jax.config import ExperimentConfig
from hrm_jax.errors import WorkdirError
from hrm_jax.run import backend, kept_memory, writers
from hrm_jax.visualize import curves, figures

ARMS: Mapping[str, Callable[[], Any]] = {
    'installed': sudoku9_cpu.get_config,
    'hrm': sudoku_extreme_1k.get_config,
    'trm_mlp': sudoku_trm_mlp.get_config,
}
TITLES = {
    'installed': 'installed model (`sudoku9_cpu`)',
    'hrm': 'HRM (`sudoku_extreme_1k`)',
    'trm_mlp': 'TRM, token mixing (`sudoku_trm_mlp`)',
}
MARKS = (0.25, 0.5, 1.0)  # of the minutes, at which boards are tested
_STEPS = 16
_CURVE_POINTS = 200
Log = Callable[[str], None]


def experiment(arm: str, data: Path, tests: int) -> ExperimentConfig:
    """The experiment of a recipe, without an end of its own."""
    config = ExperimentConfig.from_dict(ARMS[arm]())
    model, optimizer = config.model, config.optimizer
    if arm != 'installed':
        model = dataclasses.replace(model, forward_dtype='float32')
        optimizer = dataclasses.replace(optimizer, lr_warmup_steps=100, ema_decay=0.0)
    own = config.data
    return dataclasses.replace(
        config, name=f'sudoku9_{arm}', model=model, optimizer=optimizer,
        data=dataclasses.replace(own, path=str(data), augmentation='on_the_fly'),
        train=dataclasses.replace(
            config.train, global_batch_size=32, epochs=100_000, eval_interval=0, max_steps=0,
            log_every_steps=10,
        ),
        # Saved when its time is up alone, so that no kill can leave steps that were not counted.
        checkpoint=dataclasses.replace(
            config.checkpoint, every_steps=0, keep_latest=1, keep_best=0
        ),
        logging=dataclasses.replace(config.logging, tensorboard=False),
        eval=dataclasses.replace(
            config.eval, global_batch_size=25, halt_max_steps=_STEPS, max_examples=tests,
            deep=False, subset='',
        ),
    )  # fmt: skip


def train_for(
    config: ExperimentConfig, run: Path, seconds: float, log: Log
) -> tuple[train.Outcome, float, bool]:
    """Trains, or goes on, for some CPU time of this process.

    Returns:
      How it ended, the seconds that it took, and whether its time is up; False: a signal came.
    """
    is_up = False

    def end(*_: Any) -> None:
        nonlocal is_up
        is_up = True
        os.kill(os.getpid(), signal.SIGTERM)  # which the training answers by saving

    began = time.process_time()
    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        outcome = train.train(config, run, '', log)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    return outcome, time.process_time() - began, is_up


def race(workdir: Path, arm: str, data: Path, minutes: float, tests: int, log: Log) -> str:
    """Trains and tests one recipe up to its last mark; returns the signal that ended it, or ''."""
    path, run = workdir / f'{arm}.json', workdir / arm
    empty: dict[str, Any] = {'seconds': 0.0, 'points': []}
    found = files.read_json(path, WorkdirError, dict) if path.exists() else empty
    config = experiment(arm, data, tests)
    kept_memory.keep(config)
    for number, mark in enumerate(MARKS):
        if number < len(found['points']):
            continue
        left = mark * minutes * 60 - found['seconds']
        if left > 0:
            log(f'{arm}: {left / 60:.1f} minutes of CPU time up to {mark * minutes:g}')
            outcome, spent, is_up = train_for(config, run, left, log)
            found['seconds'] += spent
            leaves = jax.tree.leaves(outcome.state.weights.params)
            found['parameters'] = sum(leaf.size for leaf in leaves)
            files.write_text(path, json.dumps(found, indent=1) + '\n')
            if not is_up:
                return outcome.signal
        values = eval_checkpoint.evaluate_checkpoint(config, run, 'latest', log)
        found['points'].append({
            'minutes': mark * minutes, 'step': max(layout.steps(run)),
            'boards': values['eval/all/exact_accuracy'], 'cells': values['eval/all/accuracy'],
            'loss': values['eval/all/lm_loss'], 'tests': tests,
        })  # fmt: skip
        files.write_text(path, json.dumps(found, indent=1) + '\n')
    return ''


def table(workdir: Path) -> str:
    """The points so far as Markdown."""
    lines = [
        '| recipe | parameters | minutes | steps | boards right | cells right | loss |',
        '| --- | --- | --- | --- | --- | --- | --- |',
    ]
    for arm, title in TITLES.items():
        path = workdir / f'{arm}.json'
        if not path.exists():
            continue
        found = files.read_json(path, WorkdirError, dict)
        for point in found['points']:
            lines.append(
                f'| {title} | {found["parameters"]:,} | {point["minutes"]:g} | {point["step"]:,} | '
                f'{point["boards"]:.0%} of {point["tests"]} | {point["cells"]:.1%} | '
                f'{point["loss"]:.3f} |'
            )
    return '\n'.join(lines) + '\n'


def results(workdir: Path) -> dict[str, dict[str, Any]]:
    """What is known of every recipe: its points, and its loss in training by CPU minutes."""
    made = {}
    for arm in ARMS:
        path = workdir / f'{arm}.json'
        found = files.read_json(path, WorkdirError, dict) if path.exists() else {'points': []}
        if not found['points']:
            continue
        last = found['points'][-1]
        records = writers.read_records(workdir / arm / 'metrics.jsonl')
        steps, loss = figures.series(records, 'train/lm_loss')
        parts = np.array_split(np.arange((steps <= last['step']).sum()), _CURVE_POINTS)
        minutes = steps * last['minutes'] / last['step']
        found['training'] = [
            {'minutes': round(minutes[part[-1]], 3), 'loss': round(loss[part].mean(), 5)}
            for part in parts
            if len(part)
        ]
        made[arm] = found
    return made


def draw(found: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draws the loss in training, and the test boards, by CPU minutes."""
    figure = figures.new_figure(10, 3.8)
    loss, cells = figure.subplots(1, 2)
    for (arm, one), colour in zip(found.items(), curves.COLOURS, strict=False):
        minutes, values = zip(*((p['minutes'], p['loss']) for p in one['training']), strict=True)
        loss.plot(minutes, values, color=colour, label=TITLES[arm].replace('`', ''))
        times = [point['minutes'] for point in one['points']]
        for key, dash in (('cells', ':'), ('boards', '-')):
            shares = [100 * point[key] for point in one['points']]
            cells.plot(times, shares, dash, marker='o', color=colour)
    loss.set(title='loss in training')
    loss.legend(fontsize=8, frameon=False)
    cells.set(title='% of test boards right; dotted: cells', ylim=(-3, 103))
    cells.set_xlim(left=0)
    for axes in (loss, cells):
        axes.set_xlabel('CPU minutes')
        axes.grid(color='#e7eaf2', linewidth=0.8)
        axes.spines[['top', 'right']].set_visible(False)
    figures.save(figure, path)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog='python -m experiments.sudoku9_minutes', description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument('workdir', type=Path)
    parser.add_argument('--data', type=Path, required=True, help="the card's data set")
    parser.add_argument('--arm', nargs='*', choices=ARMS, default=list(ARMS), help='default: all')
    parser.add_argument('--minutes', type=float, default=60.0, help='CPU time (default: 60)')
    parser.add_argument('--tests', type=int, default=50, help='boards to test (default: 50)')
    flags = parser.parse_args(argv)
    common.quiet_orbax()
    backend.enable_compilation_cache()
    workdir = flags.workdir.absolute()
    workdir.mkdir(parents=True, exist_ok=True)
    log = functools.partial(print, flush=True)
    for arm in flags.arm:
        ended = race(workdir, arm, flags.data.absolute(), flags.minutes, flags.tests, log)
        if ended:
            log(f'{ended}: the same command resumes')
            return common.EXIT_CODES.get(ended, 1)
        files.write_text(workdir / 'minutes.md', table(workdir))
        found = results(workdir)
        files.write_text(workdir / 'minutes.json', json.dumps(found, indent=1) + '\n')
        draw(found, workdir / 'minutes.png')
    print(table(workdir))
    return 0


if __name__ == '__main__':
    common.run(main)
