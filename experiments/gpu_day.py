"""All that waits for a GPU, in one command: equality, speed, choices, where the time goes.

    python -m experiments.gpu_day --peer ../HRM --peer-python ../torch/bin/python
    python -m experiments.gpu_day --small      # the same parts on any machine, tiny

Runs its parts one after the other, each in a process of its own, the most important ones first; a
part that fails does not end the others, and none begins after --minutes. Writes
OUTPUT/README.md (parts, exit codes, seconds), a log of every part and the tables of the benchmarks.
Exit code 1 where a part failed.
"""

import argparse
from collections.abc import Mapping, Sequence
import dataclasses
import datetime
import os
from pathlib import Path
import shlex
import subprocess
import sys
import time

from hrm_jax import files
from hrm_jax.cli import common

ROOT = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Part:
    """One command.

    Attributes:
      name: of its log.
      purpose: for the table.
      arguments: of ``python -m``.
      environment: variables over those of this process.
    """

    name: str
    purpose: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def command(self) -> str:
        """As one would type it."""
        before = [f'{name}={value}' for name, value in self.environment.items()]
        return ' '.join([*before, 'python -m', shlex.join(self.arguments)])


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a part ended: its exit code (None: not begun, or cut off), and seconds."""

    part: Part
    code: int | None
    seconds: float
    note: str = ''


def parts(output: Path, peer: Sequence[str], peer_python: str, small: bool) -> list[Part]:
    """The parts, in order."""
    large = ['sudoku_extreme_1k:768', 'maze_hard_1k:96']
    configs, quick = (['quickstart:8'], ['--quick']) if small else (large, [])
    timing = ['--rounds', '5', '--seconds', '1.5', *quick]
    peers = [] if not peer else ['--peer', *peer, '--peer-python', peer_python]
    if peers and not small:
        peers += ['--peer-compile', 'sudoku_extreme_1k', 'maze_hard_1k']
    both = ['--program', 'train step', 'eval step']
    fixtures = 'tests/fixtures/core'

    def timed(name: str, *more: str) -> list[str]:
        return ['experiments.benchmark', *both, *timing, *more, '--output', str(output / name)]

    kernels = ['--set', 'model.gated_unit_kernel=pallas', '--attention', 'pallas']
    return [
        Part(
            'core', 'numbers of the core are the original\'s on this device',
            ['experiments.parity', fixtures], {'JAX_DEFAULT_MATMUL_PRECISION': 'highest'},
        ),
        Part(
            'kernels', 'every kernel against float32',
            ['experiments.kernel_equality', *(['--interpret', '--quick'] if small else [])],
        ),
        Part(
            'benchmark', 'speed beside the original, eager and compiled',
            timed('benchmark', '--config', *configs, *peers, '--minutes', '4'),
        ),
        Part(
            'attention', "which attention `auto` should choose",
            timed('attention', '--config', *configs, '--no-bytes', '--attention', 'xla',
                  *([] if small else ['cudnn', 'pallas'])),
        ),
        Part(
            'gated_unit', "whether the gated unit's kernel pays",
            timed('gated_unit', '--config', configs[0], '--no-bytes', *kernels),
        ),
        *(
            Part(
                f'profile_{name}', f'where the time of a train step goes, {attention}',
                ['experiments.speed.step_profile', '--config', configs[0], *quick, *own,
                 '--output', str(output / f'profile_{name}.md')],
            )
            for name, attention, own in (
                ('auto', 'attention=auto', []), ('pallas', 'our kernels', kernels),
            )
        ),
    ]  # fmt: skip


def run(wanted: Sequence[Part], output: Path, seconds: float) -> list[Ending]:
    """Runs parts until the time is up; every part's output goes to the terminal and its log."""
    ends, began = [], time.monotonic()
    for part in wanted:
        left = seconds - (time.monotonic() - began)
        if left <= 0:
            ends.append(Ending(part, None, 0.0, 'not begun: the time was up'))
            continue
        print(f'\n== {part.name}: {part.command}', flush=True)
        first, note = time.monotonic(), ''
        with open(output / f'{part.name}.log', 'w') as log:
            process = subprocess.Popen(
                [sys.executable, '-m', *part.arguments], cwd=ROOT, stdout=log,
                stderr=subprocess.STDOUT, env={**os.environ, **part.environment},
            )  # fmt: skip
            try:
                code = process.wait(left)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                code, note = None, 'cut off: the time was up'
        tail = (output / f'{part.name}.log').read_text(errors='replace').splitlines()[-3:]
        spent = time.monotonic() - first
        ends.append(Ending(part, code, spent, note))
        print('\n'.join(tail), f'\n{part.name}: exit code {code}, {spent:.0f} s', flush=True)
    return ends


def page(ends: Sequence[Ending]) -> str:
    """The parts and how they ended, as Markdown."""
    lines = [
        f'# GPU day of {datetime.date.today()}', '',
        '| part | what for | exit code | seconds | |', '| --- | --- | --- | --- | --- |',
    ]  # fmt: skip
    for end in ends:
        code = '-' if end.code is None else end.code
        lines.append(
            f'| [{end.part.name}]({end.part.name}.log) | {end.part.purpose} | {code} | '
            f'{end.seconds:.0f} | {end.note} |'
        )
    commands = [f'    {end.part.command}' for end in ends]
    return '\n'.join([*lines, '', 'The commands, in this order:', '', *commands, ''])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog='python -m experiments.gpu_day', description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add('--peer', nargs='*', default=[], metavar='DIR', help='checkouts of originals')
    add('--peer-python', default=sys.executable, help='interpreter with torch (default: this one)')
    add('--minutes', type=float, default=12.0, help='for all parts (default: 12)')
    add('--small', action='store_true', help='tiny models, kernels interpreted: on any machine')
    add('--output', type=Path, help='folder (experiments/results/gpu; with --small runs/gpu_day)')
    flags = parser.parse_args(argv)
    default = Path('runs/gpu_day') if flags.small else ROOT / 'experiments/results/gpu'
    output = (flags.output or default).absolute()
    output.mkdir(parents=True, exist_ok=True)
    peers = [str(Path(peer).absolute()) for peer in flags.peer]
    wanted = parts(output, peers, flags.peer_python, flags.small)
    ends = run(wanted, output, 60 * flags.minutes)
    files.write_text(output / 'README.md', page(ends))
    print(f'\nwrote {output / "README.md"}')
    return int(any(end.code != 0 for end in ends))


if __name__ == '__main__':
    common.run(main)
