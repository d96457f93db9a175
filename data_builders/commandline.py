"""The command line of the builders: one subcommand each, with the flags of its ``Options``.

A flag replaces its default; no list flag ever adds to it (the original's does, and so mixes
ARC-1 into its ARC-2 build).
"""

import argparse
from collections.abc import Callable, Sequence
import dataclasses
import importlib
import os
import sys
from typing import Any

from data_builders.options import add_flags
from hrm_jax.errors import UserError
from hrm_jax.tasks import TASKS


@dataclasses.dataclass(frozen=True)
class Command:
    """One subcommand: a module with ``Options``, ``build`` and ``EXAMPLES``.

    Attributes:
      module: its name; it is imported when the command is used.
      help: its line in the list of commands.
      reads: help text of the folder that it reads; '': its source is a setting.
      writes: it takes --output-dir.
      needs: an optional package without which it cannot build; '': none.
    """

    module: str
    help: str
    reads: str = ''
    writes: bool = True
    needs: str = ''


COMMANDS = {
    **{name: Command(f'data_builders.{name}', task.summary) for name, task in TASKS.items()},
    'custom': Command('data_builders.custom', 'a task of your own, from CSV or JSON lines'),
    'reasoning_gym': Command(
        'data_builders.reasoning_gym', 'tasks of the package reasoning-gym', needs='reasoning_gym'
    ),
    'export': Command(
        'data_builders.export', 'records to a folder of .npy files', reads='folder of a data set'
    ),
    'import': Command(
        'data_builders.import_folder', 'folder of .npy files to records',
        reads="folder in the original's format",
    ),
    'check': Command(
        'data_builders.check', 'structure, content and leaks of a set',
        reads='folder of a data set', writes=False,
    ),
}  # fmt: skip


def parser(command: str = '') -> argparse.ArgumentParser:
    """Returns the parser of all commands.

    Args:
      command: the one that gets its flags, which takes the import of its module.
    """
    top = argparse.ArgumentParser(
        prog='python -m data_builders',
        description='Builds, converts and checks data sets.',
        epilog='python -m data_builders NAME --help shows the flags of one command.',
    )
    commands = top.add_subparsers(dest='command', required=True, metavar='NAME')
    for name, entry in COMMANDS.items():
        if name != command:
            commands.add_parser(name, help=entry.help)
            continue
        module = importlib.import_module(entry.module)
        sub = commands.add_parser(
            name, help=entry.help, description=module.__doc__, epilog=module.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        if entry.reads:
            sub.add_argument('path', help=entry.reads)
        if entry.writes:
            sub.add_argument('--output-dir', required=True, help='folder to make (required)')
        add_flags(sub, module.Options)
    return top


def parse(argv: Sequence[str]) -> dict[str, Any]:
    """Returns ``command`` and the arguments of its ``build``."""
    command = next((word for word in argv if not word.startswith('-')), '')
    return vars(parser(command).parse_args(argv))


def main(argv: Sequence[str]) -> int:
    """Runs one command and returns the exit status: 0, or 1 after a short error message."""
    flags = parse(argv)
    module = importlib.import_module(COMMANDS[flags.pop('command')].module)
    run: Callable[..., Any] = module.build
    try:
        status = run(**flags)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (UserError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except MemoryError as error:
        print(f'error: the memory of this machine is too small; {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('interrupted; nothing was written', file=sys.stderr)
        return 130
    return status if type(status) is int else 0
