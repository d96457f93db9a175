"""N-Queens: rules, solutions, orbits, and a set without leaks."""

import importlib

import numpy as np
import pytest

from data_builders import nqueens
from hrm_jax import tasks
from hrm_jax.config import ExperimentConfig
from hrm_jax.data import records
from hrm_jax.errors import BuildError, PuzzleError

TASK = tasks.kind_of('nqueens')(36, 3)
SOLUTION = '.Q....\n...Q..\n.....Q\nQ.....\n..Q...\n....Q.'


def test_rules_of_questions_and_answers():
    answer = TASK.parse(SOLUTION)
    assert TASK.text(answer) == SOLUTION.replace('\n', '')
    question = TASK.parse('0q....' + '.' * 30)
    assert TASK.is_valid(question, answer)
    assert not TASK.is_valid(TASK.parse('Q' + '.' * 35), answer)  # a given queen has moved
    assert not TASK.is_valid(question, np.where(np.arange(36) == 34, 1, answer))  # five queens
    assert not TASK.is_valid(question, np.where(np.arange(36) == 35, 0, answer))  # padding
    moved = np.where(np.arange(36) == 34, 1, np.where(np.arange(36) == 33, 2, answer))
    assert not TASK.is_valid(question, moved)  # a queen that attacks another
    with pytest.raises(PuzzleError, match=r'row 3, column 4: this queen attacks row 1, column 2'):
        TASK.parse('.Q....' + '......' + '...Q..' + '.' * 18)
    with pytest.raises(PuzzleError, match=r"row 1, column 2 must be 'Q', or .* got 'x'"):
        TASK.parse('.x' + '.' * 34)


def test_solutions_are_counted():
    assert TASK.count_solutions(TASK.parse('.' * 36), limit=9) == 4
    assert TASK.count_solutions(TASK.parse('.Q' + '.' * 34)) == 1
    assert TASK.count_solutions(TASK.parse('Q' + '.' * 35)) == 0
    assert TASK.count_solutions(TASK.parse('.' * 36), max_nodes=3) is None


# The numbers of solutions, and of those that differ after turning and mirroring: OEIS A000170 and
# A002562.
@pytest.mark.parametrize(
    ('size', 'count', 'different'), [(6, 4, 1), (7, 40, 6), (8, 92, 12), (10, 724, 92)]
)
def test_all_solutions_are_found(size, count, different):
    found = nqueens.solutions(size)
    assert len(np.unique(found, axis=0)) == len(found) == count
    assert len(set(nqueens.orbits(found).tolist())) == different


def test_a_set_has_one_answer_each_and_no_leaks(tmp_path):
    settings = {'board_size': 8, 'train_count': 60, 'test_count': 20, 'show': False}
    manifest = nqueens.build(str(tmp_path / 'data'), **settings)
    assert manifest['notes']['leaks']['equal'] == 0
    task, answers = tasks.kind_of('nqueens')(64, 3), {}
    for split in ('train', 'test'):
        data = records.load(tmp_path / 'data', split)
        puzzles = data.sets['all']
        assert data.metadata.task == 'nqueens'
        assert len(np.unique(puzzles.inputs, axis=0)) == settings[f'{split}_count']
        for question, answer in zip(puzzles.inputs, puzzles.labels, strict=True):
            assert 2 <= (question == 2).sum() <= 5
            assert task.is_valid(question, answer)
            assert task.count_solutions(question) == 1
        answers[split] = puzzles.labels.reshape(-1, 8, 8)
    maps = [np.rot90(m, k, (1, 2)) for m in (answers['test'], answers['test'].transpose(0, 2, 1))
            for k in range(4)]  # fmt: skip
    known = {board.tobytes() for board in answers['train']}
    assert not known & {np.ascontiguousarray(board).tobytes() for m in maps for board in m}


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'board_size': 5}, r'--board-size must be in 6\.\.13; got 5'),
        ({'min_givens': 6}, r'in 1\.\.9, in this order; got 6, 5'),
        ({'board_size': 6, 'max_givens': 3}, 'must have at least 2 different puzzles|share'),
        ({'board_size': 8, 'min_givens': 5, 'train_count': 9999}, 'only .* were found, not 9999'),
        ({'test_count': 0}, 'must be at least 1'),
    ],
)
def test_impossible_settings_are_refused(tmp_path, monkeypatch, changes, message):
    monkeypatch.setattr(nqueens, '_MISSES', 1000)
    with pytest.raises(BuildError, match=message):
        nqueens.build(str(tmp_path / 'data'), show=False, **changes)
    assert not (tmp_path / 'data').exists()


def test_the_shipped_configuration_trains_on_it(tmp_path):
    from hrm_jax import train

    nqueens.build(str(tmp_path / 'data'), train_count=64, test_count=8, show=False)
    config = importlib.import_module('configs.nqueens').get_config()
    config.data.path, config.train.max_steps = str(tmp_path / 'data'), 2
    outcome = train.train(ExperimentConfig.from_dict(config), tmp_path / 'run', log=lambda _: None)
    assert 0 <= outcome.metrics['eval/all/exact_accuracy'] <= 1
