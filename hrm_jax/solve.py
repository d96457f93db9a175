"""``python -m hrm_jax.solve --checkpoint DIR ...``: answers puzzles with a trained model.

Puzzles come one per line (--puzzle, --file, or - for standard input), as a board over several
lines (--board), as an ARC task (--arc), or from the model's own test set (--random). For how
each task is written see hrm_jax/puzzle_text.py. Bad puzzles are reported and left out; the
exit status is then 1.
"""

import argparse
import logging
import sys

from hrm_jax import compile_cache, solving
from hrm_jax.compatibility import CheckpointError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='python -m hrm_jax.solve', description=__doc__)
    parser.add_argument('--checkpoint', required=True, help='folder of a run or of a checkpoint')
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--puzzle', help='the puzzle, in one line')
    source.add_argument('--file', help='one puzzle per line')
    source.add_argument('--board', help='file with one board, a line per row')
    source.add_argument('--arc', help='JSON file of an ARC task')
    source.add_argument('--random', action='store_true', help='one of the test set')
    source.add_argument('stdin', nargs='?', choices=['-'], help='one puzzle per line')
    parser.add_argument('--data', default='', help='data set (default: the one trained on)')
    parser.add_argument('--steps', type=int, default=0, help='most ACT steps (default: as trained)')
    parser.add_argument('--samples', type=int, default=1, help='symmetric views that vote')
    parser.add_argument('--seed', type=int, default=0, help='of --random and --samples')
    parser.add_argument(
        '--all-steps', action='store_true', help='never stop early: all puzzles run all steps'
    )
    parser.add_argument('--show', choices=['text', 'html', 'gif', 'json'], default='text')
    parser.add_argument('--output', '-o', help='file for html and gif (default: solution.*)')
    return parser


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status."""
    flags = _parser().parse_args(argv)
    # orbax warns about every file that a checkpoint of ours does not need.
    logging.getLogger('absl').setLevel(logging.ERROR)
    compile_cache.enable()
    try:
        return solving.solve(flags)
    except (ValueError, OSError, CheckpointError) as error:
        print(f'Error: {error}', file=sys.stderr)
        return 1


if __name__ == '__main__':
    sys.exit(main())
