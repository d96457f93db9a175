"""What the digests of a checkpoint cost: saves with and without them, in turns.

    python -m experiments.speed.save_digests [--config=sudoku_extreme_1k --config=arc1] [--rounds=3]

For each configuration the whole training state is made (nothing is trained) and saved to a folder
that is removed afterwards. Two times are taken of every save: for how long training waits (the copy
of the state, and the start of what the devices compute), and until it is on the disk and was
checked.
"""

import argparse
from collections.abc import Sequence
import contextlib
import dataclasses
import importlib
from pathlib import Path
import statistics
import sys
import tempfile
import time
from unittest import mock

import jax

from hrm_jax import partitioning, train_state
from hrm_jax.checkpoint import digests
from hrm_jax.checkpoint import saver as saver_lib
from hrm_jax.config import CheckpointConfig, ExperimentConfig

# Sizes of the data sets that the shipped configurations are for.
_SIZES = {
    'sudoku_extreme_1k': {'vocab_size': 11, 'seq_len': 81, 'num_puzzle_identifiers': 1},
    'arc1': {'vocab_size': 12, 'seq_len': 900, 'num_puzzle_identifiers': 876_412},
}


def _experiment(name: str, identifiers: int, rows: int) -> ExperimentConfig:
    module = importlib.import_module(f'configs.{name}')
    config = ExperimentConfig.from_dict(module.get_config().to_dict())
    sizes = _SIZES[name] | ({'num_puzzle_identifiers': identifiers} if identifiers else {})
    train = dataclasses.replace(config.train, global_batch_size=rows)
    return dataclasses.replace(config, model=config.model.for_dataset(**sizes), train=train)


def _save(folder: Path, config: ExperimentConfig, state, with_digests: bool) -> tuple[float, float]:
    """Returns the seconds that training waits, and until the checkpoint is on the disk."""
    none = mock.patch.object(saver_lib.digests, 'start', return_value=digests.Pending({}))
    meta = {'step': 1, 'config': config.to_dict(), 'dataset': {}, 'metrics': {}}
    with (
        saver_lib.Saver(folder, CheckpointConfig(), log=lambda _: None) as saver,
        contextlib.nullcontext() if with_digests else none,
    ):
        began = time.perf_counter()
        saver.save(state, {}, meta)
        waits = time.perf_counter() - began
        saver.wait()
        return waits, time.perf_counter() - began


def measure(config: ExperimentConfig, rounds: int) -> str:
    """Returns a row of the table for one configuration."""
    state = jax.block_until_ready(train_state.create(config, partitioning.make_mesh()))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state.replace(rng=None)))
    times: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for number in range(rounds + 1):
        for with_digests in (True, False):
            with tempfile.TemporaryDirectory(dir='.') as folder:
                found = _save(Path(folder), config, state, with_digests)
            if number:  # the first round compiles
                times[with_digests].append(found)
    medians = [
        f'{statistics.median(one[part] for one in times[how]):.2f}'
        for part in (0, 1)
        for how in (False, True)
    ]
    return f'| {config.name} | {size / 1e6:,.0f} MB | {" | ".join(medians)} |'


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a table of seconds, medians over the rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--config', action='append', choices=sorted(_SIZES))
    parser.add_argument('--identifiers', type=int, default=0, help='rows of the puzzle table')
    parser.add_argument('--rows', type=int, default=8, help='batch size: of the carry')
    parser.add_argument('--rounds', type=int, default=3)
    flags = parser.parse_args(argv)
    print(
        '| configuration | state | training waits, without | with | on the disk, without | with |'
        '\n|---|---|---|---|---|---|'
    )
    for name in flags.config or _SIZES:
        experiment = _experiment(name, flags.identifiers, flags.rows)
        print(measure(experiment, flags.rounds), flush=True)


if __name__ == '__main__':
    sys.exit(main())
