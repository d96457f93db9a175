"""The command line: help without JAX, flags with hyphens, explained and with their defaults."""

import argparse
import importlib
import pathlib
import subprocess
import sys

import pytest

import hrm_jax
from hrm_jax import __main__ as entry
from hrm_jax.cli import common
from tests import commands

ROOT = pathlib.Path(__file__).resolve().parent.parent
WITH_ARGPARSE = sorted(set(entry.COMMANDS) - {'train', 'eval'})  # the two take a configuration
SLOW = {'jax', 'jaxlib', 'flax', 'optax', 'orbax', 'numpy', 'tensorflow', 'matplotlib', 'torch'}


def python(script: str) -> str:
    """Runs a script in a process of its own; returns what it printed."""
    done = subprocess.run(
        [sys.executable, '-c', script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def parsers(command: str) -> list[argparse.ArgumentParser]:
    """The parser of a command and those of its own commands (``score arc``)."""
    found = [importlib.import_module(entry.COMMANDS[command][0]).parser()]
    for action in found[0]._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += action.choices.values()
    return found


def test_help_of_every_command_needs_no_jax():
    lines = [['--help'], *([name, '--help'] for name in entry.COMMANDS)]
    printed = python(
        'import sys\n'
        'from hrm_jax.__main__ import main\n'
        f'for line in {lines!r}:\n'
        '  try: main(line)\n'
        '  except SystemExit as end: assert not end.code, line\n'
        f'print(sorted({SLOW!r} & set(sys.modules)))'
    )
    assert printed.splitlines()[-1] == '[]'
    for name, (_, text) in entry.COMMANDS.items():
        assert f'  {name:<12} {text}\n' in printed
    assert printed.count('usage: hrm-jax ') == 1 + len(WITH_ARGPARSE)
    for flag in ('--[no]dry-run:', '--start-timeout:', "(default: '300')", '--all-steps', '--data'):
        assert flag in printed
    assert 'None' not in printed


@pytest.mark.parametrize('command', WITH_ARGPARSE)
def test_every_flag_is_explained_and_shows_its_default(command):
    for parser in parsers(command):
        text = ' '.join(parser.format_help().split())
        for action in parser._actions:
            names = action.option_strings or [action.dest]
            if isinstance(action, argparse._SubParsersAction):
                assert all(choice.help for choice in action._choices_actions)
                continue
            assert action.help, f'{parser.prog} {names} has no help'
            assert not any('_' in name for name in action.option_strings), names
            if action.option_strings and action.nargs != 0 and action.default not in (None, ''):
                shown = f'(default: {action.default})'
                assert shown in ' '.join(parser._get_formatter()._expand_help(action).split())
                assert shown in text
        assert parser.description or parser is not parsers(command)[0]


def test_a_default_of_0_is_shown_and_an_absent_one_is_not():
    parser = common.parser('x', 'A test.')
    parser.add_argument('--zero', type=int, default=0, help='a number')
    parser.add_argument('--none', help='a text')
    parser.add_argument('--switch', action='store_true', help='a switch')
    text = parser.format_help()
    assert 'a number (default: 0)' in text
    assert text.count('(default') == 1


@pytest.mark.parametrize('command', WITH_ARGPARSE)
def test_underscores_in_the_names_of_flags_are_accepted(command):
    for parser in parsers(command):
        positional = ['x' for action in parser._get_positional_actions() if action.nargs != '?']
        required = [
            action.option_strings[-1] + '=x' for action in parser._actions
            if action.required and action.option_strings
        ]  # fmt: skip
        groups = parser._mutually_exclusive_groups
        required += [f'{g._group_actions[0].option_strings[0]}=x' for g in groups if g.required]
        if any(isinstance(a, argparse._SubParsersAction) for a in parser._actions):
            continue
        for action in parser._actions:
            name = action.option_strings[-1] if action.option_strings else ''
            if '-' not in name.removeprefix('--'):
                continue
            kind = 'overlap' if action.choices else '7'
            value = [] if action.nargs == 0 else [kind]
            common_part = [*positional, *required]
            hyphens = parser.parse_args([*common_part, name, *value])
            spelt = name[:2] + name[2:].replace('-', '_')
            old = parser.parse_args(common.hyphenated([*common_part, spelt, *value]))
            assert hyphens == old
            if value:
                joined = [*common_part, f'{spelt}={value[0]}']
                assert parser.parse_args(common.hyphenated(joined)) == hyphens
            assert getattr(hyphens, action.dest) != action.default


def test_values_keep_their_underscores():
    argv = ['a_b', '--prefix', '_orig_mod.', '--seq_len=9', '--data=a_b', '-o', 'c_d']
    assert common.hyphenated(argv) == [
        'a_b', '--prefix', '_orig_mod.', '--seq-len=9', '--data=a_b', '-o', 'c_d',
    ]  # fmt: skip


def test_the_flags_of_training_are_explained_and_take_both_spellings():
    printed = python(
        'from hrm_jax import main\n'
        'from hrm_jax.cli import common\n'
        'from absl import flags\n'
        'main.define_flags()\n'
        'own = flags.FLAGS.get_key_flags_for_module("hrm_jax.main")\n'
        'assert len(own) > 10\n'
        'for flag in own:\n'
        '  assert "no help" not in flag.help, flag.name\n'
        'for spelt in ("--dry-run", "--dry_run", "--no-dry-run", "--nodry-run", "--nodry_run"):\n'
        '  for timeout in ("--start-timeout=7", "--start_timeout=8"):\n'
        '    common.parse(["x", "--config=quickstart", spelt, timeout], "")\n'
        '    print(flags.FLAGS.dry_run, flags.FLAGS.start_timeout)\n'
    )
    wanted = [f'{dry} {timeout}' for dry in (True, True, False, False, False) for timeout in (7, 8)]
    assert printed.splitlines() == wanted


def test_a_setting_without_an_experiment_is_refused(tmp_path):
    printed = python(
        'import sys\n'
        'sys.stderr = sys.stdout\n'
        'from hrm_jax import main\n'
        f'sys.argv = ["x", "--workdir={tmp_path}", "--config.train.epochs=3"]\n'
        'try:\n'
        '    main.main()\n'
        'except SystemExit as end:\n'
        '    print(end.code)\n'
    )
    assert 'there is none' in printed
    assert f'{str(tmp_path)!r} holds no run' in printed
    assert printed.split()[-1] == '2'


def test_what_is_no_command_is_refused(capsys):
    assert commands.exit_code(entry.main, 'slove') == 2
    assert "error: 'slove' is not a command" in capsys.readouterr().err
    entry.main(['--version'])
    assert capsys.readouterr().out == f'{hrm_jax.__version__}\n'
    entry.main([])
    assert capsys.readouterr().out.startswith('usage: hrm-jax COMMAND')


def test_errors_of_a_user_are_short_and_others_keep_their_traceback(capsys):
    def fails_with(error):
        def command():
            raise error

        return command

    def code_of(error):
        with pytest.raises(SystemExit) as end:
            common.run(fails_with(error))
        return end.value.code

    from hrm_jax import errors

    assert code_of(errors.UsageError('no flag')) == 2
    assert code_of(errors.PuzzleError('no puzzle')) == 1
    assert code_of(FloatingPointError('not finite')) == 1
    assert code_of(FileNotFoundError(2, 'No such file', 'a.txt')) == 1
    assert code_of(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err.splitlines() == [
        'error: no flag', 'error: no puzzle', 'error: not finite', 'error: a.txt: No such file',
        'error: interrupted',
    ]  # fmt: skip
    for error in (ValueError('a fault'), OSError('without a number'), KeyError('x')):
        with pytest.raises(type(error)):
            common.run(fails_with(error))


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['--stepz=3'], 'error: unknown: --stepz=3. Did you mean --steps? '),
        (['--xyzzy'], 'error: unknown: --xyzzy. All flags'),
        (['--steps', 'x'], "invalid int value: 'x'. All flags"),
    ],
)
def test_a_wrong_flag_is_one_line(capsys, arguments, expected):
    from hrm_jax.cli import solve

    assert commands.exit_code(solve.main, *arguments) == 2
    shown = capsys.readouterr().err
    assert expected in shown
    assert shown.endswith('All flags: hrm-jax solve --help\n')
    assert shown.count('\n') == 1


def test_a_folder_without_a_run_is_named_first(tmp_path):
    printed = python(
        'import sys\n'
        'sys.stderr = sys.stdout\n'
        'from hrm_jax import main\n'
        f'sys.argv = ["x", "--mode=eval", "--workdir={tmp_path}/nowhere"]\n'
        'try:\n'
        '    main.main()\n'
        'except SystemExit as end:\n'
        '    print(end.code)\n'
    )
    assert f"error: '{tmp_path}/nowhere' holds no run; give the experiment" in printed
    assert printed.split()[-1] == '2'
