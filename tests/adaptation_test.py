"""From new ARC tasks to a submission: the whole way with a tiny model, kills, and the clock."""

import dataclasses
import json
import math
import time
import zipfile

import numpy as np
import pytest

pytest.importorskip('tensorflow_datasets')
pytest.importorskip('array_record')

from hrm_jax import train
from hrm_jax.adaptation import adapt, budget, task_files
from hrm_jax.adaptation import settings as settings_lib
from hrm_jax.adaptation.answers import Answers
from hrm_jax.adaptation.settings import Settings
from hrm_jax.checkpoint import layout
from hrm_jax.config import ExperimentConfig
from hrm_jax.data import records
from hrm_jax.errors import ConfigError, PredictionError, WorkdirError
from hrm_jax.scoring import arc_votes
from tests import arc_tasks_test
from tests.npy_sets import header

SETTINGS = Settings(steps=6, augmentations=1, folds=0, checkpoints=2)
CONTENT = {
    'aa': arc_tasks_test.task(1, pairs=3),
    'bad': {'train': 1, 'test': [{'input': [[1]]}] * 2},
    'bb': arc_tasks_test.task(2, tests=2),
}


def tiny():
    return ExperimentConfig.from_dict({
        'name': 'tiny',
        'model': {
            'H_cycles': 1, 'L_cycles': 1, 'H_layers': 1, 'L_layers': 1, 'hidden_size': 8,
            'num_heads': 1, 'intermediate_size': 8, 'puzzle_emb_ndim': 8,
            'forward_dtype': 'float32',
        },
        'act': {'halt_max_steps': 2},
        'train': {'global_batch_size': 2},
        'optimizer': {'lr': 1e-2, 'ema_decay': 0.5},
        'logging': {'tensorboard': False},
    })  # fmt: skip


def run(folder, content=CONTENT, settings=SETTINGS, origin=None, **options):
    """Adapts in ``folder/work``; returns the result, and the lines that were printed."""
    folder.mkdir(exist_ok=True)
    asked = task_files.read(str(arc_tasks_test.save(folder / 'tasks.json', content)))
    lines = []
    result = adapt.run(
        asked, origin or adapt.Origin(tiny()), settings, folder / 'work', folder / 'sub.json',
        options.get('started', time.monotonic()), lines.append,
    )  # fmt: skip
    return result, '\n'.join(lines)


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp('undisturbed')
    return folder, *run(folder)


def test_a_submission_is_complete_and_voted_on(undisturbed):
    folder, result, log = undisturbed
    submission = json.loads((folder / 'sub.json').read_text())
    assert submission == result.submission
    arc_votes.check_submission(submission, {'aa': 1, 'bad': 2, 'bb': 2})
    assert submission['bad'] == [{'attempt_1': [[0]], 'attempt_2': [[0]]}] * 2
    assert 'left out: bad:' in log
    answered = sorted((folder / 'work' / 'final' / 'answers').rglob('*.npz'))
    assert [path.parent.name for path in answered] == ['step_5'] * 2 + ['step_6'] * 2
    with np.load(answered[0]) as found:
        assert found['tokens'].shape == (3, 900)  # one view of three tests
    assert result.expected is None
    page = (folder / 'work' / 'report.html').read_text()
    assert '"arc_tasks"' in page
    # Six steps may leave the model without a grid to propose.
    attempts = [test['attempt_1'] for name in ('aa', 'bb') for test in submission[name]]
    assert ('of 4 votes, confidence' in page) == (attempts != [[[0]]] * 3)


def test_a_run_killed_twice_gives_the_bytes_of_an_undisturbed_one(
    undisturbed, tmp_path, monkeypatch
):
    # Other outputs of tests, in the same run: they change nothing either.
    poisoned = json.loads(json.dumps(CONTENT))
    poisoned['bb']['test'][0]['output'], poisoned['aa']['test'][0]['output'] = [[9]], 'no grid'

    class Killed(BaseException):
        pass

    def dies(*_):
        raise Killed

    def after(calls, function):
        def counted(*args):
            nonlocal calls
            calls -= 1
            return function(*args) if calls >= 0 else dies()

        return counted

    with monkeypatch.context() as patched:  # in the fifth train step
        patched.setattr(train.Session, 'log_steps', after(4, train.Session.log_steps))
        with pytest.raises(Killed):
            run(tmp_path, poisoned)
    arc_votes.check_submission(
        json.loads((tmp_path / 'sub.json').read_text()), {'aa': 1, 'bad': 2, 'bb': 2}
    )
    assert layout.steps(tmp_path / 'work' / 'final' / 'run')[-1] < 6
    with monkeypatch.context() as patched:  # between two views
        patched.setattr(Answers, '_solve', after(1, Answers._solve))
        with pytest.raises(Killed):
            run(tmp_path, poisoned)
    _, log = run(tmp_path, poisoned)
    assert 'new run' not in log
    assert (tmp_path / 'sub.json').read_bytes() == (undisturbed[0] / 'sub.json').read_bytes()
    for path in (undisturbed[0] / 'work' / 'final' / 'answers').rglob('*.npz'):
        other = tmp_path / 'work' / path.relative_to(undisturbed[0] / 'work')
        assert other.read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize('content', [
    b'', b'PK\x03\x04' + bytes(40), header('(6,)') + bytes(6), header('(400000000000,)'),
    header('(6,)', '|O') + bytes(99), header('(' * 3000),
])  # fmt: skip
@pytest.mark.filterwarnings('ignore::RuntimeWarning')
@pytest.mark.parametrize('member', [False, True])
def test_damaged_answers_are_named(undisturbed, tmp_path, content, member):
    data = records.load(undisturbed[0] / 'work' / 'final' / 'dataset', 'predict')
    answers = Answers(tmp_path, data, 1)
    path = answers._path(7, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if member:
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('example.npy', content)
    with pytest.raises(PredictionError, match=f'{path.name} must hold the answers of one view'):
        list(answers._rows([7]))


def test_a_workdir_belongs_to_one_request(undisturbed, tmp_path):
    folder = undisturbed[0]
    with pytest.raises(WorkdirError, match=r'settings.steps: 6 before, 7 now'):
        run(folder, settings=dataclasses.replace(SETTINGS, steps=7))
    # Another cap of the time is no other work, and everything is there.
    before = (folder / 'sub.json').read_bytes()
    run(folder, settings=dataclasses.replace(SETTINGS, minutes=60))
    assert (folder / 'sub.json').read_bytes() == before


def test_without_time_there_is_a_complete_submission(tmp_path):
    settings = dataclasses.replace(SETTINGS, minutes=1, folds=1)
    result, log = run(tmp_path, settings=settings, started=time.monotonic() - 60)
    arc_votes.check_submission(result.submission, {'aa': 1, 'bad': 2, 'bb': 2})
    assert 'without an answer: aa, bad, bb' in log
    assert 'fold 1: there was no time for it' in log
    assert result.expected is None
    assert not (tmp_path / 'work' / 'final' / 'run').exists()


def test_what_the_clock_ended_is_not_begun_again_by_a_restart(tmp_path, monkeypatch):
    trained = []

    def stops(config, workdir, *_, **__):
        trained.append(workdir.parent.name)
        return train.Outcome(3, {}, 'time limit', None)

    monkeypatch.setattr(train, 'train', stops)
    monkeypatch.setattr(adapt, '_initial', lambda config: None)
    monkeypatch.setattr(adapt._Part, '_solver_of', lambda *_: None)
    monkeypatch.setattr(Answers, 'measure', lambda *_: None)
    monkeypatch.setattr(Answers, 'seconds', 1.0, raising=False)
    limited = dataclasses.replace(SETTINGS, minutes=60, folds=1)
    for _ in range(2):
        run(tmp_path, settings=limited)
        assert trained == ['fold_1', 'final']
    run(tmp_path, settings=dataclasses.replace(limited, minutes=90))
    assert trained == ['fold_1', 'final'] * 2


def test_a_table_alone_adapts_from_a_checkpoint(undisturbed, tmp_path):
    """The weights stay, new rows begin with the mean of the old ones, and move."""
    from hrm_jax.interop import formats

    origin = adapt.from_checkpoint(str(undisturbed[0] / 'work' / 'final' / 'run'))
    other = {'cc': arc_tasks_test.task(4)}
    settings = dataclasses.replace(SETTINGS, adapt='table', steps=1, checkpoints=1)
    result, log = run(tmp_path, other, settings, origin)
    assert 'the puzzle table has 3 rows for new puzzles, 5 before: mean' in log
    old, _ = formats.open_model(origin.checkpoint)
    new, _ = formats.open_model(tmp_path / 'work' / 'final' / 'run')
    for name in ('embed_tokens', 'lm_head'):
        for a, b in zip(*(sorted(m.weights.params[name].items()) for m in (old, new)), strict=True):
            np.testing.assert_array_equal(a[1], b[1])
    mean = old.weights.puzzle_table.mean(0)
    moved = np.abs(new.weights.puzzle_table - mean).max(1) > 1e-6
    assert np.abs(new.weights.puzzle_table - mean).max() <= 0.011 + 0.001 * np.abs(mean).max()
    assert not moved[0]  # the blank row
    assert moved[1:].any()
    assert set(result.submission) == {'cc'}


def test_time_before_a_kill_counts(tmp_path):
    now = time.monotonic()
    first = budget.Budget(tmp_path, 10, now - 240)
    assert first.left == pytest.approx(600 - 12 - 240, abs=1)
    assert first.share(3) - time.monotonic() == pytest.approx(first.left / 3, abs=1)
    with first.recorded():
        pass
    second = budget.Budget(tmp_path, 10, time.monotonic())
    assert second.used == pytest.approx(240, abs=1)
    assert second.left == pytest.approx(600 - 12 - 240, abs=1)
    assert budget.Budget(tmp_path, 0, now).share(2) == math.inf
    (tmp_path / budget.FILE).write_text('{"seconds": -1}')
    with pytest.raises(WorkdirError, match='must state seconds'):
        budget.Budget(tmp_path, 10, now)


def test_settings_are_checked_and_change_the_experiment():
    with pytest.raises(ConfigError, match='--steps must be greater'):
        Settings(steps=0)
    with pytest.raises(ConfigError, match='--adapt must be one of all, table'):
        Settings(adapt='rows')
    with pytest.raises(ConfigError, match='KEY=VALUE'):
        settings_lib.read_changes(['optimizer.lr'])
    changes = settings_lib.read_changes(['optimizer.lr=1e-3', 'config.optimizer.name=adamw'])
    config = settings_lib.changed(tiny(), changes)
    assert (config.optimizer.lr, config.optimizer.name) == (1e-3, 'adamw')
    with pytest.raises(ConfigError, match='optimiser is not a section'):
        settings_lib.changed(tiny(), (('optimiser.lr', 1),))
    with pytest.raises(ConfigError, match='learning'):
        settings_lib.changed(tiny(), (('optimizer.learning', 1),))
    assert Settings(steps=100).voting_steps == [100, 90, 80]
    assert Settings(steps=2).voting_steps == [2, 1]
