"""Data sets from the package reasoning-gym: texts, grids, seeds; with the package where it is."""

import random
import sys
import types

import pytest

from data_builders import reasoning_gym
from hrm_jax.data import records, text
from hrm_jax.errors import BuildError


class Sums:
    """Behaves as the package's data sets do: puzzles by number, drawn from a seed."""

    def __init__(self, size, seed, high=50):
        self.size, self.seed, self.high = size, seed, high

    def __getitem__(self, number):
        rng = random.Random(f'{self.seed}-{number}')
        a, b = rng.randrange(self.high), rng.randrange(self.high)
        return {'question': f'Add.\n{a} + {b} =', 'answer': str(a + b), 'metadata': {'a': a}}


class Mirrored(Sums):
    """Grids: rows of two words, mirrored in the answer."""

    hints = ('Mirror',)

    def __getitem__(self, number):
        rng = random.Random(f'{self.seed}-{number}')
        rows = [(rng.randrange(30), rng.randrange(30)) for _ in range(3)]
        hint = rng.choice(self.hints)
        answer = '\n'.join(f'{b} {a}' if hint == 'Mirror' else f'{a} {b}' for a, b in rows)
        grid = '\n'.join(f'{a} {b}' for a, b in rows)
        return {'question': f'1 2\n\n{hint} this matrix:\n{grid}\n', 'answer': answer}


class MirroredOrCopied(Mirrored):
    """What to do with the grid is in the words around it."""

    hints = ('Mirror', 'Copy')


@pytest.fixture
def package(monkeypatch):
    def create_dataset(name, size, seed, **settings):
        kinds = {'sums': Sums, 'mirrored': Mirrored, 'either': MirroredOrCopied}
        if name not in kinds:
            raise ValueError(f"Dataset '{name}' not registered")
        return kinds[name](size, seed, **settings)

    module = types.ModuleType('reasoning_gym')
    module.create_dataset = create_dataset
    monkeypatch.setitem(sys.modules, 'reasoning_gym', module)


def texts(folder, split):
    reading = text.reading_of(folder)
    puzzles = records.load(folder, split).sets['all']
    return [
        (reading.decode(question), reading.decode(answer))
        for question, answer in zip(puzzles.inputs, puzzles.labels, strict=True)
    ]


def test_texts_keep_their_line_breaks_and_test_questions_are_new(tmp_path, package):
    folder = tmp_path / 'data'
    manifest = reasoning_gym.build(
        str(folder), task='sums', count=60, test_count=20, set=['high=12'], show=False
    )
    assert manifest['notes']['leaks']['equal_inputs'] == 0
    assert manifest['options']['set'] == ['high=12']
    found = {split: texts(folder, split) for split in ('train', 'test')}
    assert [len(part) for part in found.values()] == [60, 20]
    assert not {q for q, _ in found['train']} & {q for q, _ in found['test']}
    assert len({q for q, _ in found['train']}) == 60
    for question, answer in found['train'] + found['test']:
        first, second = question.split(reasoning_gym.BREAK)
        a, b = second.removesuffix(' =').split(' + ')
        assert (first, int(answer)) == ('Add.', int(a) + int(b))
        assert max(int(a), int(b)) < 12
    again = reasoning_gym.build(
        str(tmp_path / 'again'), task='sums', count=60, test_count=20, set=['high=12'], show=False
    )
    assert texts(tmp_path / 'again', 'test') == found['test']
    assert again['counts'] == manifest['counts']


def test_grids_become_grids_of_words(tmp_path, package):
    folder = tmp_path / 'data'
    reasoning_gym.build(str(folder), task='mirrored', count=20, test_count=5, show=False)
    data = records.load(folder, 'train')
    assert data.metadata.task_of().shape == (3, 2)
    for question, answer in texts(folder, 'train'):
        rows = [line.split() for line in question.split('\n')]
        assert '\n'.join(f'{b} {a}' for a, b in rows) == answer


def test_a_grid_that_does_not_state_the_whole_question_stays_a_text(tmp_path, package):
    folder = tmp_path / 'data'
    manifest = reasoning_gym.build(str(folder), task='either', count=20, test_count=5, show=False)
    assert manifest['notes']['form'] == 'text'
    found = texts(folder, 'train')
    assert {question.split()[1].split(reasoning_gym.BREAK)[-1] for question, _ in found} == {
        'Mirror', 'Copy',
    }  # fmt: skip


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'task': 'nothing'}, "cannot make the task 'nothing'.*not registered"),
        ({'task': 'sums', 'set': ['low=3']}, 'cannot make the task'),
        ({'task': 'sums', 'set': ['high']}, "--set must be KEY=VALUE; got 'high'"),
        ({'task': 'sums', 'set': ['high=3'], 'count': 20}, 'must give 20 different puzzles'),
        ({'task': 'sums', 'max_length': 5}, 'of at most 5 cells'),
        ({'task': 'sums', 'count': 0}, 'must be at least 1'),
    ],
)
def test_impossible_settings_are_refused(tmp_path, package, settings, message):
    with pytest.raises(BuildError, match=message):
        reasoning_gym.build(str(tmp_path / 'data'), show=False, **settings)
    assert not (tmp_path / 'data').exists()


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'reasoning_gym', None)
    with pytest.raises(BuildError, match='pip install reasoning-gym'):
        reasoning_gym.build(str(tmp_path / 'data'), task='sums', show=False)


@pytest.mark.parametrize('task', ['mini_sudoku', 'chain_sum'])
def test_tasks_of_the_package(tmp_path, task):
    package = pytest.importorskip('reasoning_gym', reason='an optional package')
    reasoning_gym.build(str(tmp_path / 'data'), task=task, count=8, test_count=2, show=False)
    data = records.load(tmp_path / 'data', 'train')
    assert data.sets['all'].num_examples == 8
    assert data.metadata.task_of().is_board == (task == 'mini_sudoku')
    first = package.create_dataset(task, size=1, seed=0)[0]
    _, answer = texts(tmp_path / 'data', 'train')[0]
    assert answer.split() == first['answer'].split()
