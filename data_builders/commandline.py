"""The common command line of the builders.

A flag replaces its default; no list flag ever adds to it (the original's does, and so mixes
ARC-1 into its ARC-2 build).
"""

import argparse
from collections.abc import Callable, Sequence
import dataclasses
import importlib
import sys
from typing import Any

from data_builders.errors import BuildError
from hrm_jax.data.puzzles import DatasetError


@dataclasses.dataclass(frozen=True)
class Command:
    """One subcommand: a module with ``add_flags``, ``build`` and ``EXAMPLES``."""

    module: str
    help: str
    writes: bool = True  # takes --output-dir, --seed and --overwrite


COMMANDS = {
    'sudoku': Command('data_builders.sudoku', 'Sudoku boards and solutions'),
    'maze': Command('data_builders.maze', 'mazes and shortest paths'),
    'arc': Command('data_builders.arc', 'ARC-AGI-1, ARC-AGI-2, ConceptARC'),
    'lisp': Command('data_builders.lisp', 'simplification of Lisp expressions'),
    'pathfinding': Command('data_builders.pathfinding', 'paths on random boards'),
    'custom': Command('data_builders.custom', "a task of one's own, from CSV or JSON lines"),
    'export': Command('data_builders.export', 'records to .npy folder'),
    'import': Command('data_builders.import_folder', '.npy folder to records'),
    'check': Command('data_builders.check', 'structure, content and leaks of a set', writes=False),
}


def parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands; task modules are imported for their flags."""
    top = argparse.ArgumentParser(
        prog='python -m data_builders',
        description='Builds and checks data sets.',
        epilog='python -m data_builders NAME --help shows the flags of one command.',
    )
    commands = top.add_subparsers(dest='command', required=True, metavar='NAME')
    for name, command in COMMANDS.items():
        module = importlib.import_module(command.module)
        sub = commands.add_parser(
            name, help=command.help, description=module.__doc__, epilog=module.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        if command.writes:
            sub.add_argument('--output-dir', required=True, help='folder to make')
            sub.add_argument(
                '--seed',
                type=int,
                default=0,
                help='seed of everything random (default: %(default)s)',
            )
            sub.add_argument('--overwrite', action='store_true', help='replace an existing set')
        sub.add_argument('--quiet', dest='show', action='store_false', help='print nothing')
        module.add_flags(sub)
    return top


def main(argv: Sequence[str]) -> int:
    """Runs one command and returns the exit status: 0, or 1 after a short error message."""
    flags = vars(parser().parse_args(argv))
    module = importlib.import_module(COMMANDS[flags.pop('command')].module)
    run: Callable[..., Any] = module.build
    try:
        status = run(**flags)
    except (BuildError, DatasetError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except OSError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('interrupted; nothing was written', file=sys.stderr)
        return 130
    return status if type(status) is int else 0
