"""What every command does alike: flags, short errors for what a user can mend, exit codes.

Exit codes: 0 done; 1 an error, said in a few lines; 2 a wrong command line; 130 interrupted from
the keyboard; 143 ended by SIGTERM or a notice of preemption. After 130 and 143 everything is
saved, and the same command goes on. An error of the program itself keeps its traceback.
"""

from collections.abc import Callable, Mapping, Sequence
import errno
import os
from pathlib import Path
import re
import sys
from typing import Any

from absl import flags, logging

from hrm_jax.compatibility import CheckpointError
from hrm_jax.config import ConfigError, ExperimentConfig
from hrm_jax.data.puzzles import DatasetError
from hrm_jax.workdir import WorkdirError

EXIT_CODES = {'SIGINT': 130, 'SIGTERM': 143}
_MENDABLE = (ConfigError, DatasetError, CheckpointError, WorkdirError, FloatingPointError)
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
_OVERRIDE = re.compile(r'--?(no)?config\.([A-Za-z_][\w.]*)')


class UsageError(ValueError):
    """The command line lacks something."""


def define_config_flag() -> None:
    """Defines ``--config=FILE`` with overrides ``--config.a.b=value``."""
    from ml_collections import config_flags

    config_flags.DEFINE_config_file(
        'config', None, 'The experiment, e.g. configs/quickstart.py; --config.a.b=c changes one.'
    )


def read_config() -> ExperimentConfig:
    """Returns the experiment that ``--config`` and its overrides describe.

    Raises:
      UsageError: there is none.
      ConfigError: it is wrong.
    """
    if flags.FLAGS.config is None:
        raise UsageError(f'give the experiment with --config=FILE{_known_configs()}')
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


def _known_configs() -> str:
    files = sorted(str(path) for path in Path('configs').glob('[a-z]*.py'))
    return f'. There are: {", ".join(files)}' if files else ''


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
                    raise ConfigError(f'config key {match[2]}: {name} is no section.')
                known = known[name]
        if re.match(r'--?config(=|$)', argument):
            path = argument.partition('=')[2] if '=' in argument else following
            if not os.path.isfile(path.partition(':')[0]):
                raise ConfigError(f'there is no configuration file {path!r}{_known_configs()}')


def parse(argv: Sequence[str], description: str) -> None:
    """Parses the command line into ``flags.FLAGS``.

    Args:
      argv: with the name of the program first.
      description: what the command does, for --help.

    Raises:
      SystemExit: 0 after --help, 2 after a wrong command line.
    """
    if any(argument in ('--help', '-help', '-h', '--helpfull') for argument in argv[1:]):
        print(description.strip(), '\n\nFlags:', flags.FLAGS.main_module_help(), sep='\n')
        raise SystemExit(0)
    try:
        _check_arguments(argv)
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise ConfigError(f'{rest[1]!r} is no flag; flags begin with --')
    except (flags.Error, ConfigError, OSError) as error:
        _fail(error, 2)
    except (AttributeError, KeyError, TypeError) as error:
        if 'ml_collections' not in _origin(error):
            raise  # a mistake in the configuration file: its line is what helps
        _fail(error, 2)


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
    if 'hrm_jax.distributed' in sys.modules:
        sys.modules['hrm_jax.distributed'].leave(code)
    raise SystemExit(code) from None


def run(command: Callable[[], int | None], description: str) -> None:
    """Parses the command line, runs the command, and exits with its code.

    Args:
      command: reads ``flags.FLAGS``; returns an exit code, None for 0.
      description: for --help.
    """
    sys.unraisablehook = lambda _: None
    parse(sys.argv, description)
    if not flags.FLAGS['verbosity'].present:
        logging.set_verbosity(logging.FATAL)  # orbax logs what becomes an error here anyway
    try:
        code = command()
    except UsageError as error:
        _fail(error, 2)
    except _MENDABLE as error:
        _fail(error, 1)
    except KeyboardInterrupt:  # outside of training, or a second Ctrl-C
        _fail(InterruptedError('interrupted'), 130)
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        _fail(ConfigError(f'{error.filename or "a file"} can not be written: {error.strerror}'), 1)
    raise SystemExit(code or 0)
