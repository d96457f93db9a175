"""Kills a small training run again and again, restarts it, and compares it with an undisturbed one.

    python -m experiments.fault_drill --workdir=runs/drill --kills=50
    python -m experiments.fault_drill --workdir=runs/drill2 --kills=10 --processes=2
    python -m experiments.fault_drill --workdir=runs/elastic --kills=12 --processes=4,1,2

The kills are SIGKILL and SIGTERM at random moments: while it starts, between steps, during a save
and during an evaluation; with several processes one of them is hit. --processes=4,1,2 restarts
with 4, then 1, then 2, then 4 ... processes; the number of devices stays that of the largest
life. Every life is one ``python -m hrm_jax.main`` (several processes: one each) on generated 4x4
Sudokus, on the CPU.

The end must be that of the undisturbed run of one process: with one process the same bytes in
metrics.jsonl and in every array, otherwise within --tolerance; the same examples in the same order;
every checkpoint that has its name can be read; no process outlives a dead one for longer than
--limit seconds (the processes wait 45 s for one that dies before it has joined them, and 10 s for
the heartbeat of one that dies later). Exit code 0 if all of this holds; report.json and report.md
in the workdir.
"""

import argparse
from collections.abc import Callable, Sequence
import dataclasses
import itertools
import json
from pathlib import Path
import random
import shutil
import sys
import time

from experiments.fault_drill import lives as lives_lib
from experiments.fault_drill.lives import MOMENTS, DrillError, Life
from hrm_jax import files
from hrm_jax.checkpoint import layout
from hrm_jax.cli import common
from hrm_jax.errors import DamagedCheckpoint, UsageError, WorkdirError

EVERY = 20  # steps between checkpoints
BATCH, TRAIN_PUZZLES = 8, 400


def parser() -> argparse.ArgumentParser:
    """Returns the flags of the drill."""
    parser = argparse.ArgumentParser(
        prog='python -m experiments.fault_drill',
        description=__doc__,
        formatter_class=common.HelpFormatter,
    )
    add = parser.add_argument
    add(
        '--workdir', type=Path, default=Path('runs/fault_drill'), help='where everything is written'
    )
    add('--kills', type=int, default=50, help='how many kills')
    add('--processes', default='1', help='processes of the first life, of the second, ...')
    add('--steps', type=int, default=1500, help='train steps of a run')
    add('--seed', type=int, default=0, help='seed of the moments')
    add('--limit', type=float, default=75.0, help='seconds that a process may outlive another one')
    add(
        '--tolerance', type=float, default=1e-5,
        help='relative difference, where the number of processes differs',
    )  # fmt: skip
    return parser


def command(data: Path, run: Path, steps: int) -> list[str]:
    """The command line of one process; total steps are set through the epochs."""
    per_interval = 2 * TRAIN_PUZZLES // BATCH  # steps of the two epochs between evaluations
    epochs = -(-steps // per_interval) * 2
    return [
        sys.executable, '-m', 'hrm_jax.main', '--config=configs/quickstart.py',
        f'--workdir={run}', f'--config.data.path={data}', '--config.model.hidden_size=32',
        '--config.model.intermediate_size=64', '--config.model.puzzle_emb_ndim=32',
        f'--config.train.global_batch_size={BATCH}', f'--config.train.epochs={epochs}',
        '--config.train.eval_interval=2', f'--config.train.max_steps={steps}',
        f'--config.checkpoint.every_steps={EVERY}', '--config.eval.global_batch_size=16',
        '--config.logging.tensorboard=False', '--heartbeat-timeout=10', '--start-timeout=45',
    ]  # fmt: skip


def unreadable(run: Path) -> list[str]:
    """Checkpoints that have their name and cannot be read."""
    from hrm_jax.checkpoint import store

    bad = []
    for step in layout.steps(run):
        try:
            store.read_arrays(run / layout.FOLDER / str(step))
        except DamagedCheckpoint as error:
            bad.append(str(error))
    return bad


def compare(run: Path, other: Path) -> dict[str, object]:
    """Compares the ends of two runs: bytes, relative differences, data positions."""
    import jax
    import numpy as np

    from hrm_jax.checkpoint import store
    from hrm_jax.run import writers

    lines = [(folder / 'metrics.jsonl').read_bytes() for folder in (run, other)]
    records = [writers.read_records(folder / 'metrics.jsonl') for folder in (run, other)]
    if [r['step'] for r in records[0]] != [r['step'] for r in records[1]]:
        raise DrillError(f'{run} and {other} must have the same steps in metrics.jsonl.')
    losses = np.array([[r['train/lm_loss'] for r in one] for one in records])
    folders = [folder / layout.FOLDER / str(layout.steps(folder)[-1]) for folder in (run, other)]
    states = [store.read_arrays(folder) for folder in folders]
    arrays = list(zip(*(jax.tree.leaves(state) for state in states), strict=True))
    positions = [(folder / 'data' / 'metadata').read_text() for folder in folders]
    weights = zip(*(jax.tree.leaves(state['params']) for state in states), strict=True)
    return {
        'steps': [len(one) for one in records],
        'same bytes of metrics.jsonl': lines[0] == lines[1],
        'same bits of all arrays': all(np.array_equal(a, b) for a, b in arrays),
        'same data position': positions[0] == positions[1],
        'losses, largest relative difference': float(np.abs(losses[0] / losses[1] - 1).max()),
        'weights, largest relative difference of a norm': max(
            float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in weights
        ),
    }


def disturb(
    flags: argparse.Namespace,
    words_of: Callable[[Path], list[str]],
    counts: Sequence[int],
    pause: float,
) -> tuple[list[Life], list[Path], list[str]]:
    """Runs lives until all kills are spent and the last run has ended.

    Args:
      flags: of the command line.
      words_of: command line of one process, by the working directory.
      counts: processes of the first life, of the second, ...
      pause: see ``live``.

    Returns:
      The lives, the runs and the checkpoints that cannot be read.
    """
    from hrm_jax.run.progress import Progress

    lives, runs, bad, rng = [], [], [], random.Random(flags.seed)
    turns = itertools.cycle(counts)
    with Progress('kills', flags.kills, unit='kill') as bar:
        while sum(life.hit is not None for life in lives) < flags.kills:
            run, ended = flags.workdir / f'run_{len(runs)}', False
            runs.append(run)
            while not ended:
                left = flags.kills - sum(life.hit is not None for life in lives)
                logs = flags.workdir / 'logs' / f'life_{len(lives)}'
                life, ended = lives_lib.live(
                    words_of(run), next(turns), max(counts), logs, run, rng, pause, flags.limit,
                    disturbed=left > 0,
                )  # fmt: skip
                lives.append(life)
                bad += unreadable(run)
                if life.hit is not None:
                    bar.update(1, f'{life.signal} while {life.moment}, codes {life.codes}')
    return lives, runs, bad


def drill(flags: argparse.Namespace) -> int:
    """Runs the drill that the flags describe; returns the exit code."""
    words = flags.processes.split(',')
    counts = [int(word) if word.isdigit() else 0 for word in words]
    devices = max(counts)
    UsageError.require(
        all(count and devices % count == 0 for count in counts),
        f'--processes must be numbers that divide the largest of them; got {flags.processes}.',
    )
    UsageError.require(flags.kills > 0, f'--kills must be at least 1; got {flags.kills}.')
    UsageError.require(
        flags.steps >= EVERY, f'--steps must be at least {EVERY}; got {flags.steps}.'
    )
    root = flags.workdir
    WorkdirError.require(
        not root.exists(), f'{root} must not exist; give another --workdir, or remove it.'
    )
    from data_builders import sudoku

    sudoku.build(
        str(root / 'data'), source=sudoku.GENERATED, size=4, seed=0, train_count=TRAIN_PUZZLES,
        test_count=200, show=False,
    )  # fmt: skip

    def words_of(run):
        return command(root / 'data', run, flags.steps)

    began = time.monotonic()
    quiet, logs = root / 'undisturbed', root / 'logs' / 'undisturbed'
    codes = lives_lib.end_of(lives_lib.start(words_of(quiet), 1, devices, logs), 3600)
    DrillError.require(codes == (0,), f'the undisturbed run ended with {codes}; see {logs}.')
    seconds = time.monotonic() - began
    print(f'undisturbed run: {flags.steps} steps, {seconds:.0f} s', flush=True)
    # Long enough that the kills spread over the run, short enough that all find room in it.
    pause = max(0.2, min(3.0, 2 * seconds / flags.kills))
    lives, runs, bad = disturb(flags, words_of, counts, pause)
    found = [compare(run, quiet) for run in runs]
    hits = [life for life in lives if life.hit is not None]
    exact = counts == [1]
    good = not bad and all(
        one['same data position']
        and one['steps'][0] == one['steps'][1]
        and (not exact or (one['same bytes of metrics.jsonl'] and one['same bits of all arrays']))
        and one['losses, largest relative difference'] <= flags.tolerance
        for one in found
    )
    report = {
        'kills': len(hits),
        'by moment': {m: sum(life.moment == m for life in hits) for m in MOMENTS},
        'by signal': {s: sum(life.signal == s for life in hits) for s in ('SIGKILL', 'SIGTERM')},
        'processes': counts,
        'longest that a process outlived a signal, s': max(life.outlived for life in hits),
        'unreadable checkpoints': bad,
        'runs': found,
        'good': good,
        'lives': [dataclasses.asdict(life) for life in lives],
    }
    files.write_text(root / 'report.json', json.dumps(report, indent=2) + '\n')
    lines = [
        f'- {name}: {value}' for name, value in report.items() if name not in ('lives', 'runs')
    ]
    lines += [f'- run {k}: {one}' for k, one in enumerate(found)]
    files.write_text(root / 'report.md', '\n'.join(lines) + '\n')
    print('\n'.join(lines))
    if good:
        shutil.rmtree(root / 'logs')
    return 0 if good else 1


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line and exits."""
    flags = parser().parse_args(argv)
    common.run(lambda: drill(flags))


if __name__ == '__main__':
    main()
