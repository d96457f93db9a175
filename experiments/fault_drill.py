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

import dataclasses
import itertools
import json
import os
from pathlib import Path
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

from absl import flags

from hrm_jax import command_line
from hrm_jax.config import ConfigError

FLAGS = flags.FLAGS
EVERY = 20  # steps between checkpoints
BATCH, TRAIN_PUZZLES = 8, 400
MOMENTS = ('starting', 'running', 'saving', 'evaluating')


def define_flags() -> None:
    if 'kills' in FLAGS:
        return
    flags.DEFINE_string('workdir', 'runs/fault_drill', 'Where everything is written.')
    flags.DEFINE_integer('kills', 50, 'How many kills.', lower_bound=1)
    flags.DEFINE_list('processes', ['1'], 'Processes of the first life, of the second, ...')
    flags.DEFINE_integer('steps', 1500, 'Train steps of a run.', lower_bound=EVERY)
    flags.DEFINE_integer('seed', 0, 'Of the moments.')
    flags.DEFINE_float('limit', 75.0, 'Seconds that a process may outlive another one.')
    flags.DEFINE_float('tolerance', 1e-5, 'Relative, where the number of processes differs.')


@dataclasses.dataclass
class Life:
    """One start of the run.

    Attributes:
      processes: how many it has.
      hit: process that the signal goes to; None: nobody disturbs it.
      signal: name of the signal.
      moment: of MOMENTS, when it came.
      codes: exit codes.
      outlived: seconds until the last process had ended after the signal.
    """

    processes: int
    hit: int | None = None
    signal: str = ''
    moment: str = ''
    codes: tuple[int, ...] = ()
    outlived: float = 0.0


def command(data: Path, run: Path, steps: int) -> list[str]:
    """The command line of one process; total steps are set through the epochs."""
    per_epoch = TRAIN_PUZZLES // BATCH
    epochs = max(2, -(-steps // per_epoch) // 2 * 2)
    return [
        sys.executable, '-m', 'hrm_jax.main', '--config=configs/quickstart.py',
        f'--workdir={run}', f'--config.data.path={data}', '--config.model.hidden_size=32',
        '--config.model.intermediate_size=64', '--config.model.puzzle_emb_ndim=32',
        f'--config.train.global_batch_size={BATCH}', f'--config.train.epochs={epochs}',
        '--config.train.eval_interval=2', f'--config.train.max_steps={steps}',
        f'--config.checkpoint.every_steps={EVERY}', '--config.eval.global_batch_size=16',
        '--config.logging.tensorboard=False', '--heartbeat_timeout=10', '--start_timeout=45',
    ]  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def start(words: list[str], processes: int, devices: int, logs: Path) -> list[subprocess.Popen]:
    """Starts all processes of a life; their output goes to files in ``logs``."""
    logs.mkdir(parents=True)
    port = free_port()
    environment = dict(
        os.environ,
        JAX_PLATFORMS='cpu',
        XLA_FLAGS=f'--xla_force_host_platform_device_count={devices // processes}',
    )
    started = []
    for number in range(processes):
        own = [] if processes == 1 else [
            f'--coordinator_address=127.0.0.1:{port}', f'--num_processes={processes}',
            f'--process_id={number}',
        ]  # fmt: skip
        with (logs / f'{number}.txt').open('w') as file:
            started.append(
                subprocess.Popen([*words, *own], stdout=file, stderr=file, env=environment)
            )
    return started


def wait_for_moment(moment: str, life: list, logs: Path, run: Path, pause: float) -> bool:
    """Returns when the moment has come, False if the run ended before."""

    def text() -> str:
        return (logs / '0.txt').read_text(errors='replace')

    def saving() -> bool:
        return any((run / 'checkpoints').glob('*.orbax-checkpoint-tmp*'))

    ready = {
        'starting': lambda: True,
        'running': lambda: 'ran the first step' in text(),
        'saving': saving,
        'evaluating': lambda: 'evaluate:' in text(),
    }[moment]
    while not ready():
        if life[0].poll() is not None:
            return False
        time.sleep(0.002 if moment == 'saving' else 0.02)
    if moment in ('starting', 'running'):
        time.sleep(pause)
    return life[0].poll() is None


def end_of(life: list[subprocess.Popen], limit: float) -> tuple[int, ...]:
    """Waits for all processes.

    Raises:
      ConfigError: one is still there after ``limit`` seconds; it is killed.
    """
    deadline = time.monotonic() + limit
    try:
        return tuple(p.wait(max(0.1, deadline - time.monotonic())) for p in life)
    except subprocess.TimeoutExpired:
        for process in life:
            process.kill()
        raise ConfigError(f'a process was still running after {limit:.0f} s') from None


def live(words, processes, devices, logs, run, rng, pause, kills_left) -> tuple[Life, bool]:
    """One life; returns it and whether the run has ended."""
    life = Life(processes)
    started = start(words, processes, devices, logs)
    if kills_left:
        life.moment = rng.choice(MOMENTS)
        longest = 5.0 if life.moment == 'starting' else pause
        if wait_for_moment(life.moment, started, logs, run, rng.uniform(0, longest)):
            life.hit = rng.randrange(processes)
            life.signal = rng.choice(('SIGKILL', 'SIGTERM'))
            started[life.hit].send_signal(getattr(signal, life.signal))
            began = time.monotonic()
            life.codes = end_of(started, FLAGS.limit)
            life.outlived = time.monotonic() - began
            return life, all(code == 0 for code in life.codes)
    life.codes = end_of(started, 3600)
    if any(life.codes):
        output = (logs / '0.txt').read_text(errors='replace')[-3000:]
        raise ConfigError(f'a life that nobody disturbed ended with {life.codes}:\n{output}')
    return life, True


def unreadable(run: Path) -> list[str]:
    """Checkpoints that have their name and can not be read."""
    from hrm_jax import checkpoint

    bad = []
    for step in checkpoint.steps(run):
        try:
            checkpoint.read_arrays(run / checkpoint.FOLDER / str(step))
        except checkpoint.DamagedCheckpoint as error:
            bad.append(str(error))
    return bad


def compare(run: Path, other: Path) -> dict[str, object]:
    """Compares the ends of two runs: bytes, relative differences, data positions."""
    import jax
    import numpy as np

    from hrm_jax import checkpoint, writers

    lines = [(folder / 'metrics.jsonl').read_bytes() for folder in (run, other)]
    records = [writers.read_records(folder / 'metrics.jsonl') for folder in (run, other)]
    if [r['step'] for r in records[0]] != [r['step'] for r in records[1]]:
        raise ConfigError(f'{run} and {other} do not have the same steps in metrics.jsonl.')
    losses = np.array([[r['train/lm_loss'] for r in one] for one in records])
    folders = [
        folder / checkpoint.FOLDER / str(checkpoint.steps(folder)[-1]) for folder in (run, other)
    ]
    states = [checkpoint.read_arrays(folder) for folder in folders]
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


def disturb(root: Path, words_of, counts, rng, pause) -> tuple[list[Life], list[Path], list[str]]:
    """Lives until all kills are spent and the last run has ended."""
    from hrm_jax.writers import Progress

    lives, runs, bad = [], [], []
    turns = itertools.cycle(counts)
    with Progress('kills', FLAGS.kills, unit='kill') as bar:
        while sum(life.hit is not None for life in lives) < FLAGS.kills:
            run, ended = root / f'run_{len(runs)}', False
            runs.append(run)
            while not ended:
                left = FLAGS.kills - sum(life.hit is not None for life in lives)
                logs = root / 'logs' / f'life_{len(lives)}'
                life, ended = live(
                    words_of(run), next(turns), max(counts), logs, run, rng, pause, left
                )
                lives.append(life)
                bad += unreadable(run)
                if life.hit is not None:
                    bar.update(1, f'{life.signal} while {life.moment}, codes {life.codes}')
    return lives, runs, bad


def main_command() -> int:
    """Does what the flags say; returns the exit code."""
    counts = [int(count) for count in FLAGS.processes]
    devices = max(counts)
    if any(count < 1 or devices % count for count in counts):
        raise ConfigError(f'--processes must divide the largest of them; got {counts}.')
    root = Path(FLAGS.workdir)
    if root.exists():
        raise ConfigError(f'{root} exists. Give another --workdir, or remove it.')
    from data_builders import sudoku

    sudoku.build(
        str(root / 'data'), source=sudoku.GENERATED, size=4, seed=0, train_count=TRAIN_PUZZLES,
        test_count=200, show=False,
    )  # fmt: skip

    def words_of(run):
        return command(root / 'data', run, FLAGS.steps)

    began = time.monotonic()
    quiet = root / 'undisturbed'
    end_of(start(words_of(quiet), 1, devices, root / 'logs' / 'undisturbed'), 3600)
    seconds = time.monotonic() - began
    print(f'undisturbed run: {FLAGS.steps} steps, {seconds:.0f} s', flush=True)
    # Long enough that the kills spread over the run, short enough that all find room in it.
    pause = max(0.2, min(3.0, 2 * seconds / FLAGS.kills))
    lives, runs, bad = disturb(root, words_of, counts, random.Random(FLAGS.seed), pause)
    found = [compare(run, quiet) for run in runs]
    hits = [life for life in lives if life.hit is not None]
    exact = counts == [1]
    good = not bad and all(
        one['same data position']
        and one['steps'][0] == one['steps'][1]
        and (not exact or (one['same bytes of metrics.jsonl'] and one['same bits of all arrays']))
        and one['losses, largest relative difference'] <= FLAGS.tolerance
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
    (root / 'report.json').write_text(json.dumps(report, indent=2))
    lines = [
        f'- {name}: {value}' for name, value in report.items() if name not in ('lives', 'runs')
    ]
    lines += [f'- run {k}: {one}' for k, one in enumerate(found)]
    (root / 'report.md').write_text('\n'.join(lines) + '\n')
    print('\n'.join(lines))
    if good:
        shutil.rmtree(root / 'logs')
    return 0 if good else 1


def main() -> None:
    define_flags()
    command_line.run(main_command, __doc__)


if __name__ == '__main__':
    main()
