"""The benchmark: every program of a tiny model runs, and times are told apart and written."""

import json
import math
import os
import pathlib
import stat
import subprocess
import sys

import pytest

from experiments.benchmark import __main__ as benchmark
from experiments.benchmark import cases, rounds, their_side
from hrm_jax.errors import ConfigError

# Stands in for an interpreter with torch: speaks the protocol and says that a run takes 10 s.
FAKE = """#!{python}
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    if request['do'] == 'make':
        settings = request['settings']
        assert settings['arch']['hidden_size'] == 64 and settings['global_batch_size'] == 4
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
    (tmp_path / 'models' / 'hrm' / 'hrm_act_v1.py').touch()

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
    # It ran out of memory in the middle: what it did stays, and the rows after it have the reason.
    theirs = {p: r for (p, side), r in found.items() if side != 'ours'}
    assert list(theirs) == ['train step', 'forward and backward', 'eval step']
    for program in list(theirs)[1:]:
        assert 'runs_per_second' not in theirs[program]
        reason = theirs[program]['notes']['could not run']
        assert reason == 'forward and backward: OutOfMemoryError: none left'
    shown = capsys.readouterr()
    assert 'could not run: forward and backward: OutOfMemoryError: none left' in shown.out
    assert len(found['forward and backward', 'ours']['seconds']) == 2
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
    assert page.count('| sudoku_extreme_1k | 82 | 4 | float32 | auto |') == 8
    assert page.count('could not run: forward and backward: OutOfMemoryError: none left') == 2
    assert report['machine']['threads of each side'] == str(len(os.sched_getaffinity(0)))


def test_an_original_that_never_ran_has_rows_and_an_exit_code(tmp_path, capsys):
    (tmp_path / 'models' / 'hrm').mkdir(parents=True)
    (tmp_path / 'models' / 'hrm' / 'hrm_act_v1.py').touch()
    ends = tmp_path / 'python'
    ends.write_text('#!/bin/sh\necho no torch here >&2\nexit 3\n')
    ends.chmod(0o755)
    code = benchmark.main([
        '--quick', '--batch-size', '4', '--act-steps', '2', '--set', 'model.H_cycles=1',
        '--program', 'eval step', '--no-bytes', '--peer', str(tmp_path),
        '--peer-python', str(ends), '--output', str(tmp_path / 'result'),
    ])  # fmt: skip
    assert code == 1
    shown = capsys.readouterr()
    assert 'error: the original was not timed: the process of the original ended' in shown.err
    results = json.loads((tmp_path / 'result.json').read_text())['results']
    assert [r['side'] for r in results] == ['ours', 'original, eager']
    assert 'ratio' not in results[0]
    assert f'{ends} must have torch' in results[1]['notes']['could not run']


def test_rounds_under_load_are_left_out():
    nan = math.nan
    found = [{'ours': x, 'theirs': 2 * x} for x in (1.0, 5.0, 1.1, 1.2)]
    chosen = rounds.choose(found, [0.0, 1.4, 0.1, nan])
    assert chosen.seconds == {'ours': [1.0, 1.1, 1.2], 'theirs': [2.0, 2.2, 2.4]}
    assert (chosen.dropped, chosen.under_load) == (1, False)
    assert chosen.others == pytest.approx(0.05)
    busy = rounds.choose(found, [0.9, 1.4, 0.1, 1.1])
    assert (len(busy.seconds['ours']), busy.dropped, busy.under_load) == (4, 0, True)
    unknown = rounds.choose(found, [nan] * 4)
    assert (unknown.dropped, unknown.under_load) == (0, False)


def test_rounds_under_load_are_measured_again(monkeypatch):
    """Other programs are seen in every second round; six rounds are needed for three quiet ones."""
    loads = iter([0.0, 1.0] * 6)
    clock = {'busy': 0.0, 'time': 0.0}

    def run(times):
        clock['time'] += 1.0
        return 0.5 * times

    def busy():
        return clock['busy']

    def choose(found, others):
        seen.extend(others)
        return rounds_choose(found, others)

    seen, rounds_choose = [], rounds.choose
    monkeypatch.setattr(rounds, 'choose', choose)
    monkeypatch.setattr(rounds, '_busy_seconds', busy)
    monkeypatch.setattr(rounds, '_seconds_of', lambda pid: 0.0)
    monkeypatch.setattr(rounds.time, 'perf_counter', lambda: clock['time'])

    def noisy(times):
        clock['busy'] += next(loads) if clock['time'] >= 2 else 0.0
        return run(times)

    measured = rounds.measure({'ours': noisy}, 3, 1.0)
    assert seen == [0.0, 1.0, 0.0, 1.0, 0.0]
    assert measured.seconds == {'ours': [0.5, 0.5, 0.5]}
    assert measured.dropped == 2


@pytest.mark.skipif(not hasattr(os, 'sched_setaffinity'), reason='this system pins no process')
def test_both_sides_are_pinned_to_as_many_cores():
    code = """
import os, subprocess, sys
from experiments.benchmark import rounds
cores = len(os.sched_getaffinity(0))
assert rounds.pin(1) == 1
print(len(os.sched_getaffinity(0)), os.environ['OMP_NUM_THREADS'], flush=True)
child = 'import os; print(len(os.sched_getaffinity(0)), os.environ["OMP_NUM_THREADS"])'
subprocess.run([sys.executable, '-c', child])
"""
    shown = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ['1', '1', '1', '1']
    with pytest.raises(ValueError, match='--threads must be at most'):
        rounds.pin(10_000)


def test_only_what_the_original_has_is_compared():
    maze, mixer = (cases.load(name, 8, '', 'auto') for name in ('maze_hard_1k', 'sudoku_trm_mlp'))
    assert their_side.obstacle(maze, 'hrm') == ''
    assert 'trains with model.levels=shared only' in their_side.obstacle(maze, 'trm')
    assert 'trains with model.levels=separate only' in their_side.obstacle(mixer, 'hrm')
    assert their_side.obstacle(mixer, 'trm') == ''


@pytest.mark.parametrize(('size', 'names'), [
    ('tiny', ['hrm']), ('small', ['paths', 'trm']), ('full', ['hrm']),
])  # fmt: skip
def test_every_size_has_an_original(size, names):
    args = benchmark.parse(['--size', size, '--act-steps', '4'])
    found = benchmark.find_cases(args, on_cpu=True)
    assert args.config == []
    for case, name in zip(found, names, strict=True):
        assert their_side.obstacle(case, name) == ''
        assert case.config.model.forward_dtype == 'float32'


def test_a_peer_must_be_a_known_checkout(tmp_path, capsys):
    assert benchmark.main(['--quick', '--peer', str(tmp_path)]) == 1
    assert 'error: --peer must be a checkout of one of sapientinc/HRM' in capsys.readouterr().err


def test_settings_go_over_the_configuration():
    case = cases.load('arc1', 0, 'float32', 'xla', settings=('model.remat=true', 'seed=3'))
    assert (case.rows, case.config.model.remat, case.config.seed) == (768, True, 3)
    assert case.config.model.total_len == 901
    with pytest.raises(ConfigError, match=r'unknown config key model\.remta'):
        cases.load('arc1', 0, '', 'auto', settings=('model.remta=true',))


def test_unknown_configurations_are_refused(capsys):
    assert benchmark.main(['--config', 'nonesuch']) == 1
    assert 'nonesuch' in capsys.readouterr().err


def test_two_checkouts_take_turns(tmp_path):
    root = pathlib.Path(__file__).resolve().parent.parent
    command = [sys.executable, '-m', 'experiments.speed.before_after', '--quick', '--rounds=2',
               '--seconds=0', '--config=quickstart:8']  # fmt: skip
    done = subprocess.run(
        [*command, '--side', f'before={root},GLIBC_TUNABLES=', f'after={root}'], cwd=root,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    before, after = (
        [cell.strip() for cell in line.split('|')[1:-1]] for line in done.stdout.splitlines()[-2:]
    )
    assert (before[0], before[3], after[0]) == ('before', '1.00', 'after')
    assert float(after[1]) >= float(after[2]) > 0
    bad = subprocess.run(
        [*command, '--side', f'before={tmp_path}', 'after=.'], cwd=root, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert bad.returncode == 1
    assert bad.stderr.startswith('error: --side must be NAME=DIR')
