"""Recipes beside each other after the same CPU time."""

import json
import os
from pathlib import Path
import signal
import types

import numpy as np
import pytest

from experiments import sudoku9_minutes
from hrm_jax import files, train
from hrm_jax.errors import WorkdirError

STATE = types.SimpleNamespace(
    weights=types.SimpleNamespace(params={'a': np.zeros((3, 4)), 'b': np.zeros(5)})
)


@pytest.fixture
def lives(monkeypatch):
    """What a training does in its lives, in turns: 'works' until it is told to stop, 'dies'."""
    plan, tested = [], []

    def fake_train(config, run, selector, log):
        del selector, log
        assert config.checkpoint.every_steps == config.train.max_steps == 0
        stopped = []
        before = signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
        if plan.pop(0) == 'dies':
            os.kill(os.getpid(), signal.SIGTERM)
        while not stopped:
            sum(range(1000))
        signal.signal(signal.SIGTERM, before)
        (run / 'steps').mkdir(parents=True, exist_ok=True)
        number = len(list((run / 'steps').iterdir())) + 1
        (run / 'steps' / str(number)).touch()
        return train.Outcome(number, {}, 'SIGTERM', STATE)

    def fake_evaluation(config, run, selector, log):
        del selector, log
        tested.append((run.name, config.eval.halt_max_steps, config.eval.max_examples))
        return {'eval/all/exact_accuracy': 0.25, 'eval/all/accuracy': 0.5, 'eval/all/lm_loss': 1.0}

    monkeypatch.setattr(sudoku9_minutes.train, 'train', fake_train)
    monkeypatch.setattr(sudoku9_minutes.eval_checkpoint, 'evaluate_checkpoint', fake_evaluation)
    monkeypatch.setattr(
        sudoku9_minutes.layout, 'steps',
        lambda run: [int(path.name) for path in (run / 'steps').iterdir()],
    )  # fmt: skip
    return plan, tested


def test_an_interrupted_recipe_gets_its_minutes_and_no_more(tmp_path, lives):
    plan, tested = lives
    minutes = 0.02
    plan += ['works', 'dies', 'works', 'works']

    def race():
        return sudoku9_minutes.race(tmp_path, 'hrm', Path('data'), minutes, 8, lambda text: None)

    assert race() == 'SIGTERM'
    assert tested == [('hrm', 16, 8)]
    assert race() == ''
    assert len(tested) == 3
    assert not plan
    assert race() == ''  # what is done is neither trained nor tested again
    assert len(tested) == 3
    found = files.read_json(tmp_path / 'hrm.json', WorkdirError, dict)
    # The timer counts in ticks of the system.
    assert found['seconds'] == pytest.approx(60 * minutes, abs=0.4)
    assert [point['step'] for point in found['points']] == [1, 3, 4]
    assert found['parameters'] == 17
    lines = sudoku9_minutes.table(tmp_path).splitlines()
    assert len(lines) == 5
    assert lines[-1].endswith('| 17 | 0.02 | 4 | 25% of 8 | 50.0% | 1.000 |')
    log = [{'step': n, 'train/lm_loss': 2.0 / n} for n in range(1, 6)]
    (tmp_path / 'hrm/metrics.jsonl').write_text('\n'.join(map(json.dumps, log)) + '\n')
    found = sudoku9_minutes.results(tmp_path)
    assert [point['minutes'] for point in found['hrm']['training']] == [0.005, 0.01, 0.015, 0.02]
    assert [point['loss'] for point in found['hrm']['training']] == [2, 1, 0.66667, 0.5]
    sudoku9_minutes.draw(found, tmp_path / 'minutes.png')
    assert (tmp_path / 'minutes.png').stat().st_size > 10_000


@pytest.mark.parametrize('arm', sudoku9_minutes.ARMS)
def test_recipes_keep_what_they_are_known_for(arm):
    config = sudoku9_minutes.experiment(arm, Path('data'), 50)
    assert (config.train.global_batch_size, config.eval.halt_max_steps) == (32, 16)
    assert config.model.forward_dtype == 'float32'
    widths = {'installed': 32, 'hrm': 512, 'trm_mlp': 512}
    assert config.model.hidden_size == widths[arm]
