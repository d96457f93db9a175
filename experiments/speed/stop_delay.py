"""How long an evaluation takes to end after a stop signal.

    python -m experiments.speed.stop_delay [--case=quickstart:0 --case=sudoku_extreme_1k:8]

For each configuration and evaluation batch size (0: that of the configuration) a model with fresh
weights evaluates generated Sudokus; a SIGTERM comes at a random moment, and the time until the
evaluation has returned is taken. A run then saves and ends.
"""

import argparse
from collections.abc import Callable, Sequence
import dataclasses
import importlib
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from typing import Any

import jax

from data_builders import sudoku
from hrm_jax import evaluate, partitioning, train_state
from hrm_jax.config import ExperimentConfig
from hrm_jax.data import records
from hrm_jax.run import workdir

_SIDES = {'quickstart': 4, 'sudoku_extreme_1k': 9}


def _experiment(name: str, rows: int, data: records.PuzzleDataset) -> ExperimentConfig:
    module = importlib.import_module(f'configs.{name}')
    config = ExperimentConfig.from_dict(module.get_config().to_dict())
    facts = data.metadata
    sizes = {
        name: getattr(facts, name) for name in ('vocab_size', 'seq_len', 'num_puzzle_identifiers')
    }
    model = config.model.for_dataset(**sizes)
    options = dataclasses.replace(
        config.eval, global_batch_size=rows or config.eval_batch_size, max_examples=0
    )
    return dataclasses.replace(config, model=model, eval=options)


def _delay(run: Callable[[Callable[[], bool]], Any], moment: float) -> float | None:
    """Seconds from a SIGTERM to the end of ``run``; None where it had ended before."""
    sent: list[float] = []

    def send() -> None:
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGTERM)

    with workdir.StopRequest() as stop:
        timer = threading.Timer(moment, send)
        timer.start()
        result = run(stop.agreed)
        ended = time.perf_counter()
        timer.cancel()
        timer.join()
    return ended - sent[0] if sent and result is None else None


def measure(case: str, rounds: int, longest: float, rng: random.Random) -> str:
    """Returns a row of the table.

    Args:
      case: name of a configuration, and rows of its evaluation batch.
      rounds: signals.
      longest: seconds from the beginning of an evaluation to the signal, at most.
      rng: draws the moments.
    """
    name, _, rows = case.partition(':')
    with tempfile.TemporaryDirectory() as folder:
        sudoku.build(
            f'{folder}/data', source=sudoku.GENERATED, size=_SIDES[name], seed=0, train_count=2,
            test_count=256, show=False,
        )  # fmt: skip
        data = records.load(f'{folder}/data', 'test')
    config, mesh = _experiment(name, int(rows or 0), data), partitioning.make_mesh()
    weights = train_state.create(config, mesh).weights
    step = evaluate.make_step(config, mesh)

    def run(should_stop: Callable[[], bool]) -> Any:
        return evaluate.evaluate(config, step, weights, data, mesh, should_stop)

    asked: list[float] = []

    def compiled() -> bool:
        asked.append(time.perf_counter())
        return len(asked) > 3

    run(compiled)  # and the time of a call, which is the longest delay
    found: list[float] = []
    while len(found) < rounds:
        began = time.perf_counter()
        if (delay := _delay(run, rng.uniform(0, longest))) is not None:
            found.append(delay)
        longest = min(longest, max(0.01, time.perf_counter() - began))
    count = sum(leaf.size for leaf in jax.tree.leaves(weights.params))
    return (
        f'| {config.name} | {count / 1e6:.2f} M | {config.eval_batch_size} | {rounds} | '
        f'{statistics.median(found):.2f} | {max(found):.2f} |'
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a table of seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--case', action='append', help='CONFIGURATION:ROWS')
    parser.add_argument('--rounds', type=int, default=5, help='signals')
    parser.add_argument('--longest', type=float, default=5.0, help='seconds until a signal')
    flags = parser.parse_args(argv)
    print(
        '| configuration | parameters | rows | signals | delay, median s | longest s |\n'
        '|---|---|---|---|---|---|'
    )
    rng = random.Random(0)
    for case in flags.case or ('quickstart:0', 'sudoku_extreme_1k:8'):
        print(measure(case, flags.rounds, flags.longest, rng), flush=True)


if __name__ == '__main__':
    sys.exit(main())
