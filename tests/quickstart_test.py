"""The parts of the quickstart that the trainer does not test."""

import numpy as np
import pytest

from configs import quickstart as quickstart_config
from experiments import quickstart
from hrm_jax.errors import DatasetError


def test_a_shared_solution_is_refused():
    train, test = np.arange(12).reshape(3, 4), np.arange(20, 28).reshape(2, 4)
    assert quickstart.require_unseen(train, test) == (
        '3 training solutions, 2 test solutions, none in common'
    )
    with pytest.raises(DatasetError, match='1 of the 2 test solutions occur in training'):
        quickstart.require_unseen(train, np.stack([test[0], train[2]]))


def test_puzzles_are_built_once_and_unseen(tmp_path, monkeypatch, capsys):
    from hrm_jax.data import records

    monkeypatch.setattr(quickstart, 'TRAIN_PUZZLES', 300)
    monkeypatch.setattr(quickstart, 'TEST_PUZZLES', 50)
    quickstart.build_puzzles(tmp_path / 'data', seed=1)
    quickstart.build_puzzles(tmp_path / 'data', seed=1)
    assert 'is there already' in capsys.readouterr().out
    answers = []
    for split, count in (('train', 300), ('test', 50)):
        questions, labels = quickstart.all_examples(records.load(tmp_path / 'data', split))
        assert labels.shape == (count, 16)
        assert ((questions == 1) | (questions == labels)).all()
        answers.append(labels)
    quickstart.require_unseen(*answers)


def test_the_commands_by_hand_are_those_of_the_quickstart():
    text = quickstart_config.__doc__
    assert f'--train-count {quickstart.TRAIN_PUZZLES} ' in text.replace('\n', ' ')
    assert f'--test-count {quickstart.TEST_PUZZLES}' in text
    assert quickstart_config.get_config().data.path in text


def test_the_stopwatch_counts_from_the_beginning_of_the_setup():
    clock = quickstart.Stopwatch(started=1.0)
    with clock.part('work'):
        pass
    assert clock.parts['set-up'] > 1e9
    assert str(clock).startswith('set-up ')
    assert 'set-up' not in quickstart.Stopwatch(started=0).parts
