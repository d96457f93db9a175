"""Converts checkpoints between PyTorch, transformers-style, safetensors and orbax.

    python -m hrm_jax.convert SOURCE DEST [--format F] [--config FILE] [--verify]

SOURCE is a file, a folder, or an id on the Hugging Face hub; its kind is found out. Neither
torch nor transformers is needed. Nothing is written unless everything fits.
"""

import argparse
from collections.abc import Sequence
import math
import sys

from absl import logging
import jax

from hrm_jax.checkpoint import Weights
from hrm_jax.config import PUZZLE_TABLES
from hrm_jax.interop import formats, verify


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m hrm_jax.convert',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('source', help='step_N, model.safetensors, a folder, a run, owner/name')
    parser.add_argument('destination', help='a folder; or step_N, NAME.pt, NAME.safetensors')
    parser.add_argument(
        '--format',
        default='auto',
        choices=('auto', *formats.FORMATS),
        help='of the destination; auto: by its name, otherwise orbax',
    )
    parser.add_argument(
        '--config', default='', help='all_config.yaml or config.json, if not beside the source'
    )
    parser.add_argument('--revision', help='branch, tag or commit on the hub')
    parser.add_argument(
        '--seq_len', type=int, default=0, help='cells of a puzzle, if nothing else says'
    )
    parser.add_argument(
        '--dtype', default='', help="type to compute in, in place of the checkpoint's"
    )
    parser.add_argument(
        '--num_puzzles', type=int, default=0, help='rows that the puzzle table shall have'
    )
    parser.add_argument(
        '--puzzle_table',
        default='error',
        choices=PUZZLE_TABLES,
        help='what to do when that is another number: every row the mean of the old ones, zeros, '
        'or keep the rows both have',
    )
    parser.add_argument(
        '--prefix', help="put before the tensors' names; default: as they came, or the usual one"
    )
    parser.add_argument(
        '--no_ema', action='store_true', help='save the live weights, not their moving average'
    )
    parser.add_argument('--overwrite', action='store_true', help='replace files that exist')
    parser.add_argument(
        '--verify',
        action='store_true',
        help='read the result back, compare every tensor, and run both models on one puzzle',
    )
    return parser


def _describe(weights: Weights) -> str:
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(weights.params))
    table = weights.puzzle_table
    puzzles = '' if table is None else f', puzzle table {table.shape[0]:,} x {table.shape[1]}'
    return f'step {weights.step}, {parameters:,} parameters{puzzles}'


def convert(arguments: argparse.Namespace) -> None:
    """Loads, saves, and verifies on request.

    Raises:
      ValueError, OSError: see ``formats.load`` and ``formats.save``.
    """
    source = formats.find(arguments.source, arguments.config, arguments.revision)
    kind = arguments.format
    if kind == 'auto':
        kind = formats.guess_format(arguments.destination, source.format)
    weights = formats.load(source, seq_len=arguments.seq_len, forward_dtype=arguments.dtype)
    if arguments.num_puzzles:
        weights = formats.with_puzzle_rows(weights, arguments.num_puzzles, arguments.puzzle_table)
    written = formats.save(
        weights,
        arguments.destination,
        kind,
        prefix=arguments.prefix,
        use_ema=not arguments.no_ema,
        overwrite=arguments.overwrite,
    )
    print(f'{arguments.source} ({source.format}) -> {written} ({kind}): {_describe(weights)}')
    if arguments.verify:
        print(verify.verify(weights, written, use_ema=not arguments.no_ema))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, or 1 after an error, which is said in one line."""
    logging.set_verbosity(logging.ERROR)  # orbax warns of its own parts
    try:
        convert(_parser().parse_args(argv))
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
