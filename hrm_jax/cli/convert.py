"""Converts checkpoints between PyTorch, transformers-style, safetensors and orbax.

    hrm-jax convert SOURCE DEST [--format F] [--config FILE] [--verify]

SOURCE is a file, a folder, or an id on the Hugging Face hub; its kind is found out. Neither
torch nor transformers is needed. Nothing is written unless everything fits.
"""

import argparse
from collections.abc import Sequence
import math
import sys

from hrm_jax.cli import common


def parser() -> argparse.ArgumentParser:
    """Returns the flags of ``hrm-jax convert``."""
    parser = common.parser('convert', __doc__)
    parser.add_argument(
        'source', type=common.path, help='step_N, model.safetensors, a folder, a run, owner/name'
    )
    parser.add_argument(
        'destination', type=common.path, help='a folder; or step_N, NAME.pt, NAME.safetensors'
    )
    parser.add_argument(
        '--format',
        default='auto',
        choices=('auto', 'torch', 'huggingface', 'safetensors', 'orbax'),
        help='of the destination; auto: by its name, otherwise orbax',
    )
    parser.add_argument(
        '--config',
        type=common.path,
        help='all_config.yaml or config.json, if not beside the source',
    )
    parser.add_argument(
        '--preset',
        default='',
        choices=('', 'cgar', 'eqr', 'eqr_maze', 'sic', 'urm'),
        help='published recipe that gives what tensors without a configuration do not show',
    )
    parser.add_argument('--revision', help='branch, tag or commit on the hub')
    parser.add_argument(
        '--seq-len', type=int, default=0, help='cells of a puzzle, if nothing else states it'
    )
    parser.add_argument(
        '--member', default='', help='keys of the state dict in a torch file with several: ema'
    )
    parser.add_argument(
        '--dtype', default='', help="type to compute in, in place of the checkpoint's"
    )
    parser.add_argument(
        '--num-puzzles', type=int, default=0, help='rows that the puzzle table shall have'
    )
    parser.add_argument(
        '--puzzle-table',
        default='error',
        choices=('error', 'mean', 'zeros', 'overlap'),
        help='what to do when that is another number: every row the mean of the old ones, zeros, '
        'or keep the rows both have',
    )
    parser.add_argument(
        '--prefix', help="put before the tensors' names; default: as they came, or the usual one"
    )
    parser.add_argument(
        '--no-ema', action='store_true', help='save the live weights, not their moving average'
    )
    parser.add_argument('--overwrite', action='store_true', help='replace files that exist')
    parser.add_argument(
        '--verify',
        action='store_true',
        help='read the result back, compare every tensor, and run both models on one puzzle',
    )
    return parser


def _describe(saved) -> str:
    import jax

    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(saved.weights.params))
    table = saved.weights.puzzle_table
    puzzles = '' if table is None else f', puzzle table {table.shape[0]:,} x {table.shape[1]}'
    return f'step {saved.step}, {parameters:,} parameters{puzzles}'


def convert(arguments: argparse.Namespace) -> None:
    """Loads, saves, and verifies on request.

    Raises:
      UserError, OSError: see ``formats.load`` and ``formats.save``.
    """
    from hrm_jax.interop import formats, report

    source = formats.find(arguments.source, arguments.config or '', arguments.revision)
    kind = arguments.format
    if kind == 'auto':
        kind = formats.guess_format(arguments.destination, source.format)
    saved = formats.load(
        source,
        seq_len=arguments.seq_len,
        forward_dtype=arguments.dtype,
        member=arguments.member,
        preset=arguments.preset,
    )
    if arguments.num_puzzles:
        saved = formats.with_puzzle_rows(saved, arguments.num_puzzles, arguments.puzzle_table)
    written = formats.save(
        saved,
        arguments.destination,
        kind,
        prefix=arguments.prefix,
        use_ema=not arguments.no_ema,
        overwrite=arguments.overwrite,
    )
    print(f'{arguments.source} ({source.format}) -> {written} ({kind}): {_describe(saved)}')
    if arguments.verify:
        print(report.verify(saved, written, use_ema=not arguments.no_ema))


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command and exits."""
    flags = parser().parse_args(common.hyphenated(sys.argv[1:] if argv is None else argv))
    common.quiet_orbax()
    common.run(lambda: convert(flags))
