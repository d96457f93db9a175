"""The commands that build data sets: one source, the first lines of every configuration."""

import importlib
import json
import pathlib
import re
import shlex

import numpy as np
import pytest

pytest.importorskip('tensorflow_datasets')
pytest.importorskip('array_record')

from data_builders import commandline, maze, sudoku
from hrm_jax.config import ExperimentConfig, shipped
from hrm_jax.data import building, records
from hrm_jax.errors import DatasetError
from tests.builder_sources import arc_tree, write_csv

COMMANDS = building.documented()


def config_of(name):
    return importlib.import_module(f'configs.{name}')


@pytest.mark.parametrize('name', shipped.names())
def test_a_missing_set_quotes_the_configuration(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    module = config_of(name)
    path = ExperimentConfig.from_dict(module.get_config()).data.path
    with pytest.raises(DatasetError) as error:
        records.load(path, 'train')
    (shown,) = re.findall(r'Build it with: (.*)', str(error.value))
    # As the first lines have it, line breaks aside.
    plain = ' '.join(module.__doc__.replace('\\\n', ' ').split())
    assert shown in plain
    assert shown.startswith('python -m data_builders ')
    assert building.output_of(shown) == path
    elsewhere = building.command(tmp_path / 'a folder' / path)
    words = shlex.split(elsewhere)
    assert words[words.index('--output-dir') + 1] == str(tmp_path / 'a folder' / path)
    assert [w for w in words if '/' not in w] == [w for w in shlex.split(shown) if '/' not in w]


def test_every_set_has_one_command():
    found = {}
    for name in shipped.names():
        for command in building.commands(config_of(name).__doc__):
            found.setdefault(building.output_of(command), set()).add(command)
    assert all(len(commands) == 1 for commands in found.values())
    assert {pathlib.Path(path).name for path in found} == set(COMMANDS)


def test_names_that_no_configuration_has():
    assert building.command('data/my-sudoku') == (
        'python -m data_builders sudoku --output-dir data/my-sudoku'
    )
    assert 'custom}' in building.command('x')
    assert building.commands('text\n  hrm-jax train\n    python -m data_builders x \\\n   --y') == [
        'python -m data_builders x --y'
    ]


def sources_for(root):
    """Small stand-ins for what the commands download or expect."""
    tables = {
        'sudoku': sudoku.generate(9, 3, 2, np.random.default_rng(0)),
        'maze': maze.generate(5, 3, 2, np.random.default_rng(0)),
    }
    for task, splits in tables.items():
        (root / task).mkdir()
        symbols = np.array(list('.123456789' if task == 'sudoku' else '?# SGo'))
        for split, table in splits.items():
            rows = [
                tuple(''.join(symbols[side]) for side in pair)
                for pair in zip(table.questions, table.answers, strict=True)
            ]
            write_csv(root / task / f'{split}.csv', rows, header=('question', 'answer'))
    arc_tree(root / 'arc')
    rows = [(f'{k:03}', f'{k:03}'[::-1]) for k in range(10, 40)]
    write_csv(root / 'custom.csv', rows, header=('question', 'answer'))
    return root


# What makes a command small enough for a test; flags of the command itself are replaced.
SHRUNK = {
    'sudoku': {'--num-aug': '2', '--subsample-size': '2', '--train-count': '8',
               '--test-count': '2'},
    'maze': {'--train-count': '4', '--test-count': '2'},
    'colouring': {'--train-count': '8', '--test-count': '2'},
    'arc': {'--num-aug': '2'},
    'lisp': {'--num-samples': '20'},
    'pathfinding': {'--train-count': '6', '--val-count': '2', '--board-size': '5'},
    'custom': {},
}  # fmt: skip


def shrunk(command, root):
    """The words of a command without `python -m data_builders`, with small sizes and sources."""
    task, *words = shlex.split(command)[3:]
    flags, name = {}, ''
    for word in words:
        if word.startswith('--'):
            name = word
            flags[name] = []
        else:
            flags[name].append(word)
    for name, value in SHRUNK.get(task, {}).items():
        if name in flags or task in ('arc', 'lisp', 'pathfinding'):
            flags[name] = [value]
    if flags.get('--source') != ['generated'] and task in ('sudoku', 'maze', 'arc', 'custom'):
        flags['--source'] = [str(root / ('custom.csv' if task == 'custom' else task))]
    flags['--output-dir'] = [str(root / 'out')]
    return [task, *(word for name, values in flags.items() for word in (name, *values))]


@pytest.mark.parametrize('name', COMMANDS)
def test_the_command_builds_a_set(tmp_path, name):
    words = shrunk(COMMANDS[name], sources_for(tmp_path))
    assert commandline.main([*words, '--quiet']) == 0
    for split in ('train', 'test'):
        data = records.load(tmp_path / 'out', split)
        assert data.sets['all'].num_examples > 0
        assert data.has_answers
    manifest = json.loads((tmp_path / 'out' / records.MANIFEST).read_text())
    assert manifest['task'] == words[0]


def test_a_flag_that_does_not_exist_is_noticed(tmp_path):
    words = shrunk('python -m data_builders maze --output-dir data/x --augment', tmp_path)
    with pytest.raises(SystemExit):
        commandline.main(words)
