"""What all commands share: flags, short errors for what a user can fix, exit codes.

Exit codes: 0 done; 1 an error, explained in a few lines; 2 a wrong command line; 130 interrupted
from the keyboard; 143 ended by SIGTERM or a notice of preemption. After 130 and 143 everything is
saved, and the same command resumes. An error of the program itself keeps its traceback.

``train`` and ``eval`` read a configuration file and its overrides through absl and ml_collections;
all other commands use argparse.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
import errno
import os
from pathlib import Path
import re
import sys
from typing import Any

from absl import flags, logging

from hrm_jax.config import ExperimentConfig, shipped
from hrm_jax.errors import ConfigError, UsageError, UserError

EXIT_CODES = {'SIGINT': 130, 'SIGTERM': 143}
# What the user's files or disks can be blamed for.
_FILE_ERRORS = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT,
    errno.EISDIR, errno.ENOTDIR, errno.EEXIST,
)  # fmt: skip
_OVERRIDE = re.compile(r'--?(no)?config\.([A-Za-z_][\w.]*)')


def define_config_flag() -> None:
    """Defines ``--config=FILE`` or ``--config=NAME``, with overrides ``--config.a.b=value``."""
    from ml_collections import config_flags

    config_flags.DEFINE_config_file(
        'config', None,
        'The experiment: a file, e.g. configs/quickstart.py, or the name of one that comes with '
        'hrm_jax, e.g. quickstart; --config.a.b=c changes a value.',
    )  # fmt: skip
    flag = flags.FLAGS['config']
    flag.parser = shipped.FileOrName(flag.parser)


def read_config() -> ExperimentConfig:
    """Returns the experiment that ``--config`` and its overrides describe.

    Raises:
      UsageError: there is none.
      ConfigError: it is wrong.
    """
    if flags.FLAGS.config is None:
        names = ', '.join(shipped.names())
        raise UsageError(f'give the experiment with --config=FILE or --config=NAME of: {names}')
    return ExperimentConfig.from_dict(flags.FLAGS.config)


def workdir(selector: str = '') -> Path:
    """Returns ``--workdir``.

    Args:
      selector: a checkpoint; the flag may be missing where this is a path.

    Raises:
      UsageError: the flag is missing.
    """
    needed = selector in ('', 'best', 'latest') or selector.isdigit()
    if flags.FLAGS.workdir is None and needed:
        raise UsageError('give the folder of the run with --workdir=DIR')
    return Path(flags.FLAGS.workdir or '.')


def _nested(names: Sequence[str], value: Any) -> Mapping[str, Any]:
    for name in reversed(names):
        value = {name: value}
    return value


def _check_arguments(argv: Sequence[str]) -> None:
    """Finds misspelt keys before config_flags does, because it can not name the right one.

    Raises:
      ConfigError: an unknown key, or a configuration file that is not there.
    """
    for argument, following in zip(argv, [*argv[1:], ''], strict=True):
        if match := _OVERRIDE.match(argument):
            names = match[2].split('.')
            known: Any = ExperimentConfig().to_dict()
            for name in names:
                if not isinstance(known, Mapping) or name not in known:
                    ExperimentConfig.from_dict(_nested(names, None))
                    raise ConfigError(f'config key {match[2]}: {name} is not a section.')
                known = known[name]
        if re.match(r'--?config(=|$)', argument):
            path = argument.partition('=')[2] if '=' in argument else following
            shipped.find(path.partition(':')[0])


def parse(argv: Sequence[str], description: str | None, own_flag: str = 'workdir') -> None:
    """Parses the command line into ``flags.FLAGS``.

    Args:
      argv: with the name of the program first.
      description: what the command does, for --help.
      own_flag: a flag of the command's module, whose flags --help lists.

    Raises:
      SystemExit: 0 after --help, 2 after a wrong command line.
    """
    if any(argument in ('--help', '-help', '-h', '--helpfull') for argument in argv[1:]):
        listed = re.sub(
            r'^  (--|-\w,--)(\[no\])?[\w]+', lambda m: m[0].replace('_', '-'),
            flags.FLAGS.module_help(flags.FLAGS.find_module_defining_flag(own_flag)),
            flags=re.MULTILINE,
        )  # fmt: skip
        listed = re.sub(r"\n +\(default: 'None'\)", '', listed)
        print((description or '').strip(), '\n\nFlags:', listed, sep='\n')
        raise SystemExit(0)
    argv = [_absl_name(argument) for argument in argv]
    try:
        _check_arguments(argv)
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise ConfigError(f'{rest[1]!r} is not a flag; flags begin with --')
    except (flags.Error, ConfigError, OSError) as error:
        _fail(error, 2)
    except (AttributeError, KeyError, TypeError) as error:
        if 'ml_collections' not in _origin(error):
            raise  # a mistake in the configuration file: its line is what helps
        _fail(error, 2)


def _absl_name(argument: str) -> str:
    """absl knows its flags by underscores: ``--dry-run`` -> ``--dry_run``."""
    name, equals, value = argument.partition('=')
    if not name.startswith('--') or name.startswith('--config.'):
        return argument
    absl_name = re.sub('^no_', 'no', name[2:].replace('-', '_'))
    known = absl_name in flags.FLAGS or absl_name.removeprefix('no') in flags.FLAGS
    return f'--{absl_name}{equals}{value}' if known else argument


def _origin(error: BaseException) -> str:
    """File in which an error was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_filename if trace is not None else ''


def _fail(error: BaseException, code: int) -> None:
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    sys.stdout.flush()
    print(f'error: {text}', file=sys.stderr, flush=True)
    # Reads that failed leave coroutines behind, and each would print its own traceback.
    sys.unraisablehook = lambda _: None
    if 'hrm_jax.run.distributed' in sys.modules:
        sys.modules['hrm_jax.run.distributed'].leave(code)
    raise SystemExit(code) from None


def run(command: Callable[[], int | None]) -> None:
    """Runs a command and exits with its code; errors that a user can fix become one line."""
    sys.unraisablehook = lambda _: None
    try:
        code = command()
    except UserError as error:
        _fail(error, error.exit_code)
    except FloatingPointError as error:
        _fail(error, 1)
    except KeyboardInterrupt:  # outside of training, or a second Ctrl-C
        _fail(InterruptedError('interrupted'), 130)
    except BrokenPipeError:  # the reader of the output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno not in _FILE_ERRORS:
            raise
        _fail(OSError(f'{error.filename or "a file"}: {error.strerror}'), 1)
    raise SystemExit(code or 0)


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Shows the default of every flag that has one; keeps the lines of the description."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ''
        nothing = action.default is None or action.default is False or action.default == ''
        if '(default' in text or nothing or action.default == argparse.SUPPRESS:
            return text
        return f'{text} (default: %(default)s)'


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Returns the parser of ``hrm-jax NAME``; the description's first line is its summary."""
    return argparse.ArgumentParser(
        prog=f'hrm-jax {name}', description=description, formatter_class=HelpFormatter
    )


def hyphenated(argv: Sequence[str]) -> list[str]:
    """Returns the arguments with hyphens in the names of flags (``--seq_len`` -> ``--seq-len``)."""
    found = []
    for argument in argv:
        name, equals, value = argument.partition('=')
        found.append(name.replace('_', '-') + equals + value if name.startswith('--') else argument)
    return found


def quiet_orbax() -> None:
    """Silences orbax's log about files of a checkpoint that a command does not read."""
    logging.set_verbosity(logging.ERROR)
