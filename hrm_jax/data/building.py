"""The command that builds a data set, from the first lines of the configuration that trains on it.

The docstring of every file in configs/ gives the commands to run, so errors about a missing data
set quote it. There is no second list of commands.
"""

import ast
import itertools
import os
import pathlib
import re
import shlex

from hrm_jax.config import shipped
from hrm_jax.tasks import TASKS

_COMMAND = re.compile(r'^ +(python -m data_builders (?:\\\n|[^\n])*)', re.MULTILINE)


def commands(text: str) -> list[str]:
    """Returns the builder commands that a docstring shows, each in one line."""
    return [re.sub(r'\s*\\\n\s*', ' ', found).strip() for found in _COMMAND.findall(text)]


def output_of(command: str) -> str:
    """Returns the --output-dir of a builder command, or ''."""
    words = shlex.split(command)
    return next((b for a, b in itertools.pairwise(words) if a == '--output-dir'), '')


def documented() -> dict[str, str]:
    """Returns name of the data set's folder -> command, for all shipped configurations."""
    found: dict[str, str] = {}
    for name in shipped.names():
        text = (shipped.folder() / f'{name}.py').read_text(encoding='utf-8')
        for command in commands(ast.get_docstring(ast.parse(text)) or ''):
            found.setdefault(pathlib.Path(output_of(command)).name, command)
    return found


def command(path: str | os.PathLike) -> str:
    """Returns the command that builds the data set at a path.

    That of the shipped configuration whose set has this name of a folder, with this path as its
    output. For other names the task is guessed from the name, where it has one.
    """
    known = documented().get(pathlib.Path(path).name)
    if known:
        return known.replace(f'--output-dir {output_of(known)}', f'--output-dir {_quoted(path)}')
    name = pathlib.Path(path).name.lower()
    task = next((t for t in TASKS if t in name), f'{{{",".join([*TASKS, "custom"])}}}')
    return f'python -m data_builders {task} --output-dir {_quoted(path)}'


def _quoted(path: str | os.PathLike) -> str:
    return shlex.quote(os.fspath(path))
