"""The benchmark: every program of a tiny model runs, and times are told apart and written."""

import json
import stat
import sys

import pytest

from experiments.benchmark import __main__ as benchmark
from experiments.benchmark import cases, their_side
from hrm_jax.errors import ConfigError

# Stands in for an interpreter with torch: speaks the protocol and says that a run takes 10 s.
FAKE = """#!{python}
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    if request['do'] == 'make':
        assert request['model']['hidden_size'] == 64 and request['rows'] == 4
        answer = {{'parameters': 1}}
    elif request['program'] == 'forward and backward':
        answer = {{'error': 'OutOfMemoryError: none left'}}
    else:
        answer = {{'seconds': 10.0 * request['times'], 'peak_bytes': 2**30}}
    print(json.dumps(answer), flush=True)
"""


def test_every_program_is_timed_beside_the_original(tmp_path, capsys):
    python = tmp_path / 'python'
    python.write_text(FAKE.format(python=sys.executable))
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    (tmp_path / 'models' / 'hrm').mkdir(parents=True)

    code = benchmark.main([
        '--quick', '--batch-size', '4', '--act-steps', '2', '--set', 'model.H_cycles=1',
        'act.halt_max_steps=3', 'train.steps_per_dispatch=2', '--peer', str(tmp_path),
        '--peer-python', str(python), '--output', str(tmp_path / 'out' / 'result'),
    ])  # fmt: skip

    assert code == 0
    report = json.loads((tmp_path / 'out' / 'result.json').read_text())
    assert report['ceilings']['products']['float32'] > report['ceilings']['copies'] > 1e8
    found = {(r['program'], r['side']): r for r in report['results']}
    assert {program for program, side in found if side == 'ours'} == set(benchmark.PROGRAMS)
    # It ran out of memory in the middle: what it did stays, the rest goes on without it.
    assert [p for p, side in found if side != 'ours'] == ['train step']
    assert 'OutOfMemoryError: none left' in capsys.readouterr().err
    ours, theirs = found['train step', 'ours'], found['train step', 'original, eager']
    # A run is two steps here, on both sides.
    assert theirs['runs_per_second'] == pytest.approx(0.05)
    assert theirs['examples_per_second'] == pytest.approx(0.4)
    assert ours['ratio'] == pytest.approx(0.05 / ours['runs_per_second'])
    assert ours['notes'] == {'steps per call': 2}
    assert len(ours['seconds']) == 2
    assert 0 < ours['of_products'] < 1.5
    assert ours['of_copies'] > 0
    assert found['eval step', 'ours']['notes'] == {'ACT steps': 2}
    assert 1 <= found['adaptive inference', 'ours']['notes']['mean ACT steps'] <= 2
    page = (tmp_path / 'out' / 'result.md').read_text()
    assert page.count('| sudoku_extreme_1k | 82 | 4 | float32 | auto |') == 6


def test_only_what_the_original_has_is_compared():
    assert their_side.obstacle(cases.load('maze_hard_1k', 8, '', 'auto')) == ''
    assert 'HRM with attention' in their_side.obstacle(cases.load('sudoku_trm_mlp', 8, '', 'auto'))


def test_settings_go_over_the_configuration():
    case = cases.load('arc1', 0, 'float32', 'xla', settings=('model.remat=true', 'seed=3'))
    assert (case.rows, case.config.model.remat, case.config.seed) == (768, True, 3)
    assert case.config.model.total_len == 901
    with pytest.raises(ConfigError, match=r'unknown config key model\.remta'):
        cases.load('arc1', 0, '', 'auto', settings=('model.remta=true',))


def test_unknown_configurations_are_refused(capsys):
    assert benchmark.main(['--config', 'nonesuch']) == 1
    assert 'nonesuch' in capsys.readouterr().err
