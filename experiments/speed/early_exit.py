"""Early exit with slot refill against fixed numbers of steps, on a trained model.

    python -m experiments.speed.early_exit --checkpoint=runs/quickstart-seed0 [--repeat=10]

Answers the test set over and over and prints for every way the accuracy, the mean ACT steps and
the puzzles per second, by the clock and by the processor's time (which other programs on the
machine disturb less). Fixed steps run through the same loop, in which no puzzle leaves early.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import itertools
import json
import sys
import time
from typing import Any

import jax
import numpy as np

from hrm_jax import files
from hrm_jax.cli import common
from hrm_jax.data import puzzles as puzzles_lib
from hrm_jax.data import records
from hrm_jax.errors import UserError
from hrm_jax.inference import early_exit, rules_exit
from hrm_jax.inference.solver import Solver
from hrm_jax.types import IGNORE_LABEL_ID, Batch


def batches(solver: Solver, data: str, count: int, repeat: int, size: int) -> list[Batch]:
    """Returns the test set (``count`` of it; 0: all), ``repeat`` times, in ``size`` rows."""
    dataset = records.load(data or solver.config.data.path, 'test')
    one = next(iter(dataset.sets.values()))
    chosen = np.arange(min(count or one.num_examples, one.num_examples))
    inputs, labels = puzzles_lib.stored_examples(one, dataset.metadata, chosen)
    ignored = labels == dataset.metadata.ignore_label_id
    labels = np.where(ignored, IGNORE_LABEL_ID, labels.astype(np.int32))
    ids = one.puzzle_identifiers[one.owners(chosen)[0]]
    whole = [np.concatenate([part] * repeat).astype(np.int32) for part in (inputs, labels, ids)]
    return [
        Batch(*(part[start : start + size] for part in whole))
        for start in range(0, len(whole[0]), size)
    ]


def measure(
    solver: Solver,
    work: list[Batch],
    halting: str,
    steps: int,
    slots: int,
    flags: argparse.Namespace,
) -> dict[str, Any]:
    """Answers everything ``flags.rounds`` times; the fastest round counts."""
    by_rules = halting == 'rules'
    rule = dataclasses.replace(solver.config.act, halting='fixed' if by_rules else halting)
    config = dataclasses.replace(solver.config, act=rule).with_eval_steps(steps)
    solved = rules_exit.of_task(solver.task) if by_rules else None
    worker = early_exit.Worker(config, solver.mesh, slots, flags.queue, solved)
    rows, clock, processor = sum(len(batch.inputs) for batch in work), [], []
    for _ in range(flags.rounds + 1):  # the first one compiles
        began, used = time.perf_counter(), time.process_time()
        sums = [part for _, part in worker.answer(solver.weights, work)]
        clock.append(time.perf_counter() - began)
        processor.append(time.process_time() - used)
    total = jax.tree.map(lambda *parts: float(sum(parts)), *sums)
    return {
        'halting': halting,
        'longest': steps,
        'slots': slots,
        'exact_accuracy': total.exact_accuracy / total.count,
        'mean_steps': total.steps / total.count,
        'puzzles_per_second': rows / min(clock[1:]),
        'puzzles_per_processor_second': rows / min(processor[1:]),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measures every way; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog='python -m experiments.speed.early_exit', description=__doc__
    )
    parser.add_argument('--checkpoint', required=True, help='folder of a run or checkpoint')
    parser.add_argument('--data', default='', help='data set (default: the one trained on)')
    parser.add_argument('--puzzles', type=int, default=0, help='the first ones only; 0: all')
    parser.add_argument('--repeat', type=int, default=10, help='times the test set is answered')
    parser.add_argument('--rounds', type=int, default=3, help='measurements; the best counts')
    parser.add_argument(
        '--slots', type=int, nargs='+', default=[256], help='puzzles in progress at a time'
    )
    parser.add_argument(
        '--halting', nargs='+', metavar='RULE',
        help='only these, at the depth as trained: fixed, rules (as soon as the answer obeys those '
        'of the task), q_learning, ... (default: all depths, and the rule of the model)',
    )  # fmt: skip
    parser.add_argument('--queue', type=int, default=2048)
    parser.add_argument('--output', help='writes the table as JSON')
    flags = parser.parse_args(argv)
    common.quiet_orbax()
    try:
        solver = Solver.from_checkpoint(flags.checkpoint)
        work = batches(solver, flags.data, flags.puzzles, flags.repeat, flags.queue)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    trained = solver.config.act.halt_max_steps
    ways = [('fixed', steps) for steps in (*range(1, trained + 1), 2 * trained, 4 * trained)]
    ways += [(solver.config.act.halting, trained * factor) for factor in (1, 2, 4)]
    if flags.halting:
        ways = [(halting, solver.config.eval_steps) for halting in flags.halting]
    table = []
    print('halting     longest  slots  exact    steps    puzzles/s  puzzles/processor s')
    for slots, (halting, steps) in itertools.product(flags.slots, ways):
        row = measure(solver, work, halting, steps, slots, flags)
        table.append(row)
        print(
            f'{halting:11} {steps:7}  {slots:5}  {row["exact_accuracy"]:.4f}  '
            f'{row["mean_steps"]:7.3f}  {row["puzzles_per_second"]:9.0f}  '
            f'{row["puzzles_per_processor_second"]:9.0f}',
            flush=True,
        )
    if flags.output:
        content = {'device': jax.devices()[0].device_kind, 'rows': table}
        files.write_text(flags.output, json.dumps(content, indent=2) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
