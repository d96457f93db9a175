"""Trains a small HRM, solves held-out Sudokus with it, and draws pictures.

    python -m experiments.quickstart --seed=0        (make quickstart sets everything up first)

Builds 4x4 Sudokus, trains with configs/quickstart.py through the normal trainer, evaluates on
puzzles whose solutions never occur in training, and shows one of them being solved. A second
start resumes where the first one stopped, or shows the result again.
"""

import argparse
from collections.abc import Iterator, Sequence
import contextlib
from pathlib import Path
import sys
import time

import numpy as np

from hrm_jax.cli import common
from hrm_jax.errors import UsageError

TRAIN_PUZZLES, TEST_PUZZLES = 10_000, 1_000


class Stopwatch:
    """Records how long each part takes.

    Args:
      started: time.time() of the moment that counts as the beginning; 0: now.
    """

    def __init__(self, started: float):
        now = time.time()
        self._started = started or now
        self.parts = {'set-up': now - started} if started else {}

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Adds the time of a with block to a part."""
        began = time.time()
        yield
        self.parts[name] = self.parts.get(name, 0.0) + time.time() - began

    def __str__(self) -> str:
        parts = ', '.join(f'{name} {seconds:.0f} s' for name, seconds in self.parts.items())
        return f'{parts}; {time.time() - self._started:.0f} s in all'


def build_puzzles(path: Path, seed: int) -> None:
    """Makes the data set unless it is there already."""
    from data_builders import sudoku
    from hrm_jax.data import records

    if path.exists():
        records.check_manifest(path)
        print(f'puzzles: {path} is there already')
        return
    print(f'puzzles: making {TRAIN_PUZZLES:,} for training and {TEST_PUZZLES:,} for testing')
    sudoku.build(
        str(path), source=sudoku.GENERATED, size=4, seed=seed,
        train_count=TRAIN_PUZZLES, test_count=TEST_PUZZLES, show=False,
    )  # fmt: skip


def all_examples(dataset) -> tuple[np.ndarray, np.ndarray]:
    """Returns questions and answers [N, S] of a split, every augmentation written out."""
    from hrm_jax.data import puzzles

    pairs = [
        puzzles.stored_examples(one, dataset.metadata, np.arange(one.num_examples))
        for one in dataset.sets.values()
    ]
    return tuple(np.concatenate(part).astype(np.int32) for part in zip(*pairs, strict=True))


def require_unseen(train_answers_NS: np.ndarray, test_answers_NS: np.ndarray) -> str:
    """Returns a sentence on the test solutions.

    Raises:
      DatasetError: a test solution is the solution of a training puzzle as well.
    """
    from hrm_jax.errors import DatasetError

    train = {row.tobytes() for row in train_answers_NS}
    test = {row.tobytes() for row in test_answers_NS}
    if shared := train & test:
        raise DatasetError(
            f'{len(shared)} of the {len(test)} test solutions occur in training, so the test '
            f'would prove nothing. Remove the data set and run this again.'
        )
    return f'{len(train)} training solutions, {len(test)} test solutions, none in common'


def show_one_puzzle(plan, before, after, inputs, labels, folder: Path) -> list[Path]:
    """Prints an unseen puzzle with the answers of two sets of weights, and draws the steps."""
    from hrm_jax.visualize import boards, figures, trace

    task = plan.eval_data.metadata.task_of()
    ids = np.zeros(len(inputs), np.int32)
    seen = trace.trace(plan.config, after, inputs, labels, ids)
    row = trace.most_instructive(seen)
    untrained = trace.trace(plan.config, before, inputs, labels, ids)
    needed = int(np.flatnonzero(~seen.solved[:, row]).max(initial=-1)) + 2
    print(
        f'\nOf the first {len(inputs)} unseen puzzles the one that takes it longest, right after '
        f'step {needed} of {seen.num_steps}:\n'
        if seen.solved[-1, row]
        else '\nAn unseen puzzle, which it does not solve:\n'
    )
    titles = ('puzzle', 'before training', 'after training', 'solution')
    tokens = (inputs[row], untrained.predictions[-1, row], seen.predictions[-1, row], labels[row])
    print(boards.side_by_side(titles, [boards.board_lines(t, task) for t in tokens]))
    figure = figures.draw_reasoning(seen, row, task, title='An unseen puzzle, step by step')
    return [figures.save(figure, folder / 'reasoning.png')]


def draw_learning_curve(folder: Path) -> list[Path]:
    """Draws the metrics of a run; returns the pictures."""
    from hrm_jax.run import writers
    from hrm_jax.visualize import figures

    records = writers.read_records(folder / 'metrics.jsonl')
    figure = figures.draw_learning_curve(records, title='Learning 4x4 Sudoku')
    return [figures.save(figure, folder / 'learning_curve.png')]


def command(seed: int, started: float, devices: int | None = None) -> int:
    """Builds, trains, evaluates and draws; returns the exit code.

    Args:
      devices: that the CPU is split into; None: those of the run, or one.
      seed: of the puzzles and of the training.
      started: Unix time at which the set-up began; 0: now.
    """
    UsageError.require(seed >= 0, f'--seed must not be negative; got {seed}.')
    clock = Stopwatch(started)
    data = Path(f'data/sudoku-4x4-seed{seed}')
    folder = Path(f'runs/quickstart-seed{seed}')
    print(f'hrm_jax quickstart with seed {seed}: data in {data}, results in {folder}')
    with clock.part('start'):
        from configs import quickstart
        from hrm_jax import train, train_state
        from hrm_jax.config import ExperimentConfig
        from hrm_jax.run import backend, cpu_devices, kept_memory, plan

        backend.enable_compilation_cache()
        settings = quickstart.get_config()
        settings.seed, settings.data.path = seed, str(data)
        config = ExperimentConfig.from_dict(settings)
        kept_memory.keep(config)
        choice = cpu_devices.choose(config, devices, cpu_devices.recorded(folder))
        choice = cpu_devices.apply(choice)
    with clock.part('puzzles'):
        build_puzzles(data, seed)
        config = cpu_devices.settled(config, choice)
        ready = plan.make_plan(config)
        train_answers = all_examples(ready.train_data)[1]
        inputs, labels = all_examples(ready.eval_data)
        print(f'puzzles: {require_unseen(train_answers, labels)}')
    with clock.part('training and evaluation'):
        outcome = train.train(config, folder)
    if outcome.signal:
        print(f'Stopped; make quickstart SEED={seed} resumes from here.')
        return 130
    with clock.part('pictures'):
        untrained = train_state.create(ready.config, ready.mesh)
        weights = [
            state.weights.averaged(state.ema if config.eval.use_ema else None)
            for state in (untrained, outcome.state)
        ]
        pictures = show_one_puzzle(ready, *weights, inputs[:200], labels[:200], folder)
        pictures += draw_learning_curve(folder)
    report(ready, outcome, folder, pictures, clock)
    return 0


def report(ready, outcome, folder: Path, pictures: list[Path], clock: Stopwatch) -> None:
    """Prints the result, where everything is stored, and what to do next."""
    share = outcome.metrics['eval/all/exact_accuracy']
    number = ready.eval_data.metadata.total_groups
    seed = ready.config.seed
    run = f'--config=configs/quickstart.py --workdir={folder}'
    if seed:
        run += f' --config.seed={seed} --config.data.path={ready.config.data.path}'
    print(f"""
{share:.1%} of {number:,} unseen puzzles exactly right after {outcome.step:,} steps.
Time: {clock}.

Look at
  {pictures[0]}    the puzzle above after every step of reasoning
  {pictures[1]}    loss and accuracy during training
  {folder}/metrics.jsonl    every number of every step

Next
  evaluate again:   .venv/bin/python -m hrm_jax.main {run} --mode=eval
  another seed:     make quickstart SEED={seed + 1}
  start over:       rm -r {folder}
  your own run:     .venv/bin/python -m hrm_jax.main --config=configs/quickstart.py \\
                      --workdir=runs/mine --config.model.hidden_size=96 --config.train.epochs=12
  real puzzles:     README.md, and the first lines of configs/sudoku_extreme_1k_laptop.py""")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line and exits."""
    parser = argparse.ArgumentParser(
        prog='python -m experiments.quickstart',
        description=__doc__,
        formatter_class=common.HelpFormatter,
    )
    add = parser.add_argument
    add('--seed', type=int, default=0, help='seed of the puzzles and of the training')
    add('--started', type=float, default=0, help='Unix time at which the set-up began; 0: now')
    add(
        '--cpu-devices', type=int,
        help='devices that the CPU is split into (default: 1, or those of the run)',
    )  # fmt: skip
    flags = parser.parse_args(common.hyphenated(sys.argv[1:] if argv is None else argv))
    common.run(lambda: command(flags.seed, flags.started, flags.cpu_devices))


if __name__ == '__main__':
    main()
