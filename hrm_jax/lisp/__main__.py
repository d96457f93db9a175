"""``python -m hrm_jax.lisp [FILE]``: evaluates a file, or starts a prompt."""

import argparse
import os
import sys

from hrm_jax.lisp import errors, repl
from hrm_jax.lisp import interpreter as interpreter_lib
from hrm_jax.lisp import limits as limits_lib


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='python -m hrm_jax.lisp', description=__doc__)
    defaults = limits_lib.Limits()
    parser.add_argument('file', nargs='?', help='program to evaluate; none: a prompt')
    parser.add_argument('--max-steps', type=int, help='evaluations allowed (default: any number)')
    parser.add_argument('--max-seconds', type=float, help='time allowed (default: any)')
    parser.add_argument(
        '--max-depth',
        type=int,
        default=defaults.max_depth,
        help='calls that may wait for a result (default: %(default)s)',
    )
    parser.add_argument(
        '--max-bits',
        type=int,
        default=defaults.max_bits,
        help='bits of an integer (default: %(default)s)',
    )
    parser.add_argument('--trace', action='store_true', help='like (trace-on) at the start')
    parser.add_argument(
        '--allow-use',
        action='store_true',
        help='let (use "module") import Python modules: they may do anything on this machine',
    )
    parser.add_argument(
        '--allow-load',
        action='store_true',
        help='let (load "file") read any file of this user; --allow-use implies it',
    )
    parser.add_argument(
        '--original-quirks',
        action='store_true',
        help="behave as HRM-Lisp's mini_lisp where that differs",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 1 after an error in FILE."""
    parser = _parser()
    flags = parser.parse_args(argv)
    try:
        limits = limits_lib.Limits(
            max_steps=flags.max_steps,
            max_seconds=flags.max_seconds,
            max_depth=flags.max_depth,
            max_bits=flags.max_bits,
        )
    except ValueError as error:
        parser.error(str(error))
    interpreter = interpreter_lib.Interpreter(
        limits=limits,
        original_quirks=flags.original_quirks,
        allow_use=flags.allow_use,
        allow_load=flags.allow_load,
    )
    if flags.trace:
        interpreter.run('(trace-on)')
    if flags.file is None:
        return repl.run(interpreter)
    try:
        interpreter.run_file(flags.file)
    except errors.LispError as error:
        sys.stdout.flush()
        # The original reports on standard output, where a program's own output goes too.
        out = sys.stdout if flags.original_quirks else sys.stderr
        print(f'Error: {error}', file=out)
        if not flags.original_quirks and error.stack:
            print(error.format_stack(), file=out)
        return 1
    except KeyboardInterrupt:
        print('Interrupted.', file=sys.stderr)
        return 130
    return 0


def _quietly() -> int:
    """``main``, but a reader of the output who has left ends it without a word."""
    try:
        status = main()
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == '__main__':
    sys.exit(_quietly())
