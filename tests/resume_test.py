"""A run that died goes on and ends as if it had not: same log, same arrays, bit for bit."""

import json
import os
import random
import signal
import time

import jax
import numpy as np
import pytest

from hrm_jax import eval_checkpoint, evaluate, partitioning, train, train_state
from hrm_jax.checkpoint import layout, store
from hrm_jax.errors import CheckpointError
from hrm_jax.run import plan
from tests import commands, tiny_run


@pytest.fixture(scope='module', autouse=True)
def _compiled():
    with commands.quick_compiles():
        yield


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return tiny_run.write_dataset(tmp_path_factory.mktemp('resume') / 'data')


def last_state(workdir, config):
    """Returns the arrays of the last checkpoint, its data position and its description."""
    path = layout.resolve('latest', workdir)
    sized = plan.make_plan(config).config
    state, position = store.restore(path, train_state.abstract(sized, partitioning.make_mesh()))
    state = state.replace(rng=jax.random.key_data(state.rng))
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {str(k): np.asarray(v) for k, v in leaves}, position, layout.read_meta(path)


def assert_same_end(one, other, config):
    assert (one / 'metrics.jsonl').read_bytes() == (other / 'metrics.jsonl').read_bytes()
    arrays, *rest = last_state(one, config)
    other_arrays, *other_rest = last_state(other, config)
    assert rest == other_rest
    assert arrays.keys() == other_arrays.keys()
    for name, array in arrays.items():
        assert array.dtype == other_arrays[name].dtype
        assert array.tobytes() == other_arrays[name].tobytes(), name


def _saved(folder):
    return {path.name for path in folder.glob('*')} if folder.is_dir() else set()


def _wait_for(command, folder, moment):
    """Waits until a save begins or has ended, counted from now, or a little longer."""
    known = _saved(folder)
    while command.process.is_alive():
        new = _saved(folder) - known
        if moment == 'saving' and any('tmp' in name for name in new):
            return
        if moment != 'saving' and any('tmp' not in name for name in new):
            time.sleep(random.Random(str(new)).random() * 0.2 if moment == 'running' else 0)
            return
        time.sleep(0.0005)


def test_a_run_that_is_killed_again_and_again_ends_as_the_whole_one(tmp_path, data):
    config = tiny_run.config(data)
    file = tiny_run.write_config_file(tmp_path / 'config.py', data)
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    flags = f'--config={file}'
    moments = [
        ('saving', signal.SIGKILL), ('running', signal.SIGTERM), ('saved', signal.SIGKILL),
        ('saving', signal.SIGINT),
    ]  # fmt: skip
    code, text = commands.run(tmp_path / 'whole.txt', flags, f'--workdir={whole}')
    assert code == 0, text
    ends = []
    for moment, number in moments:
        command = commands.Command(tmp_path / 'out.txt', flags, f'--workdir={killed}')
        _wait_for(command, killed / layout.FOLDER, moment)
        os.kill(command.process.pid, number)
        code, text = command.wait()
        expected = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]
        assert code == expected, text
        if number != signal.SIGKILL:
            assert 'The same command resumes from there.' in text
        ends.append(max(layout.steps(killed), default=0))
    assert ends == sorted(ends)
    assert ends[-1] < 80, 'the run was over before the last signal: make it longer'
    code, text = commands.run(tmp_path / 'out.txt', flags, f'--workdir={killed}')
    assert code == 0, text
    assert f'resumed from step {ends[-1]} of {killed}' in text
    assert_same_end(whole, killed, config)
    records = (whole / 'metrics.jsonl').read_text().splitlines()
    assert len(records) == 80


def test_an_evaluation_that_a_signal_cut_off_is_made_up_for(tmp_path, data, monkeypatch):
    config = tiny_run.config(data, train={'max_steps': 20})
    train.train(config, tmp_path / 'whole')
    whole = evaluate.evaluate
    calls = []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return whole(*args)

    monkeypatch.setattr(evaluate, 'evaluate', interrupted)
    first = train.train(config, tmp_path / 'cut')
    assert (first.signal, first.step, first.metrics) == ('SIGTERM', 10, {})
    assert train.train(config, tmp_path / 'cut').step == 20
    assert_same_end(tmp_path / 'whole', tmp_path / 'cut', config)


def test_a_run_may_be_made_longer_and_then_equals_the_long_one(tmp_path, data):
    long = tiny_run.config(data, train={'max_steps': 20})
    train.train(long, tmp_path / 'long')
    train.train(tiny_run.config(data, train={'max_steps': 10}), tmp_path / 'short')
    logged = []
    train.train(long, tmp_path / 'short', log=logged.append)
    assert any('resumed from step 10' in text for text in logged)
    assert_same_end(tmp_path / 'long', tmp_path / 'short', long)


def test_rewinding_sets_later_checkpoints_aside_and_gives_the_same_end(tmp_path, data):
    config = tiny_run.config(
        data,
        train={'max_steps': 20},
        checkpoint={'every_steps': 3, 'keep_latest': 20},
    )
    train.train(config, tmp_path / 'run')
    before = last_state(tmp_path / 'run', config)
    log = (tmp_path / 'run' / 'metrics.jsonl').read_bytes()
    logged = []
    train.train(config, tmp_path / 'run', '12', log=logged.append)
    assert any('set_aside' in text for text in logged)
    aside = {path.name for path in (tmp_path / 'run' / 'set_aside').iterdir()}
    assert aside == {'15.0', '18.0', '20.0', 'metrics.jsonl'}
    old = eval_checkpoint.evaluate_checkpoint(
        config, tmp_path / 'run', 'set_aside/20.0', logged.append
    )
    assert json.loads(log.splitlines()[19])['eval/all/lm_loss'] == old['eval/all/lm_loss']
    with pytest.raises(CheckpointError, match=r'15\.0 was set aside .* another --workdir'):
        train.train(config, tmp_path / 'run', str(tmp_path / 'run' / 'set_aside' / '15.0'))
    after = last_state(tmp_path / 'run', config)
    assert log == (tmp_path / 'run' / 'metrics.jsonl').read_bytes()
    assert all((before[0][name] == array).all() for name, array in after[0].items())


def test_goes_on_with_another_batch_size_when_told_to(tmp_path, data):
    first = tiny_run.config(data, train={'max_steps': 10})
    train.train(first, tmp_path / 'run', log=lambda _: None)
    smaller = {'global_batch_size': 4, 'max_steps': 13}
    with pytest.raises(CheckpointError, match=r'train.global_batch_size: 8 .*, 4 now'):
        train.train(tiny_run.config(data, train=smaller), tmp_path / 'run')
    logged = []
    for steps in (12, 13):  # the second time nothing changes any more
        changes = {**smaller, 'max_steps': steps, 'change_batch_size': steps == 12}
        outcome = train.train(
            tiny_run.config(data, train=changes), tmp_path / 'run', log=logged.append
        )
        assert outcome.step == steps
    meta = layout.read_meta(layout.resolve('latest', tmp_path / 'run'))
    assert meta['total_steps'] == 10 + (80 - 10) * 2
    position = json.loads(
        (tmp_path / 'run' / layout.FOLDER / '13' / 'data' / 'metadata').read_text()
    )
    assert position['examples'] == 10 * 8 + 3 * 4
    lines = (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
    assert [json.loads(line)['step'] for line in lines] == list(range(1, 14))


def test_checkpoints_may_lie_elsewhere(tmp_path, data):
    place = tmp_path / 'other disk' / 'run'
    settings = {'checkpoint': {'directory': str(place)}}
    for steps in (3, 6):
        config = tiny_run.config(data, train={'max_steps': steps}, **settings)
        train.train(config, tmp_path / 'run', log=lambda _: None)
    assert not (tmp_path / 'run' / layout.FOLDER).exists()
    assert layout.steps(tmp_path / 'run') == [3, 6]
    assert layout.resolve('latest', tmp_path / 'run') == place / layout.FOLDER / '6'
    assert layout.resolve(str(place), tmp_path) == place / layout.FOLDER / '6'
    moved = tiny_run.config(data, train={'max_steps': 6})
    with pytest.raises(CheckpointError, match='Keep it as it was'):
        train.train(moved, tmp_path / 'run')
    remote = tiny_run.config(data, checkpoint={'directory': 'gs://bucket/run'})
    with pytest.raises(CheckpointError, match='needs a package for that storage'):
        train.train(remote, tmp_path / 'new')
