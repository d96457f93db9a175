"""Looks into checkpoints of any format.

hrm-jax checkpoints list DIR       the checkpoints of a run or folder
hrm-jax checkpoints inspect PATH   step, configuration, data set, parameters
hrm-jax checkpoints compare A B    what differs; exit code 1 if anything does
"""

import argparse
from collections.abc import Sequence
import sys

from hrm_jax.cli import common


def parser() -> argparse.ArgumentParser:
    """Returns the flags of ``hrm-jax checkpoints``."""
    parser = common.parser('checkpoints', __doc__)
    commands = parser.add_subparsers(dest='command', required=True)
    listing = commands.add_parser('list', help='the checkpoints of a run or folder')
    listing.add_argument('path', help='folder of a run, or of checkpoint files')
    inspect = commands.add_parser('inspect', help='step, configuration, data set, parameters')
    inspect.add_argument('path', help='checkpoint of any format')
    compare = commands.add_parser('compare', help='what differs between two checkpoints')
    compare.add_argument('path', help='checkpoint of any format')
    compare.add_argument('other', help='checkpoint of any format')
    for command in (inspect, compare):
        command.formatter_class = common.HelpFormatter
        command.add_argument('--config', default='', help='configuration, if not beside PATH')
        command.add_argument(
            '--seq-len', type=int, default=0, help='cells of a puzzle, if nothing else states it'
        )
    return parser


def look(flags: argparse.Namespace) -> int:
    """Prints what the flags ask for; returns 1 where two checkpoints differ."""
    from hrm_jax.interop import report

    if flags.command == 'compare':
        lines = report.compare(flags.path, flags.other, flags.config, flags.seq_len)
        print('\n'.join(lines) or 'equal: configuration and every tensor')
        return 1 if lines else 0
    if flags.command == 'list':
        lines = report.list_checkpoints(flags.path)
    else:
        lines = report.inspect(flags.path, flags.config, flags.seq_len)
    print('\n'.join(lines))
    return 0


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command and exits."""
    flags = parser().parse_args(common.hyphenated(sys.argv[1:] if argv is None else argv))
    common.quiet_orbax()
    common.run(lambda: look(flags))
