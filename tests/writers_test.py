import json
import math
import sys

import pytest

from hrm_jax.config import ExperimentConfig
from hrm_jax.errors import ConfigError
from hrm_jax.run import progress, writers


def _lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_log_has_one_record_per_step_and_is_cut_at_a_resume(tmp_path):
    path = tmp_path / 'metrics.jsonl'
    log = writers.MetricLog(path)
    for step in range(1, 6):
        log.append(step, {'train/loss': 1 / 3 + step})
        if step == 3:
            log.extend({'eval/all/accuracy': math.nan})
            held = dict(log.held)
    log.close()
    whole = path.read_bytes()
    assert [r['step'] for r in _lines(path)] == [1, 2, 3, 4, 5]
    assert _lines(path)[2] == {'step': 3, 'train/loss': 1 / 3 + 3, 'eval/all/accuracy': None}

    path.write_bytes(whole[:-10])  # killed within the last line
    log = writers.MetricLog(path, 3, json.loads(json.dumps(held)))
    assert log.missing == 0
    for step in (4, 5):
        log.append(step, {'train/loss': 1 / 3 + step})
    log.close()
    assert path.read_bytes() == whole

    path.unlink()
    log = writers.MetricLog(path, 3, held)
    assert log.missing == 2
    log.close()


def test_tensorboard_gets_event_files_without_tensorflow(tmp_path):
    out = writers.Writers(tmp_path, ExperimentConfig())
    out.scalars(1, {'train/loss': 0.5, 'train/nothing': math.nan})
    out.close()
    (events,) = (tmp_path / 'tensorboard').iterdir()
    assert b'train/loss' in events.read_bytes()
    assert 'tensorflow' not in sys.modules


def test_missing_packages_are_logged_once_or_refused(tmp_path, monkeypatch):
    for name in ('tensorboardX', 'wandb'):
        monkeypatch.setitem(sys.modules, name, None)
    logged = []
    out = writers.Writers(tmp_path, ExperimentConfig(), log=logged.append)
    out.log.append(1, {'train/loss': 0.5})
    out.scalars(1, {'train/loss': 0.5})
    out.close()
    assert len(logged) == 1
    assert 'pip install tensorboardX' in logged[0]
    assert _lines(tmp_path / 'metrics.jsonl') == [{'step': 1, 'train/loss': 0.5}]
    wanted = ExperimentConfig.from_dict({'logging': {'wandb': True, 'tensorboard': False}})
    with pytest.raises(ConfigError, match='pip install wandb'):
        writers.Writers(tmp_path, wanted)


def test_the_bar_shows_its_text_and_works_without_tqdm(capsys, monkeypatch):
    for missing in (False, True):
        if missing:
            monkeypatch.setitem(sys.modules, 'tqdm', None)
        with progress.Progress('train', 10, 4) as bar:
            bar.update(1)
            bar.update(1, 'loss 0.5000')
        error = capsys.readouterr().err
        assert '6/10' in error
        assert 'loss 0.5000' in error
