"""The comparison with the originals: equal settings, verdicts, failures, and that it resumes."""

import dataclasses
import json
import os
import signal
import stat
import subprocess
import sys
import time

import pytest

from experiments import originals
from experiments.outcome import __main__ as outcome
from experiments.outcome import cases, compare, page, runs
from hrm_jax.config import ExperimentConfig
from hrm_jax.errors import ConfigError

# Another value of a setting, where no number and no switch.
OTHERS = {
    'model.levels': 'single', 'model.block': 'sru', 'model.gradient_window': 'full',
    'model.gated_unit': 'sigmoid_rms', 'model.conv_dtype': 'bfloat16',
    'model.pos_encodings': 'learned', 'model.forward_dtype': 'bfloat16',
    'model.initializer': 'normal', 'model.initial_state': 'learned',
    'model.flow_times': 'random_start', 'act.halting': 'q_learning',
    'loss.loss_type': 'softmax_cross_entropy', 'data.source': 'file.csv',
    'data.source_flags': '--words', 'data.augmentation': 'digits', 'optimizer.name': 'muon',
    'optimizer.muon_dtype': 'float32', 'optimizer.muon_scale': 'match_rms_adamw',
    'optimizer.muon_skip': ('embed',), 'train.curriculum': 'cgar',
    'train.curriculum_shares': (0.1, 0.2), 'train.puzzle_table': 'mean',
    'train.early_stopping.metric': 'train/lm_loss', 'train.early_stopping.mode': 'min',
    'eval.split': 'train', 'eval.halting': 'adaptive', 'eval.depth_multiples': (2,),
    'eval.subset': 'random10-seed0', 'eval.identifiers': 'blank',
    'eval.rollouts.selection': 'vote',
}  # fmt: skip


class _Flat(ExperimentConfig):
    """A configuration that only has values: nothing refuses what would contradict itself."""

    def __init__(self, values):
        object.__setattr__(self, 'values', values)

    def to_dict(self):
        return self.values

    @property
    def seed(self):
        return self.values['seed']

    @property
    def data(self):
        return dataclasses.replace(ExperimentConfig().data, path='somewhere')


def _changed(config, name, allowed):
    value = originals.flatten(config)[name]
    possible = [other for other in allowed.get(name, ()) if other != value]
    if possible:  # what the original has must be handed over, not refused
        other = possible[0]
    elif name in OTHERS and OTHERS[name] != value:
        other = OTHERS[name]
    elif isinstance(value, bool):
        other = not value
    elif isinstance(value, int | float):
        other = value + 1
    elif name == 'loss.loss_type':
        other = 'stablemax_cross_entropy'
    else:
        other = 'fixed' if name == 'act.halting' else f'another {value}'
    values = config.to_dict()
    place = values
    *sections, key = name.split('.')
    for section in sections:
        place = place[section]
    place[key] = other
    return _Flat(values)


@pytest.mark.parametrize('name', originals.ORIGINALS)
def test_no_setting_can_differ_between_the_sides(name):
    config = cases.cases()[name].config(3, 'somewhere')
    request = originals.of_original(name, config)
    assert request['seed'] == 3
    assert 'somewhere' in json.dumps(request)
    influential = [key for key in originals.flatten(config) if originals.has_influence(key)]
    assert len(influential) > 100
    for key in influential:
        refused = ''
        try:
            other = originals.of_original(
                name, _changed(config, key, originals.ORIGINALS[name].allowed)
            )
        except ConfigError as error:
            refused = str(error)
        assert key in refused if refused else other != request, key


def test_the_two_sides_are_told_the_same_numbers():
    config = cases.cases()['trm'].config(1, 'folder')
    request = originals.of_original('trm', config)
    arch = request['arch']
    assert (arch['mlp_t'], arch['hidden_size'], arch['L_cycles']) == (True, 64, 2)
    assert (request['ema'], request['ema_rate']) == (True, 0.98)
    assert (request['lr'], request['global_batch_size'], request['epochs']) == (1e-3, 32, 10)
    paths = originals.of_original('paths', cases.cases()['paths'].config(1, 'folder'))
    assert (paths['model']['use_rope'], paths['model']['use_abs_pos']) == (True, True)
    assert paths['training']['grad_clip'] is None
    assert paths['model']['dropout'] == cases.cases()['paths'].configure().model.dropout > 0


def test_what_an_original_lacks_is_refused():
    case = cases.cases()['hrm']
    config = case.config(0, 'folder')
    for section, change, words in (
        ('optimizer', {'ema_decay': 0.9}, r'optimizer\.ema_decay=0\.0 only; got 0\.9'),
        ('model', {'pos_encodings': 'none'}, r'model\.pos_encodings in rope, learned; got none'),
        ('loss', {'loss_type': 'softmax_cross_entropy'}, r'loss\.loss_type in stablemax'),
    ):  # fmt: skip
        part = dataclasses.replace(getattr(config, section), **change)
        with pytest.raises(ConfigError, match=words):
            originals.of_original('hrm', dataclasses.replace(config, **{section: part}))


def _result(side, seed, exact, case='hrm', parameters=5, steps=(10, 20)):
    metrics = {'exact_accuracy': exact, 'accuracy': [v / 2 + 0.5 for v in exact],
               'lm_loss': [1 - v for v in exact]}  # fmt: skip
    return runs.Result(case, side, seed, list(steps), metrics, {'parameters': parameters})


def _pair(original, ours):
    return [
        _result(side, seed, curve)
        for side, curves in (('original', original), ('ours', ours))
        for seed, curve in enumerate(curves)
    ]


def test_a_difference_is_judged_against_the_spread():
    names = ('exact_accuracy', 'accuracy', 'lm_loss')
    alike = _pair([[0.2, 0.90], [0.4, 0.94], [0.3, 0.92]], [[0.3, 0.93], [0.2, 0.90], [0.35, 0.95]])
    found = {v.what: v for v in compare.verdicts(alike, names, 1000)}
    last = found['exact_accuracy, last evaluation']
    assert last.original.mean == pytest.approx(0.92)
    assert last.original.spread == pytest.approx(0.02)
    assert last.difference == pytest.approx(0.02 / 3)
    # By hand: variances .0004 and .0019/3, pooled .00051667, times 2/3, root, times t(.975, 4).
    assert last.margin == pytest.approx(2.7764 * (0.00051667 * 2 / 3) ** 0.5, rel=1e-3)
    assert last.text == 'no difference beyond the spread'
    whole = found['exact_accuracy, mean of all evaluations']
    assert whole.original.values == pytest.approx((0.55, 0.67, 0.61))

    worse = _pair([[0.2, 0.90], [0.4, 0.94], [0.3, 0.92]], [[0.2, 0.80], [0.1, 0.78], [0.2, 0.82]])
    found = {v.what: v for v in compare.verdicts(worse, names, 1000)}
    assert found['exact_accuracy, last evaluation'].text == 'ours is lower, beyond the spread'
    assert found['lm_loss, last evaluation'].text == 'ours is higher, beyond the spread'


def test_equal_seeds_are_not_taken_for_certainty():
    """Three equal values on each side: their spread is 0, that of 100 puzzles is not."""
    results = _pair([[0.5, 0.90]] * 3, [[0.5, 0.91]] * 3)
    few, many = (
        compare.verdicts(results, ('exact_accuracy',), puzzles)[0] for puzzles in (100, 10**6)
    )
    assert not few.differs
    assert many.text == 'ours is higher, beyond the spread'


def test_one_seed_proves_nothing():
    verdict = compare.verdicts(_pair([[0.1, 0.2]], [[0.8, 0.9]]), ('exact_accuracy',), 100)[0]
    assert not verdict.differs
    assert verdict.text == 'inconclusive: one seed shows no spread'


def test_what_is_not_alike_is_not_compared():
    good = _result('original', 0, [0.1, 0.2])
    with pytest.raises(runs.OutcomeError, match='same number of parameters; got 5 and 6'):
        compare.check([good, _result('ours', 0, [0.1, 0.2], parameters=6)])
    with pytest.raises(runs.OutcomeError, match=r'after the same steps; got \[10, 20\] and'):
        compare.check([good, _result('ours', 0, [0.1, 0.2], steps=(10, 21))])
    theirs = [good, _result('original', 1, [0.1, 0.2])]
    assert compare.comparable(theirs) == []
    assert len(compare.comparable([*theirs, _result('ours', 5, [0.1, 0.2])])) == 3


# In place of an interpreter with torch, and of ours: each writes the curve that its case asks for.
SIDE = """#!{python}
import json, os, pathlib, sys
request = json.loads(pathlib.Path(sys.argv[-2]).read_text())
calls = pathlib.Path({calls!r})
with calls.open('a') as file:
    file.write(os.environ['OMP_NUM_THREADS'] + os.environ['CUDA_VISIBLE_DEVICES'] + chr(10))
{body}
"""
LEARNS = """
names = ('exact_accuracy', 'accuracy', 'acc4x')
result = {'steps': [40, 80], 'metrics': {name: [0.25, 0.5] for name in names},
          'facts': {'parameters': 7, 'torch': '0', 'stand_ins': ['flash_attn']}}
pathlib.Path(sys.argv[-1]).write_text(json.dumps(result))
"""
FAILS = """
print('Traceback'); print("ModuleNotFoundError: No module named 'einops'"); sys.exit(1)
"""


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / 'checkout'
    (folder / 'hrm').mkdir(parents=True)
    (folder / 'hrm' / 'hrm.py').touch()
    return folder


@pytest.fixture
def run_command(tmp_path, checkout, monkeypatch):
    def run(body, *flags):
        python = tmp_path / 'python'
        python.write_text(
            SIDE.format(python=sys.executable, calls=str(tmp_path / 'calls'), body=body)
        )
        python.chmod(python.stat().st_mode | stat.S_IXUSR)
        ours = tmp_path / 'ours'
        ours.write_text(
            SIDE.format(python=sys.executable, calls=str(tmp_path / 'ours_calls'), body=LEARNS)
        )
        ours.chmod(ours.stat().st_mode | stat.S_IXUSR)
        command = runs.Run._command
        monkeypatch.setattr(
            runs.Run, '_command', lambda r: [str(ours)] if r.side == 'ours' else command(r)
        )
        return outcome.main([
            '--small', '--paths', str(checkout), '--python', str(python), '--seeds', '2',
            '--folder', str(tmp_path / 'runs'), '--output', str(tmp_path / 'result'), *flags,
        ])  # fmt: skip

    yield run
    monkeypatch.undo()


def test_runs_are_kept_and_not_done_again(tmp_path, run_command, capsys):
    assert run_command(LEARNS) == 0
    assert (tmp_path / 'calls').read_text() == '1\n1\n'
    text = (tmp_path / 'result.md').read_text()
    assert '7 parameters on both sides' in text
    assert 'no difference beyond the spread' in text
    assert '| 80 | 0.5000 +- 0.0000 |' in text
    assert (tmp_path / 'result.png').stat().st_size > 10_000
    curves = sorted(path.name for path in (tmp_path / 'runs' / 'curves').iterdir())
    assert curves == [
        f'paths-{side}-seed{seed}.json' for side in ('original', 'ours') for seed in (0, 1)
    ]
    (tmp_path / 'runs' / 'curves' / curves[0]).unlink()
    assert run_command(LEARNS) == 0
    assert (tmp_path / 'calls').read_text() == '1\n1\n1\n'
    assert len(json.loads((tmp_path / 'result.json').read_text())['results']) == 4


def test_an_original_that_fails_is_named(tmp_path, run_command, capsys):
    assert run_command(FAILS) == 1
    error = capsys.readouterr().err
    assert "could not run (ModuleNotFoundError: No module named 'einops'); log: " in error
    text = (tmp_path / 'result.md').read_text()
    assert '**Not compared:** paths-original-seed0 could not run (ModuleNotFoundError' in text
    assert (tmp_path / 'calls').read_text() == '1\n'  # its other seeds are not tried
    assert '| exact_accuracy' not in text
    # Repaired, it does what is missing; ours is kept.
    ours = (tmp_path / 'ours_calls').read_text()
    assert run_command(LEARNS) == 0
    assert (tmp_path / 'ours_calls').read_text() == ours


def test_a_curve_of_other_settings_is_not_mixed_in(tmp_path, run_command, capsys):
    assert run_command(LEARNS) == 0
    path = tmp_path / 'runs' / 'curves' / 'paths-ours-seed1.json'
    values = json.loads(path.read_text())
    values['settings'] = values['settings'].replace('"model.dropout": 0.05', '"model.dropout": 0')
    path.write_text(json.dumps(values))
    assert run_command(LEARNS) == 1
    assert 'must be a run of the same settings' in capsys.readouterr().err


def test_a_wrong_checkout_is_refused(tmp_path, capsys):
    assert outcome.main(['--hrm', str(tmp_path), '--folder', str(tmp_path / 'runs')]) == 1
    error = capsys.readouterr().err
    assert 'must be a checkout of sapientinc/HRM' in error
    assert 'git clone https://github.com/sapientinc/HRM' in error


def test_a_case_without_results_is_reported_as_such():
    case = cases.cases()['hrm']
    text = page.page({'date': 'today'}, [case], [], {'hrm': ['it could not run']}, '')
    assert '**Not compared:** it could not run' in text


def test_a_stop_ends_the_runs(tmp_path, checkout):
    """The process of a side must not go on when the command is stopped."""
    waits = tmp_path / 'python'
    waits.write_text(f'#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 600\n')
    waits.chmod(0o755)
    flags = ['--small', '--paths', str(checkout), '--python', str(waits), '--seeds', '1']
    command = [sys.executable, '-m', 'experiments.outcome', *flags, '--folder', f'{tmp_path}/runs']
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 300
    while not (tmp_path / 'pid').exists() or not (tmp_path / 'pid').read_text().strip():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.1)
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / 'pid').read_text()), 0)
