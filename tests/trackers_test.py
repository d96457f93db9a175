"""TensorBoard and Weights & Biases: speeds, settings, and runs without key or network."""

import sys
import types

import pytest

from hrm_jax.config import ExperimentConfig
from hrm_jax.run import trackers, writers


def test_tensorboard_has_speeds_and_settings(tmp_path):
    config = ExperimentConfig.from_dict({'name': 'mine', 'optimizer': {'lr': 0.0123}})
    out = writers.Writers(tmp_path, config)
    out.timing(5, steps_per_second=2.5, examples_per_second=20.0)
    out.close()
    events = b''.join(path.read_bytes() for path in (tmp_path / 'tensorboard').iterdir())
    for name in (b'timing/steps_per_second', b'optimizer.lr', b'_hparams_/session_start_info',
                 b'0.0123', b'settings'):  # fmt: skip
        assert name in events
    assert 'steps_per_second' in (tmp_path / 'timing.jsonl').read_text()


class Wandb(types.ModuleType):
    """Stands for the package."""

    def __init__(self, fails=False):
        super().__init__('wandb')
        self.fails, self.calls, self.logged = fails, [], []

    def init(self, **kwargs):
        self.calls.append(kwargs)
        if self.fails and kwargs.get('mode') != 'offline':
            raise RuntimeError('no route to the server\nmore')
        return types.SimpleNamespace(
            id='abc', log=lambda values, step: self.logged.append((step, values)),
            finish=lambda: None,
        )  # fmt: skip


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ('WANDB_API_KEY', 'WANDB_MODE', 'WANDB_BASE_URL', 'NETRC', 'WANDB_INIT_TIMEOUT'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    (tmp_path / 'home').mkdir()
    return tmp_path / 'home'


CONFIG = ExperimentConfig.from_dict({'logging': {'wandb': True, 'tensorboard': False}})


def start(monkeypatch, tmp_path, fails=False):
    module, logged = Wandb(fails), []
    monkeypatch.setitem(sys.modules, 'wandb', module)
    out = writers.Writers(tmp_path, CONFIG, log=logged.append)
    out.scalars(1, {'train/lm_loss': 0.5})
    out.close()
    assert module.logged == [(1, {'train/lm_loss': 0.5})]
    assert (tmp_path / 'wandb_id.txt').read_text() == 'abc'
    return module.calls, logged


def test_without_a_key_a_run_goes_on_offline(home, tmp_path, monkeypatch):
    [call], [note] = start(monkeypatch, tmp_path)
    assert call['mode'] == 'offline'
    assert 'offline (no API key; "wandb login" stores one)' in note
    assert '\n' not in note
    [again], _ = start(monkeypatch, tmp_path)
    assert again['id'] == 'abc'  # the same run after a resume


@pytest.mark.parametrize('where', ['environment', 'netrc', 'other netrc'])
def test_a_key_is_used_wherever_it_is_stored(home, tmp_path, monkeypatch, where):
    entry = 'machine api.wandb.ai\n  login user\n  password ' + 'k' * 40 + '\n'
    if where == 'environment':
        monkeypatch.setenv('WANDB_API_KEY', 'k' * 40)
    elif where == 'netrc':
        (home / '.netrc').write_text(entry)
    else:
        (tmp_path / 'keys').write_text(entry.replace('api.wandb.ai', 'mine.example'))
        monkeypatch.setenv('NETRC', str(tmp_path / 'keys'))
        monkeypatch.setenv('WANDB_BASE_URL', 'https://mine.example')
    [call], notes = start(monkeypatch, tmp_path)
    assert call['resume'] == 'allow'
    assert 'mode' not in call
    assert notes == []


def test_without_a_network_a_run_goes_on_offline(home, tmp_path, monkeypatch):
    monkeypatch.setenv('WANDB_API_KEY', 'k' * 40)
    calls, [note] = start(monkeypatch, tmp_path, fails=True)
    assert [call.get('mode') for call in calls] == [None, 'offline']
    assert 'offline (no route to the server)' in note
    assert '\n' not in note


def test_an_offline_run_that_cannot_begin_is_an_error(home, tmp_path, monkeypatch):
    monkeypatch.setenv('WANDB_MODE', 'offline')

    def init(**kwargs):
        raise OSError('no space')

    module = Wandb()
    module.init = init
    with pytest.raises(OSError, match='no space'):
        trackers._start_wandb(module, {})
