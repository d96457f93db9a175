"""Every kind of model from the command line, small: trained whole, resumed, evaluated.

    python -m experiments.family_runs                       # all kinds
    python -m experiments.family_runs --only sudoku_sru sudoku_srupp

Every kind starts from its file in configs/ and runs four commands of ``hrm_jax.main``: a whole run;
the first half of the same run; the same command again, which resumes; and --mode=eval. The two
logs must be equal byte for byte, and the evaluation must give what the run gave. Prints a table.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import json
from pathlib import Path
import re
import subprocess
import sys
import tempfile
import time

from data_builders import pathfinding, sudoku

TRAIN, TEST, BATCH, EPOCHS = 64, 32, 16, 2
# Over the settings of the file. Batch, epochs and evaluations make two equal halves.
SMALL = {
    'model.hidden_size': 32, 'model.num_heads': 2, 'model.H_layers': 1, 'model.L_layers': 1,
    'model.intermediate_size': 64, 'act.halt_max_steps': 2, 'train.global_batch_size': BATCH,
    'train.epochs': EPOCHS, 'train.eval_interval': 1, 'train.log_every_steps': 1,
    'optimizer.lr': 1e-3, 'optimizer.lr_warmup_steps': 0, 'logging.tensorboard': False,
    'data.augmentation': 'stored',
}  # fmt: skip
PUZZLE_VECTOR = {'model.puzzle_emb_ndim': 32}


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of model: its configuration, what it learns here, and settings of its own."""

    config: str
    task: str = 'sudoku'
    puzzle_vector: bool = True
    steps_per_batch: int = 1

    def flags(self, data: Path) -> list[str]:
        """The flags of ``hrm_jax.main`` for this kind."""
        values = {**SMALL, **(PUZZLE_VECTOR if self.puzzle_vector else {}), 'data.path': data}
        return ['--cpu-devices=1', f'--config=configs/{self.config}.py',
                *(f'--config.{key}={value}' for key, value in values.items())]  # fmt: skip

    @property
    def steps(self) -> int:
        """Train steps of a whole run."""
        return TRAIN // BATCH * EPOCHS * self.steps_per_batch


def _path(config: str) -> Kind:
    return Kind(config, 'pathfinding', puzzle_vector=False, steps_per_batch=2)


KINDS = (
    Kind('sudoku_extreme_1k'), Kind('sudoku_hrm_mlp'), Kind('sudoku_trm_att'),
    Kind('sudoku_trm_mlp'), Kind('sudoku_trm_singlez'), Kind('sudoku_trm_sixz'),
    Kind('sudoku_transformer'), Kind('sudoku_urm'), Kind('sudoku_sru'), Kind('sudoku_srupp'),
    Kind('sudoku_se_rrm', puzzle_vector=False), Kind('sudoku9_cpu', puzzle_vector=False),
    Kind('sudoku_ldt', puzzle_vector=False),
    _path('pathfinding_hl'),
    _path('pathfinding_h_only_detached'), _path('pathfinding_h_only_bptt'),
)  # fmt: skip


class RunError(RuntimeError):
    """A command failed, or its numbers are not those of the whole run."""


def build(task: str, folder: Path) -> Path:
    """Makes a small data set unless it is there."""
    output = folder / task
    if output.exists():
        return output
    if task == 'sudoku':
        sudoku.build(str(output), source='generated', size=4, train_count=TRAIN,
                     test_count=TEST, show=False)  # fmt: skip
    else:
        pathfinding.build(str(output), board_size=4, train_count=TRAIN, val_count=TEST, show=False)
    return output


def _command(flags: Sequence[str]) -> str:
    command = [sys.executable, '-m', 'hrm_jax.main', *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError(f'{" ".join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}')
    return done.stdout


def check(kind: Kind, folder: Path) -> dict[str, float]:
    """Runs the four commands of a kind.

    Returns:
      'first' and 'last' loss over the tokens in training, 'loss' of the last evaluation, and
      'seconds' of the four commands.

    Raises:
      RunError: a command failed, or the interrupted run is not the whole one.
    """
    began = time.perf_counter()
    flags = kind.flags(build(kind.task, folder))
    whole, cut = folder / kind.config / 'whole', folder / kind.config / 'cut'
    _command([*flags, f'--workdir={whole}'])
    half = kind.steps // 2
    _command([*flags, f'--workdir={cut}', f'--config.train.max_steps={half}'])
    resumed = _command([*flags, f'--workdir={cut}'])
    if f'resumed from step {half} ' not in resumed:
        raise RunError(f'{kind.config} did not resume from step {half}:\n{resumed}')
    logs = [(run / 'metrics.jsonl').read_text() for run in (whole, cut)]
    if logs[0] != logs[1]:
        raise RunError(f'{kind.config}: the logs of {whole} and {cut} differ')
    records = [json.loads(line) for line in logs[0].splitlines()]
    if len(records) != kind.steps:
        raise RunError(f'{kind.config}: {kind.steps} steps must be logged; got {len(records)}')
    text = _command([*flags, f'--workdir={cut}', '--mode=eval'])
    # Searches have no loss: the calls that a puzzle took.
    name = next(n for n in ('eval/all/lm_loss', 'eval/all/rounds') if n in records[-1])
    seen = float(re.search(rf'{name} +(\S+)', text)[1])
    wanted = records[-1][name]
    if abs(seen - wanted) > 1e-4 * abs(wanted):
        raise RunError(f'{kind.config}: --mode=eval gives {name} {seen}, the run {wanted}')
    return {
        'first': records[0]['train/lm_loss'],
        'last': records[-1]['train/lm_loss'],
        'loss': wanted,
        'seconds': time.perf_counter() - began,
    }


def main(arguments: Sequence[str]) -> int:
    """Checks the kinds and prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog='python -m experiments.family_runs', description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    names = [kind.config for kind in KINDS]
    parser.add_argument('--only', nargs='+', choices=names, default=names, metavar='CONFIG')
    flags = parser.parse_args(arguments)
    failed = 0
    print('| config | steps | loss, first step | last | evaluation | seconds |', flush=True)
    print('|---|---|---|---|---|---|')
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            if kind.config not in flags.only:
                continue
            try:
                found = check(kind, Path(folder))
            except RunError as error:
                failed += 1
                print(f'error: {error}', file=sys.stderr)
                continue
            print(
                f'| {kind.config} | {kind.steps} | {found["first"]:.3f} | {found["last"]:.3f} '
                f'| {found["loss"]:.3f} | {found["seconds"]:.0f} |',
                flush=True,
            )
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
