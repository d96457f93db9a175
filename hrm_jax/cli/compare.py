"""Compares runs: the settings that differ, what came out, speed and cost, and their curves.

  hrm-jax compare runs/lr                        (all runs of a sweep)
  hrm-jax compare runs/a runs/b --png curves.png --html curves.html

Runs that differ in their seed only are one row, with mean +- sample standard deviation. Runs that
are still training are compared as far as they are.
"""

import argparse
from collections.abc import Sequence
import sys

from hrm_jax.cli import common


def parser() -> argparse.ArgumentParser:
    """Returns the flags of ``hrm-jax compare``."""
    parser = common.parser('compare', __doc__)
    parser.add_argument('runs', type=common.path, nargs='+', help='folders of runs or of sweeps')
    parser.add_argument(
        '--format', choices=['markdown', 'csv', 'json'], default='markdown', help='of the table'
    )
    parser.add_argument(
        '--metric', action='append',
        help='metric to show, such as eval/all/lm_loss or lm_loss; several are possible (default: '
        'accuracies)',
    )  # fmt: skip
    parser.add_argument('--png', type=common.path, help='draws the curves (.png, .svg or .pdf)')
    parser.add_argument('--html', type=common.path, help='writes table and curves as one page')
    return parser


def compare(flags: argparse.Namespace) -> None:
    """Compares the runs that the flags name and prints the table."""
    from hrm_jax.errors import WorkdirError
    from hrm_jax.run import comparison

    places = comparison.find_runs(flags.runs)
    compared = comparison.compare(
        [comparison.read_run(place) for place in places], flags.metric or ()
    )
    write = {
        'markdown': comparison.as_markdown, 'csv': comparison.as_csv, 'json': comparison.as_json,
    }[flags.format]  # fmt: skip
    print(write(compared))
    if flags.png or flags.html:
        from hrm_jax.visualize import curves

        WorkdirError.require(
            bool(compared.metrics),
            'there must be an evaluation to draw; none of the runs has one yet.',
        )
        if flags.png:
            curves.save_png(flags.png, compared)
        if flags.html:
            named = ', '.join(map(str, flags.runs[:3])) + ' and others' * (len(flags.runs) > 3)
            curves.write_page(flags.html, compared, f'{len(places)} runs of {named}')
        for path in filter(None, (flags.png, flags.html)):
            print(f'written: {path}', file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command and exits."""
    flags = parser().parse_args(common.hyphenated(sys.argv[1:] if argv is None else argv))
    common.run(lambda: compare(flags))
