"""The prompt: reads expressions line by line, prints their values.

``(help)`` lists what there is; ``quit``, ``exit`` and Ctrl-D end the session. With quirks the
names and the banner are absent, as in the original.
"""

import os
import pathlib
import sys

from hrm_jax.lisp import errors, reader, values
from hrm_jax.lisp import help as help_lib
from hrm_jax.lisp import interpreter as interpreter_lib

BANNER = 'A small Lisp. (help) lists its forms and builtins; quit or Ctrl-D ends.'
PROMPT = 'lisp> '
CONTINUATION = '...   '
_HISTORY_LINES = 1000


class _Leave(Exception):
    """The program asked to end the session."""


def _commands() -> dict[str, values.Builtin]:
    """Procedures that exist at the prompt only; a bare name does the same as a call."""

    def leave(_arguments):
        raise _Leave

    def help(arguments):
        print(help_lib.text(*map(str, arguments)))

    return {
        'help': values.Builtin('help', help, 0, 1),
        'quit': values.Builtin('quit', leave, 0, 0),
        'exit': values.Builtin('exit', leave, 0, 0),
    }


def run(interpreter: interpreter_lib.Interpreter) -> int:
    """Talks until the end of the input; returns the exit status 0.

    Ctrl-C abandons the expression at hand (with quirks it ends the session, as Ctrl-D does).
    """
    history = _start_line_editing()
    commands = {} if interpreter.quirks else _commands()
    for name, command in commands.items():
        interpreter.bind(name, command)
    if commands:
        print(BANNER, file=sys.stderr, flush=True)  # standard output is the programs' own
    buffer = ''
    try:
        while True:
            try:
                line = input(CONTINUATION if buffer else PROMPT)
                buffer = _feed(interpreter, f'{buffer}\n{line}' if buffer else line, commands)
            except _Leave:
                return 0
            except EOFError:
                print()
                return 0
            except KeyboardInterrupt:
                print()
                if interpreter.quirks:
                    return 0
                buffer = ''
    finally:
        _save_history(history)


def _feed(
    interpreter: interpreter_lib.Interpreter, buffer: str, commands: dict[str, values.Builtin]
) -> str:
    """Evaluates ``buffer`` when it is complete; returns what is still to be completed."""
    if not buffer.strip():
        return ''
    depth, in_string = reader.open_parentheses(buffer, interpreter.quirks)
    if depth < 0:
        print("SyntaxError: too many ')'")
        return ''
    # The original's strings cannot span lines at the prompt.
    if depth > 0 or (in_string and not interpreter.quirks):
        return buffer
    try:
        expressions = interpreter.read(buffer)
    except errors.LispError as error:
        print(f'Error: {error}')
        return ''
    for expression in expressions:
        try:
            for value in interpreter.evaluate([expression]):
                if type(expression) is values.Symbol and value in commands.values():
                    value.function([])
                elif value is not None:
                    print(interpreter.text(value))
        except errors.LispError as error:
            print(f'Error: {error}')
            stack = error.format_stack(interpreter.quirks)
            if stack:
                print(stack)
            # The original drops the rest of the line, but not after a fault within limits.
            if not (interpreter.quirks and error.in_limits):
                break
    return ''


def _history_path() -> pathlib.Path:
    state = os.environ.get('XDG_STATE_HOME') or pathlib.Path.home() / '.local' / 'state'
    return pathlib.Path(state) / 'hrm_jax_lisp_history'


def _start_line_editing():
    """Turns on line editing for a person at a terminal; returns the history file or None."""
    if not sys.stdin.isatty():
        return None
    try:
        import readline  # not on every platform
    except ImportError:
        return None
    path = _history_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            readline.read_history_file(path)
        readline.set_history_length(_HISTORY_LINES)
    except OSError as error:
        print(f'History is off: {error}', file=sys.stderr)
        return None
    return path


def _save_history(path: pathlib.Path | None) -> None:
    if path is None:
        return
    import readline

    try:
        readline.write_history_file(path)
    except OSError as error:
        print(f'History was not saved: {error}', file=sys.stderr)
