"""Writes a page in which a model solves Sudokus: type or paste one, and watch its candidates.

  hrm-jax play -o sudoku.html

The page is one file with the weights in it and needs no server.
"""

import argparse
from collections.abc import Sequence
import sys

from hrm_jax.cli import common


def parser() -> argparse.ArgumentParser:
    """Returns the flags of ``hrm-jax play``."""
    parser = common.parser('play', __doc__)
    parser.add_argument(
        '--checkpoint', '--workdir', type=common.path,
        help='run or checkpoint of configs/sudoku9_cpu.py (default: the installed sudoku9)',
    )  # fmt: skip
    parser.add_argument(
        '-o', '--output', type=common.path, default='sudoku.html', help='page to write'
    )
    return parser


def play(flags: argparse.Namespace) -> None:
    """Writes the page."""
    from hrm_jax.inference.solver import Solver
    from hrm_jax.interop import pretrained
    from hrm_jax.visualize import play as page

    checkpoint = flags.checkpoint or pretrained.find(pretrained.DEFAULT)
    page.write(flags.output, Solver.from_checkpoint(checkpoint))
    print(f'wrote {flags.output}; open it in a browser')


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command and exits."""
    flags = parser().parse_args(common.hyphenated(sys.argv[1:] if argv is None else argv))
    common.quiet_orbax()
    common.run(lambda: play(flags))
