"""One set of weights for several sizes of boards: trained in rounds, tested, resumed."""

import json

import pytest

pytest.importorskip('tensorflow_datasets')
pytest.importorskip('array_record')

from experiments import sudoku_sizes
from hrm_jax.checkpoint import layout
from tests import commands


@pytest.fixture(scope='module', autouse=True)
def _compiled():
    with commands.quick_compiles():
        yield


def test_a_round_trains_every_size_from_the_weights_before_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sudoku_sizes, 'TRAINED', {4: 2, 6: 3})
    monkeypatch.setattr(sudoku_sizes, 'TESTED', (4, 6))
    command = [str(tmp_path), '--rounds=1', '--boards=60', '--tests=8']
    assert sudoku_sizes.main(command) == 0
    assert [layout.steps(tmp_path / f'round_1_{size}') for size in (4, 6)] == [[2], [3]]
    made = json.loads((tmp_path / 'round_1_6/config.json').read_text())
    assert made['data']['augmentation'] == 'stored'  # the others would lead to test boards
    rows = (tmp_path / 'sizes.md').read_text().splitlines()
    assert rows[0] == '| weights | 4x4, 16 steps | 4x4, 64 steps | 6x6, 16 steps | 6x6, 64 steps |'
    assert [row.split(' | ')[0] for row in rows[2:]] == ['| installed, 9x9 alone', '| round 1']
    capsys.readouterr()
    assert sudoku_sizes.main(command) == 0
    assert 'train:' not in capsys.readouterr().err  # nothing was left to do
