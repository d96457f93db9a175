"""Shared parts of all commands: flags, and the configuration of a run or a checkpoint.

``train`` and ``eval`` read a configuration file and its overrides through absl and ml_collections;
all other commands use argparse.
"""

import argparse
from collections.abc import Mapping, Sequence
import dataclasses
import difflib
import functools
import os
from pathlib import Path
import re
import runpy
from typing import Any, NoReturn

from absl import flags

from hrm_jax import files
from hrm_jax.cli.exits import EXIT_CODES as EXIT_CODES
from hrm_jax.cli.exits import fail
from hrm_jax.cli.exits import quiet_orbax as quiet_orbax
from hrm_jax.cli.exits import run as run
from hrm_jax.config import ExperimentConfig, shipped
from hrm_jax.errors import ConfigError, UsageError, UserError
from hrm_jax.run.workdir import CONFIG

_OVERRIDE = re.compile(r'--?(no)?config\.([A-Za-z_][\w.]*)')


def define_config_flag() -> None:
    """Defines ``--config=FILE`` or ``--config=NAME``, with overrides ``--config.a.b=value``."""
    from ml_collections import config_dict, config_flags

    config_flags.DEFINE_config_file(
        'config', None,
        'The experiment: a file, e.g. configs/quickstart.py, or the name of one that comes with '
        'hrm_jax, e.g. quickstart; --config.a.b=c changes a value.',
    )  # fmt: skip
    flag = flags.FLAGS['config']
    flag.parser = shipped.FileOrName(
        flag.parser, lambda path: config_dict.ConfigDict(recorded_config(path).to_dict())
    )


@functools.cache
def recorded_config(path: str) -> ExperimentConfig:
    """Returns the configuration that a run's config.json states, or that of a checkpoint.

    The sizes of the data set are left open, as in a configuration file. A relative data path is
    looked for near the file, too.

    Args:
      path: a config.json, the folder of a run, or a checkpoint of any format.

    Raises:
      ConfigError, CheckpointError: it is none of these, or damaged.
    """
    from hrm_jax.checkpoint.places import near

    file = Path(path)
    file = file / CONFIG if file.is_dir() else file
    is_json = file.is_file() and file.suffix == '.json'
    values = files.read_json(file, ConfigError, dict) if is_json else {}
    if not is_json or 'model_type' in values or 'num_attention_heads' in values:
        from hrm_jax.interop import formats

        source = file.parent if file.name == CONFIG else path
        config = formats.load(source).config  # no run left it: a converted or foreign checkpoint
    else:
        try:
            config = ExperimentConfig.from_dict(values)
        except ConfigError as error:
            raise ConfigError(f'{file}: {error}') from None
    sizes = ('vocab_size', 'seq_len', 'num_puzzle_identifiers', 'puzzle_tasks')
    model = dataclasses.replace(config.model, **dict.fromkeys(sizes, 0))
    data = dataclasses.replace(config.data, path=near(config.data.path, file.parent))
    return dataclasses.replace(config, model=model, data=data)


def experiment(name: str) -> ExperimentConfig:
    """Returns the experiment of a file, a shipped name, a run or a checkpoint, without overrides.

    Raises:
      ConfigError: there is none, or it is wrong.
    """
    name = files.expanded(name)
    if shipped.is_recorded(name):
        return recorded_config(name)
    file = shipped.find(name)
    with shipped.importable(file):
        values = runpy.run_path(str(file))
    ConfigError.require('get_config' in values, f'{file} must have a function get_config.')
    return ExperimentConfig.from_dict(values['get_config']())


def read_config() -> ExperimentConfig:
    """Returns the experiment that ``--config`` and its overrides describe.

    Raises:
      UsageError: there is none.
      ConfigError: it is wrong.
    """
    if flags.FLAGS.config is None:
        names = ', '.join(shipped.names())
        place = flags.FLAGS.workdir
        raise UsageError(
            (f'{place!r} holds no run; ' if place else '')
            + f'give the experiment with --config=FILE or --config=NAME of: {names}; or the folder '
            f'of a run with --workdir'
        )
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
    if flags.FLAGS.workdir is None:
        return Path('.')
    return files.local_path(flags.FLAGS.workdir, '--workdir', UsageError)


def _nested(names: Sequence[str], value: Any) -> Mapping[str, Any]:
    for name in reversed(names):
        value = {name: value}
    return value


def check_arguments(argv: Sequence[str]) -> None:
    """Finds misspelt keys before config_flags does, because it cannot name the right one.

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
            if shipped.is_recorded(files.expanded(path)):
                recorded_config(files.expanded(path))  # absl would prefix the name of the flag
            else:
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
        _refuse_empty(argv)
        argv = _with_config(argv)
        check_arguments(argv)
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise ConfigError(f'{rest[1]!r} is not a flag; flags begin with --')
    except (flags.Error, UserError, OSError) as error:
        if isinstance(error, UserError) and not isinstance(error, ConfigError):
            fail(error, error.exit_code)
        fail(error, 2)
    except (AttributeError, KeyError, TypeError) as error:
        if 'ml_collections' not in _origin(error):
            raise  # a mistake in the configuration file: its line is what helps
        fail(error, 2)


def _values(argv: Sequence[str], flag: str) -> list[str]:
    """Values that a flag is given, as ``--flag=VALUE`` or ``--flag VALUE``."""
    found = []
    for argument, following in zip(argv, [*argv[1:], ''], strict=True):
        if re.match(rf'--?{flag}=', argument):
            found.append(argument.partition('=')[2])
        elif re.fullmatch(rf'--?{flag}', argument):
            found.append(following)
    return found


def _refuse_empty(argv: Sequence[str]) -> None:
    """An empty value is mostly a shell variable that is not set.

    Raises:
      UsageError: a flag for a path has one.
    """
    for flag in ('workdir', 'config', 'checkpoint'):
        if any(not value.strip() for value in _values(argv, flag)):
            raise UsageError(
                f'--{flag} must not be empty. Was a shell variable not set? Leave the flag out '
                f'for its default.'
            )


def _with_config(argv: Sequence[str]) -> list[str]:
    """Adds ``--config`` where a run or a checkpoint is named that has its own."""
    argv = list(argv)
    if 'config' not in flags.FLAGS or _values(argv, 'config'):
        return argv
    evaluates = 'eval' in _values(argv, 'mode')
    for place in (*_values(argv, 'workdir'), *_values(argv, 'checkpoint')):
        path = files.expanded(place)
        if _is_run(path) or (evaluates and os.path.exists(path)):
            return [argv[0], f'--config={path}', *argv[1:]]
    for argument in argv[1:]:
        if match := _OVERRIDE.match(argument):
            places = ' and '.join(repr(place) for place in _values(argv, 'workdir'))
            holds = f'; {places} holds no run' if places else ''
            raise UsageError(
                f'--config.{match[2]} changes a setting of an experiment, and there is none'
                f'{holds}. Give --config=FILE or NAME, or the folder of a run with --workdir.'
            )
    return argv


def _is_run(path: str) -> bool:
    """Whether a folder has the configuration of a run of ours, and not that of transformers."""
    file = os.path.join(path, CONFIG)
    if not os.path.isfile(file):
        return False
    values = files.read_json(file, ConfigError)
    return not isinstance(values, Mapping) or 'model_type' not in values


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


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Shows the default of every flag that has one; keeps the lines of the description."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ''
        nothing = action.default is None or action.default is False or action.default == ''
        if '(default' in text or nothing or action.default == argparse.SUPPRESS:
            return text
        return f'{text} (default: %(default)s)'


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line, not below all its flags."""

    def error(self, message: str) -> NoReturn:
        """Prints the message, with the nearest flag for an unknown one; exits with 2."""
        what, colon, given = message.partition(': ')
        if colon and what == 'unrecognized arguments':
            known = [flag for action in self._actions for flag in action.option_strings]
            first = given.split()[0]
            near = difflib.get_close_matches(first.partition('=')[0], known, n=1)
            message = f'unknown: {given}' + (f'. Did you mean {near[0]}?' if near else '')
        end = '' if message.endswith(('.', '?')) else '.'
        self.exit(2, f'error: {message}{end} All flags: {self.prog} --help\n')


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Returns the parser of ``hrm-jax NAME``; the description's first line is its summary."""
    return Parser(prog=f'hrm-jax {name}', description=description, formatter_class=HelpFormatter)


def path(text: str) -> str:
    """Type of a flag for a path: ``~`` is expanded, and an empty value refused."""
    if not text.strip():
        raise argparse.ArgumentTypeError('must not be empty. Was a shell variable not set?')
    try:
        return files.expanded(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Adds what checkpoints of other formats may leave open."""
    parser.add_argument('--task', default='', help='task, if the checkpoint does not state it')
    parser.add_argument('--config', type=path, help='configuration, if not beside the weights')
    parser.add_argument(
        '--seq-len', type=int, default=0, help='cells of a puzzle, if nothing else states it'
    )


def hyphenated(argv: Sequence[str]) -> list[str]:
    """Returns the arguments with hyphens in the names of flags (``--seq_len`` -> ``--seq-len``)."""
    found = []
    for argument in argv:
        name, equals, value = argument.partition('=')
        found.append(name.replace('_', '-') + equals + value if name.startswith('--') else argument)
    return found
