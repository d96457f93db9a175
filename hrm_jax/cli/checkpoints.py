"""Looks into checkpoints of any format.

hrm-jax checkpoints list DIR       the checkpoints of a run or folder
hrm-jax checkpoints inspect PATH   step, configuration, data set, parameters
hrm-jax checkpoints compare A B    what differs; exit code 1 if anything does
hrm-jax checkpoints verify PATH    reads all arrays and compares them with their digests; exit
                                   code 1 if a checkpoint is damaged

PATH is a run, a checkpoint of any format, or, with --workdir, left out.
"""

import argparse
from collections.abc import Sequence
import sys

from hrm_jax.cli import common
from hrm_jax.errors import UsageError


def parser() -> argparse.ArgumentParser:
    """Returns the flags of ``hrm-jax checkpoints``."""
    parser = common.parser('checkpoints', __doc__)
    commands = parser.add_subparsers(dest='command', required=True)
    for name, text in (
        ('list', 'the checkpoints of a run or folder'),
        ('inspect', 'step, configuration, data set, parameters'),
        ('compare', 'what differs between two checkpoints'),
        ('verify', 'whether every array is what was saved'),
    ):
        command = commands.add_parser(name, help=text, formatter_class=common.HelpFormatter)
        command.add_argument('--workdir', type=common.path, help='folder of a run, as PATH')
        command.add_argument(
            'path', type=common.path, nargs='?', help='folder of a run, or a checkpoint'
        )
        if name == 'compare':
            command.add_argument(
                'other', type=common.path, nargs='?', help='a run or checkpoint of any format'
            )
        if name in ('inspect', 'compare'):
            command.add_argument(
                '--config', type=common.path, help='configuration, if not beside PATH'
            )
            command.add_argument(
                '--seq-len',
                type=int,
                default=0,
                help='cells of a puzzle, if nothing else states it',
            )
    return parser


def look(flags: argparse.Namespace) -> int:
    """Prints what the flags ask for; returns 1 where two checkpoints differ."""
    from hrm_jax.interop import report

    given = [p for p in (flags.workdir, flags.path, getattr(flags, 'other', None)) if p]
    if len(given) != (2 if flags.command == 'compare' else 1):
        raise UsageError(
            'give two checkpoints to compare' if flags.command == 'compare' else 'give one PATH'
        )
    path = given[0]
    if flags.command == 'verify':
        lines, damaged = report.verify_digests(path)
        print('\n'.join(lines))
        return int(damaged)
    if flags.command == 'compare':
        first, second = given
        lines = report.compare(first, second, flags.config or '', flags.seq_len)
        print('\n'.join(lines) or 'equal: configuration and every tensor')
        return 1 if lines else 0
    if flags.command == 'list':
        lines = report.list_checkpoints(path)
    else:
        lines = report.inspect(path, flags.config or '', flags.seq_len)
    print('\n'.join(lines))
    return 0


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command and exits."""
    flags = parser().parse_args(common.hyphenated(sys.argv[1:] if argv is None else argv))
    common.quiet_orbax()
    common.run(lambda: look(flags))
