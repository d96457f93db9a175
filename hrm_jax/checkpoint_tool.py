"""Looks into checkpoints of any format.

python -m hrm_jax.checkpoint_tool list DIR       the checkpoints of a run or folder
python -m hrm_jax.checkpoint_tool inspect PATH   step, configuration, data set, parameters
python -m hrm_jax.checkpoint_tool compare A B    what differs; exit code 1 if anything does
"""

import argparse
from collections.abc import Sequence
import sys

from absl import logging

from hrm_jax.interop import report


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m hrm_jax.checkpoint_tool',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest='command', required=True)
    listing = commands.add_parser('list', help='the checkpoints of a run or folder')
    listing.add_argument('path')
    inspect = commands.add_parser('inspect', help='step, configuration, data set, parameters')
    inspect.add_argument('path')
    compare = commands.add_parser('compare', help='what differs between two checkpoints')
    compare.add_argument('path')
    compare.add_argument('other')
    for command in (inspect, compare):
        command.add_argument('--config', default='', help='configuration, if not beside PATH')
        command.add_argument('--seq_len', type=int, default=0, help='cells, if nothing says')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, or 1 after an error or where two checkpoints differ."""
    logging.set_verbosity(logging.ERROR)  # orbax warns of its own parts
    arguments = _parser().parse_args(argv)
    try:
        if arguments.command == 'list':
            lines = report.list_checkpoints(arguments.path)
        elif arguments.command == 'inspect':
            lines = report.inspect(arguments.path, arguments.config, arguments.seq_len)
        else:
            lines = report.compare(
                arguments.path, arguments.other, arguments.config, arguments.seq_len
            )
            print('\n'.join(lines) or 'equal: configuration and every tensor')
            return 1 if lines else 0
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    print('\n'.join(lines))
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
