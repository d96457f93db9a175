"""Branches: another learning rate in the same workdir, recorded, and resumed after a kill."""

import json

import pytest

from hrm_jax import train
from hrm_jax.checkpoint import layout, retention
from hrm_jax.errors import CheckpointError, WorkdirError
from hrm_jax.run import branches
from hrm_jax.run.session import Session
from tests import commands, tiny_run


@pytest.fixture(scope='module', autouse=True)
def _compiled():
    with commands.quick_compiles():
        yield


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return tiny_run.write_dataset(tmp_path_factory.mktemp('data') / 'set')


def _train(data, run, steps, selector='', lr=1e-3, **optimizer):
    log = []
    kept = {'every_steps': 3, 'keep_latest': 5}
    optimizer = {'lr': lr} | optimizer
    config = tiny_run.config(data, train={'max_steps': steps}, checkpoint=kept, optimizer=optimizer)
    train.train(config, run, selector, log=log.append)
    return '\n'.join(log)


def _killed(*_):
    raise KeyboardInterrupt


def test_a_branch_is_recorded_and_resumes(data, tmp_path, monkeypatch):
    run = tmp_path / 'run'
    _train(data, run, 6)
    with pytest.raises(CheckpointError, match=r'optimizer\.lr'):
        _train(data, run, 9, lr=1e-4)
    with monkeypatch.context() as patch:
        patch.setattr(Session, 'run_steps', _killed)  # before its first save
        with pytest.raises(KeyboardInterrupt):
            _train(data, run, 6, '3', lr=1e-4)
    assert layout.steps(run) == [3]
    assert [one['step'] for one in branches.read(run)] == [3]
    text = _train(data, run, 6, lr=1e-4)
    assert 'branch at step 3' in text
    assert 'optimizer.lr: 0.001 -> 0.0001' in text
    assert 'branch at' not in _train(data, run, 9, lr=1e-4)
    assert layout.steps(run) == [3, 6, 9]
    meta = layout.read_meta(run / layout.FOLDER / '9')
    assert meta['config']['optimizer']['lr'] == 1e-4
    assert meta['branches'][0]['changes'] == {'optimizer.lr': [1e-3, 1e-4]}
    steps = [json.loads(line)['step'] for line in (run / 'metrics.jsonl').read_text().splitlines()]
    assert steps == list(range(1, 10))
    # A third rate is a branch of its own, not the recorded one.
    with pytest.raises(CheckpointError, match=r'optimizer\.lr'):
        _train(data, run, 12, lr=1e-5)


@pytest.mark.parametrize('change', [{'ema_decay': 0.5}, {'name': 'adamw'}, {'grad_clip_norm': 1.0}])
def test_what_the_state_is_made_of_does_not_change_in_a_branch(data, tmp_path, change):
    _train(data, tmp_path, 3)
    with pytest.raises(CheckpointError, match=next(iter(change))):
        _train(data, tmp_path, 6, '3', **change)
    assert branches.read(tmp_path) == []


@pytest.mark.parametrize('text', ['{', '{}', '[1]', '[{"step": "3", "changes": {}}]', '[{}]'])
def test_a_damaged_record_of_branches_is_named(tmp_path, text):
    (tmp_path / branches.FILE).write_text(text)
    with pytest.raises(WorkdirError, match=branches.FILE):
        branches.read(tmp_path)


@pytest.mark.parametrize(
    ('losses', 'healthy'),
    [
        ([2.0, 1.5, 1.0], 30), ([2.0, 1.0, 1.1], 30), ([2.0, 1.0, 5.0], 20),
        ([1.0, 3.0, 9.0], 10), ([None, None, None], 10), ([2.0, None, 9.0], 10),
        ([2.0, 9.0, 1.9], 30), ([], None),
    ],
)  # fmt: skip
def test_the_last_good_checkpoint_is_one_whose_loss_had_not_risen(
    tmp_path, monkeypatch, losses, healthy
):
    steps = [10 * (k + 1) for k in range(len(losses))]
    meta = {
        str(step): {'record': None if loss is None else {'train/lm_loss': loss}}
        for step, loss in zip(steps, losses, strict=True)
    }
    monkeypatch.setattr(layout, 'steps', lambda _: steps)
    monkeypatch.setattr(layout, 'read_meta', lambda path: meta[path.name])
    assert retention.healthy_step(tmp_path) == healthy


def test_other_versions_are_noted(data, tmp_path, monkeypatch):
    _train(data, tmp_path, 3)
    assert 'other versions' not in _train(data, tmp_path, 4)
    import hrm_jax

    monkeypatch.setattr(hrm_jax, '__version__', '9.9.9')
    assert 'hrm_jax 0.1.0 -> 9.9.9' in _train(data, tmp_path, 5)
