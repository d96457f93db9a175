"""The path finding study: train segments, architectures and cycles against each other.

    python -m experiments.pathfinding study --small          # two CPU cores, minutes
    python -m experiments.pathfinding study --seeds 3        # 20x20 boards, for a GPU

Trains every row of the table with every seed, through the trainer of the project, and writes
report.md, results.json and plots into --out. The same command resumes a study that was stopped:
finished runs are read back, an interrupted one continues from its last checkpoint.

Source of the design: krychu/hrm, README (2 test-time segments, acc4x with 8, one update per
segment). Averages are over evaluations: the best one, the best three, the last five.
"""

import argparse
from collections.abc import Iterator, Sequence
import concurrent.futures
import dataclasses
import importlib
import json
import multiprocessing
import os
from pathlib import Path
import shutil
import signal
import sys
import time

from data_builders import pathfinding
from experiments.pathfinding import report
from experiments.pathfinding.report import Result, Row
from hrm_jax import files
from hrm_jax.config import ExperimentConfig

CONFIGS = {
    'H-only (detached)': 'pathfinding_h_only_detached',
    'H-only (bptt)': 'pathfinding_h_only_bptt',
    'H/L': 'pathfinding_hl',
}
# The rows of the study's table; the full run has its other splits of the cycles as well.
H_ONLY = [(2, 2, 2), (2, 2, 4), (4, 2, 2)]
TABLE = [
    *(Row(name, *numbers) for name in ('H-only (detached)', 'H-only (bptt)') for numbers in H_ONLY),
    *(Row('H/L', *numbers) for numbers in ((2, 2, 2), (2, 4, 4), (4, 2, 2), (4, 4, 4))),
]
OTHER_SPLITS = [
    Row('H/L', *numbers) for numbers in ((2, 2, 4), (2, 4, 2), (4, 2, 4), (4, 4, 2))
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Study:
    """Size of the study. The hidden sizes match the two architectures' numbers of parameters."""

    rows: tuple[Row, ...]
    board_size: int
    train_count: int
    val_count: int
    epochs: int
    epochs_per_evaluation: int
    layers: int
    num_heads: int
    hidden_two_modules: int
    hidden_one_module: int
    batch_size: int
    positions: str
    learning_rate: float
    dropout: float
    seeds: int


FULL = Study(
    (*TABLE, *OTHER_SPLITS), 20, 2000, 500, 40, 1, 4, 4, 256, 360, 64, 'rope', 3e-4, 0.1, 3
)
# Learned positions show a small model at once which cells are neighbours.
SMALL = Study(
    tuple(TABLE), 4, 2000, 200, 7, 1, 1, 2, 48, 68, 32, 'rope+learned', 1e-3, 0.0, 2
)  # fmt: skip


def experiment(study: Study, row: Row, seed: int, data: Path) -> ExperimentConfig:
    """The configuration of one run: the file in configs/, at the size of the study."""
    config = importlib.import_module(f'configs.{CONFIGS[row.architecture]}').get_config()
    two = row.architecture == 'H/L'
    config.name, config.seed, config.data.path = row.slug, seed, str(data)
    config.model.hidden_size = study.hidden_two_modules if two else study.hidden_one_module
    config.model.num_heads = study.num_heads
    config.model.H_layers = config.model.L_layers = study.layers
    config.model.H_cycles, config.model.L_cycles = row.H_cycles, row.L_cycles
    config.model.dropout = config.model.attention_dropout = study.dropout
    config.act.halt_max_steps = row.train_segments
    config.model.pos_encodings = study.positions
    config.train.global_batch_size = study.batch_size
    config.optimizer.lr = study.learning_rate
    config.train.epochs = study.epochs
    config.train.eval_interval = study.epochs_per_evaluation
    config.eval.global_batch_size = study.val_count
    config.checkpoint.keep_best = 0
    config.checkpoint.keep_latest = 1
    config.checkpoint.keep_healthy = 0
    config.logging.tensorboard = False
    return ExperimentConfig.from_dict(config)


def run(study: Study, row: Row, seed: int, folder: Path, data: Path) -> Result:
    """Trains one run, or reads its result if it is finished."""
    workdir = folder / 'runs' / f'{row.slug}-seed{seed}'
    finished = workdir / 'result.json'
    if finished.exists():
        return Result.from_json(finished.read_text())
    from hrm_jax import train
    from hrm_jax.run import backend

    backend.enable_compilation_cache()  # the seeds of a row share their programs
    began = time.perf_counter()
    outcome = train.train(experiment(study, row, seed, data), workdir, log=lambda text: None)
    if outcome.signal:
        raise SystemExit(f'{outcome.signal}: the same command resumes {workdir.name}')
    lines = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
    evaluations = [line for line in lines if 'eval/all/exact_accuracy' in line]
    result = Result(
        row=row,
        seed=seed,
        board=[line['eval/all/exact_accuracy'] for line in evaluations],
        deeper=[line['eval/all/acc4x'] for line in evaluations],
        cells=[line['eval/all/accuracy'] for line in evaluations],
        seconds=time.perf_counter() - began,
    )
    files.write_text(finished, result.to_json())
    shutil.rmtree(workdir / 'checkpoints', ignore_errors=True)  # no longer needed to resume
    return result


def _pin(turn) -> None:
    """Gives a worker a core of its own: these models are too small to share out over several."""
    with turn.get_lock():
        number, turn.value = turn.value, turn.value + 1
    if hasattr(os, 'sched_setaffinity'):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[number % len(cores)]})


def _run_in_worker(*arguments) -> Result:
    try:
        return run(*arguments)
    except SystemExit:  # stopped, with a checkpoint: what is queued must not begin
        os._exit(1)


def run_all(
    study: Study, rows: Sequence[Row], folder: Path, data: Path, jobs: int
) -> Iterator[Result]:
    """Runs every row with every seed, and yields the results in the order of the study."""
    todo = [(study, row, seed, folder, data) for seed in range(study.seeds) for row in rows]
    if jobs == 1:
        yield from (run(*arguments) for arguments in todo)
        return
    spawn = multiprocessing.get_context('spawn')
    pool = concurrent.futures.ProcessPoolExecutor(jobs, spawn, _pin, (spawn.Value('i', 0),))
    try:
        yield from pool.map(_run_in_worker, *zip(*todo, strict=True))
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in multiprocessing.active_children():
            worker.terminate()  # the trainer saves where it is
        raise
    finally:
        pool.shutdown()


def _stop(number: int, frame) -> None:
    del frame
    raise SystemExit(128 + number)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the study and writes its report; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog='python -m experiments.pathfinding study',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--small', action='store_true', help='4x4 boards, for two CPU cores')
    parser.add_argument(
        '--seeds', type=int, default=0, help='seeds of each row (small: 2, full: 3)'
    )
    parser.add_argument('--epochs', type=int, default=0, help='(small: 7, full: 40)')
    parser.add_argument('--jobs', type=int, default=0, help='runs at a time (small: 2, full: 1)')
    parser.add_argument('--rows', nargs='+', metavar='SLUG', help='only these rows')
    parser.add_argument('--out', type=Path, help='folder (runs/pathfinding_ablation[_small])')
    args = parser.parse_args(argv)
    study = SMALL if args.small else FULL
    study = dataclasses.replace(
        study, seeds=args.seeds or study.seeds, epochs=args.epochs or study.epochs
    )
    known = {row.slug: row for row in study.rows}
    unknown = sorted(set(args.rows or ()) - set(known))
    if unknown:
        print(f'error: no row {", ".join(unknown)}; known: {", ".join(known)}', file=sys.stderr)
        return 2
    rows = [known[slug] for slug in args.rows or known]
    folder = args.out or Path('runs/pathfinding_ablation' + ('_small' if args.small else ''))
    settings = json.dumps(dataclasses.asdict(dataclasses.replace(study, rows=(), seeds=0)))
    known_settings = folder / 'study.json'
    if known_settings.exists() and known_settings.read_text() != settings:
        print(f'error: {folder} must be of the same study; it has the settings '
              f'{known_settings.read_text()}. Use another --out.', file=sys.stderr)  # fmt: skip
        return 2
    files.write_text(known_settings, settings)
    data = folder / 'data'
    if not data.exists():
        pathfinding.build(
            str(data), board_size=study.board_size, train_count=study.train_count,
            val_count=study.val_count, show=False,
        )  # fmt: skip
    results = []
    signal.signal(signal.SIGTERM, _stop)
    jobs = args.jobs or (2 if args.small else 1)
    for result in run_all(study, rows, folder, data, jobs):
        results.append(result)
        board, deeper = result.board[-1], result.deeper[-1]
        print(f'{result.row.slug:<28} seed {result.seed}: board {board:.3f}, acc4x {deeper:.3f}, '
              f'{result.seconds:.0f} s', flush=True)  # fmt: skip
    text = report.report(results, title=f'{study.board_size}x{study.board_size} boards')
    files.write_text(folder / 'report.md', text)
    content = [dataclasses.asdict(result) for result in results]
    files.write_text(folder / 'results.json', json.dumps(content, indent=1) + '\n')
    report.plots(results, folder)
    print(f'\n{text}\nwrote {folder}/report.md, results.json, rows.png and curves.png')
    return 0


if __name__ == '__main__':
    sys.exit(main())
