r"""One set of weights for Sudokus of several sizes: trained on some, tested on others, too.

    python -m experiments.sudoku_sizes runs/sudoku_sizes

Trains ``configs/sudoku9_cpu.py``, none of whose weights depends on the size of the board, on 4x4,
6x6 and 9x9 boards in turns: a round has some steps on each size, every part begins with the weights
of the part before it, and the last part of a round is the largest size. After every round all sizes
are tested, and 16x16, which is never trained on. The same command resumes; the table is
WORKDIR/sizes.md, beside the installed model, which was trained on 9x9 boards alone.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import json
from pathlib import Path

from configs import sudoku9_cpu
from data_builders import sudoku
from hrm_jax import eval_checkpoint, files, train
from hrm_jax.checkpoint import layout
from hrm_jax.cli import common
from hrm_jax.config import ExperimentConfig
from hrm_jax.errors import WorkdirError
from hrm_jax.interop import pretrained
from hrm_jax.run import backend, kept_memory

TRAINED = {4: 50, 6: 100, 9: 250}  # size -> steps of a round
TESTED = (*TRAINED, 16)
_DEEPER = 4  # times the 16 steps of the evaluation
Log = Callable[[str], None]


def experiment(data: Path, size: int, steps: int, is_first: bool) -> ExperimentConfig:
    """The experiment of one part of a round; its set holds boards of ``size``."""
    config = ExperimentConfig.from_dict(sudoku9_cpu.get_config())
    # Of small boards there are so few that the symmetries of one lead to those of the tests; the
    # builder has left these out of what it stores.
    augmentation = config.data.augmentation if size >= 9 else 'stored'
    warmup = config.optimizer.lr_warmup_steps if is_first else 10  # moments begin anew
    return dataclasses.replace(
        config, name='sudoku_sizes',
        data=dataclasses.replace(
            config.data, path=str(data / str(size)), augmentation=augmentation
        ),
        optimizer=dataclasses.replace(config.optimizer, lr_warmup_steps=warmup),
        train=dataclasses.replace(config.train, epochs=100_000, eval_interval=0, max_steps=steps),
        checkpoint=dataclasses.replace(config.checkpoint, every_steps=0, keep_best=0),
        logging=dataclasses.replace(config.logging, tensorboard=False),
        eval=dataclasses.replace(config.eval, max_examples=config.eval.global_batch_size),
    )  # fmt: skip


def build(data: Path, counts: Mapping[int, tuple[int, int]]) -> None:
    """Builds a set for every size that is not there; ``counts``: boards to train on and to test."""
    for size, (train_count, test_count) in counts.items():
        if not (data / str(size)).exists():
            sudoku.build(
                str(data / str(size)), source='generated', size=size, train_count=train_count,
                test_count=test_count, num_aug=20 if size in TRAINED else 0,
            )  # fmt: skip


def train_rounds(
    workdir: Path, rounds: int, scale: float, log: Log, tested: Callable[[int, str], None]
) -> str:
    """Trains, and calls ``tested`` with the number and the last part of every round.

    Returns:
      The signal that ended it, '' where all rounds are done.
    """
    before = ''
    for number in range(1, rounds + 1):
        for size, steps in TRAINED.items():
            run, steps = workdir / f'round_{number}_{size}', max(1, round(steps * scale))
            if steps not in layout.steps(run):
                config = experiment(workdir / 'data', size, steps, not before)
                outcome = train.train(config, run, before, log)
                if outcome.signal:
                    return outcome.signal
            before = str(run)
        tested(number, before)
    return ''


def test(workdir: Path, checkpoint: str, log: Log) -> dict[str, dict[str, float]]:
    """Share of the test boards that a checkpoint solves: size -> '16' and '64' steps -> 0..1."""
    found = {}
    for size in TESTED:
        config = ExperimentConfig.from_dict(sudoku9_cpu.get_config())
        config = dataclasses.replace(
            config,
            data=dataclasses.replace(config.data, path=str(workdir / 'data' / str(size))),
            eval=dataclasses.replace(config.eval, max_examples=0, depth_multiples=(_DEEPER,)),
        )
        values = eval_checkpoint.evaluate_checkpoint(config, workdir, checkpoint, log)
        usual = config.eval_steps
        found[str(size)] = {
            str(usual): values['eval/all/exact_accuracy'],
            str(usual * _DEEPER): values[f'eval/all/acc{_DEEPER}x'],
        }
    return found


def table(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """The results as Markdown: a row for every checkpoint, a column for every size and depth."""
    columns = [f'{size}x{size}, {depth} steps' for size in TESTED
               for depth in next(iter(results.values()))[str(size)]]  # fmt: skip
    lines = [f'| weights | {" | ".join(columns)} |', f'|{" --- |" * (len(columns) + 1)}']
    for name, found in results.items():
        cells = [f'{found[str(size)][depth]:.1%}' for size in TESTED for depth in found[str(size)]]
        lines.append(f'| {name} | {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog='python -m experiments.sudoku_sizes', description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument('workdir', type=Path)
    parser.add_argument('--rounds', type=int, default=4)
    parser.add_argument('--scale', type=float, default=1.0, help='of the steps of every part')
    parser.add_argument('--boards', type=int, default=4000, help='to train on, of each size')
    parser.add_argument('--tests', type=int, default=200, help='boards to test, of each size')
    flags = parser.parse_args(argv)
    common.quiet_orbax()
    backend.enable_compilation_cache()
    workdir = flags.workdir.absolute()
    workdir.mkdir(parents=True, exist_ok=True)
    counts = {size: (flags.boards if size in TRAINED else 1, flags.tests) for size in TESTED}
    build(workdir / 'data', counts)
    largest = max(TRAINED)
    kept_memory.keep(experiment(workdir / 'data', largest, TRAINED[largest], is_first=True))
    log = functools.partial(print, flush=True)
    path = workdir / 'sizes.json'
    results = files.read_json(path, WorkdirError, dict) if path.exists() else {}

    def tested(name: str, checkpoint: str) -> None:
        if name not in results:
            results[name] = test(workdir, checkpoint, log)
            files.write_text(path, json.dumps(results, indent=1) + '\n')

    tested('installed, 9x9 alone', str(pretrained.find(pretrained.DEFAULT)))
    signal = train_rounds(
        workdir, flags.rounds, flags.scale, log,
        lambda number, checkpoint: tested(f'round {number}', checkpoint),
    )  # fmt: skip
    text = table(results)
    files.write_text(workdir / 'sizes.md', text)
    print(text)
    return common.EXIT_CODES.get(signal, 0)


if __name__ == '__main__':
    common.run(main)
