"""Where the time of a train step or an evaluation goes, operation by operation.

    python -m experiments.speed.step_profile --config quickstart:32
    python -m experiments.speed.step_profile --config sudoku_extreme_1k:768 --output profile.md

Runs a program of experiments/benchmark under JAX's profiler and adds up the operations of the
device (on a CPU: of XLA's threads), the longest first. The time of an operation is that of its
thread or stream, so that of several threads is more than the clock's.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
import re
import tempfile

import jax

from experiments.benchmark import cases
from experiments.benchmark.programs import Ours
from hrm_jax import files
from hrm_jax.cli import common

_LONGEST = 25
_NUMBER = re.compile(r'[.\d]+$')
_AROUND_OTHERS = ('while', 'call', 'conditional')  # their time is that of what they hold


def operations(folder: Path) -> tuple[Counter[str], Counter[str], str]:
    """Adds up the operations of a trace.

    Args:
      folder: written by ``jax.profiler.trace``.

    Returns:
      Seconds by operation, number of events by operation, and the name of the part that ran them.
    """
    (path,) = folder.rglob('*.xplane.pb')
    planes = {plane.name: plane for plane in jax.profiler.ProfileData.from_file(str(path)).planes}
    device = next((name for name in planes if name.startswith('/device:')), '/host:CPU')
    seconds, count = Counter(), Counter()
    for line in planes[device].lines:
        own = line.name == 'XLA Ops' or line.name.startswith('Stream')
        if not (own or 'XLAPjRtCpuClient' in line.name or 'XLAEigen' in line.name):
            continue
        for event in line.events:
            name = _NUMBER.sub('', event.name)
            if '::' in name or ' ' in name or name in _AROUND_OTHERS:  # the runtime's own
                continue
            seconds[name] += event.duration_ns / 1e9
            count[name] += 1
    return seconds, count, device


def table(seconds: Counter[str], count: Counter[str], runs: int) -> str:
    """The longest operations as Markdown, for one run."""
    total = sum(seconds.values())
    lines = ['| operation | events a run | ms a run | share |', '| --- | --- | --- | --- |']
    for name, spent in seconds.most_common(_LONGEST):
        lines.append(
            f'| `{name}` | {count[name] / runs:g} | {1e3 * spent / runs:.3f} | '
            f'{spent / total:.1%} |'
        )
    lines.append(f'| all | {sum(count.values()) / runs:g} | {1e3 * total / runs:.3f} | |')
    return '\n'.join(lines) + '\n'


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog='python -m experiments.speed.step_profile', description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add('--config', default='quickstart', metavar='NAME[:ROWS]', help='file of configs/')
    add('--program', default='train step', choices=['train step', 'eval step'])
    add('--dtype', default='', help="default: the configuration's; on a CPU float32")
    add('--attention', default='auto', help='implementation (model.attention)')
    add('--set', nargs='+', default=[], metavar='KEY=VALUE', help='settings, as model.remat=true')
    add('--runs', type=int, default=5, help='of the program (default: 5)')
    add('--quick', action='store_true', help='a model so small that it takes seconds')
    add('--output', type=Path, metavar='FILE', help='also writes the table there')
    flags = parser.parse_args(argv)
    name, _, rows = flags.config.partition(':')

    def case_for(on_cpu: bool) -> cases.Case:
        return cases.load(
            name, int(rows or 8 * on_cpu), flags.dtype or 'float32' * on_cpu, flags.attention,
            quick=flags.quick, settings=tuple(flags.set),
        )  # fmt: skip

    cases.set_up(case_for(on_cpu=True).config, flags.program)  # before JAX's backend starts
    case = case_for(jax.default_backend() == 'cpu')
    program = Ours(case, count_bytes=False).make(flags.program)
    program.run(2)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            seconds = program.seconds(flags.runs)
        *found, where = operations(Path(folder))
    text = (
        f'{flags.program} of {name}, {case.rows} rows, {case.config.model.forward_dtype}, '
        f'{jax.devices()[0].device_kind} ({where}), jax {jax.__version__}: '
        f'{1e3 * seconds / flags.runs:.2f} ms a run by the clock\n\n{table(*found, flags.runs)}'
    )
    print(text)
    if flags.output:
        files.write_text(flags.output, text)
    return 0


if __name__ == '__main__':
    common.run(main)
