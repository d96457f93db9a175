r"""The same program of several checkouts, or under several environments, in turns.

    git worktree add ../before HEAD~3
    python -m experiments.speed.before_after --config pathfinding_hl:8 \
        --side before=../before after=.
    python -m experiments.speed.before_after --config sudoku_extreme_1k:8 --program 'eval step' \
        --side new=.,GLIBC_TUNABLES= kept=.

Each side is a process of its own; all are kept, and run one after the other in every round, so that
what else the machine does meets all of them. Prints medians, fastest rounds and the ratio to the
first side (the median of the ratios within a round), and what the system took: its seconds, and
new pages of memory. On a CPU each side is set up as its commands are (run/kept_memory.py,
run/cpu_devices.py), unless it says GLIBC_TUNABLES or XLA_FLAGS.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import json
import os
from pathlib import Path
import statistics
import subprocess
import sys
from typing import Any

_HERE = Path(__file__).resolve()


@dataclasses.dataclass
class Side:
    """One process.

    Attributes:
      name: of its row.
      process: answers a number of runs with what they took.
      found: of each round, for one run: seconds by the clock and in the system, and pages.
    """

    name: str
    process: subprocess.Popen[str]
    found: list[dict[str, float]] = dataclasses.field(default_factory=list)

    def ask(self, runs: int) -> dict[str, float]:
        """Runs the program some times.

        Raises:
          RuntimeError: its process has ended.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(f'{runs}\n')
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f'the side {self.name} ended with code {self.process.wait()}')
        return json.loads(line)


def start(text: str, request: dict[str, Any]) -> Side:
    """Starts a side from NAME=DIR[,VARIABLE=VALUE ...].

    Raises:
      ValueError: the text is another, or there is no such folder.
    """
    name, _, rest = text.partition('=')
    place, *variables = rest.split(',')
    root = Path(place).resolve()
    if not (root / 'experiments/benchmark').is_dir():
        raise ValueError(f'--side must be NAME=DIR with a checkout of this project; got {text!r}')
    environment = dict(os.environ)
    for variable in variables:
        key, _, value = variable.partition('=')
        environment[key] = value
    environment['PYTHONPATH'] = str(root)
    process = subprocess.Popen(
        [sys.executable, str(_HERE), '--serve', json.dumps(request)], cwd=root, env=environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return Side(name, process)


def serve(request: dict[str, Any]) -> None:
    """Answers on standard output, for the checkout that PYTHONPATH names."""
    import resource

    from experiments.benchmark import cases
    from experiments.benchmark.programs import Ours
    from hrm_jax.errors import UserError

    name, _, rows = request['config'].partition(':')
    try:
        case = cases.load(
            name, int(rows or 8), request['dtype'], 'auto', request['act_steps'], request['quick'],
            tuple(request['set']),
        )  # fmt: skip
    except UserError as error:
        raise SystemExit(f'error: {error}') from None
    if hasattr(cases, 'set_up'):  # the checkout may be an older one
        cases.set_up(case.config, request['program'])
    program = Ours(case, count_bytes=False).make(request['program'])
    program.run(2)
    for line in sys.stdin:
        runs, before = int(line), resource.getrusage(resource.RUSAGE_SELF)
        seconds = program.seconds(runs)
        after = resource.getrusage(resource.RUSAGE_SELF)
        answer = {
            'seconds': seconds / runs,
            'system': (after.ru_stime - before.ru_stime) / runs,
            'pages': (after.ru_minflt - before.ru_minflt) / runs,
        }  # fmt: skip
        print(json.dumps(answer), flush=True)


def table(sides: Sequence[Side]) -> str:
    """What was found, as Markdown."""
    lines = [
        '| side | ms a run | fastest | time / first | system ms | new pages |',
        '| --- | --- | --- | --- | --- | --- |',
    ]
    first = [one['seconds'] for one in sides[0].found]
    for side in sides:
        seconds = [one['seconds'] for one in side.found]
        ratio = statistics.median(a / b for a, b in zip(seconds, first, strict=True))
        system, pages = (
            statistics.median(one[key] for one in side.found) for key in ('system', 'pages')
        )
        lines.append(
            f'| {side.name} | {1e3 * statistics.median(seconds):.1f} | {1e3 * min(seconds):.1f} | '
            f'{ratio:.2f} | {1e3 * system:.0f} | {pages:.0f} |'
        )
    return '\n'.join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog='python -m experiments.speed.before_after', description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add('--side', nargs='+', default=[], metavar='NAME=DIR[,VAR=VALUE]', help='the first: before')
    add('--config', default='quickstart:32', metavar='NAME[:ROWS]', help='file of configs/')
    add('--program', default='train step', choices=['train step', 'eval step'])
    add('--act-steps', type=int, default=4, help='of an evaluation (default: 4)')
    add('--dtype', default='float32', help='compute dtype (default: float32)')
    add('--set', nargs='+', default=[], metavar='KEY=VALUE', help='settings, as model.remat=true')
    add('--rounds', type=int, default=8, help='times that the sides take turns (default: 8)')
    add('--seconds', type=float, default=0.5, help='of a side in a round, at least one run')
    add('--quick', action='store_true', help='a model so small that it takes seconds')
    add('--serve', help=argparse.SUPPRESS)
    flags = parser.parse_args(argv)
    if flags.serve:
        serve(json.loads(flags.serve))
        return 0
    if len(flags.side) < 2:
        parser.error('give two sides or more: --side before=DIR after=.')
    names = ('config', 'program', 'act_steps', 'dtype', 'set', 'quick')
    request = {name: getattr(flags, name) for name in names}
    sides: list[Side] = []
    try:
        sides += [start(text, request) for text in flags.side]
        once = max(side.ask(1)['seconds'] for side in sides)
        runs = max(1, int(flags.seconds / once))
        for number in range(flags.rounds):
            for side in sides if number % 2 else reversed(sides):
                side.found.append(side.ask(runs))
    except (ValueError, RuntimeError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    finally:
        for side in sides:
            side.process.kill()
            side.process.communicate()
    print(f'{flags.program} of {flags.config} {" ".join(flags.set)}\n\n{table(sides)}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
