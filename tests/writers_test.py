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


def _whole(path, steps=range(1, 11)):
    log = writers.MetricLog(path)
    for step in steps:
        log.append(step, {'train/loss': 1 / 3 + step})
    held = dict(log.held)
    log.close()
    return path.read_bytes(), held


@pytest.mark.parametrize(
    'bad',
    [
        b'{"step": 4, "train/lo', b'\x00\x00\x00\x00', b'null', b'[1, 2]', b'"text"', b'7',
        b'{"train/loss": 1.0}', b'{"step": null}', b'{"step": "4"}', b'{"step": true}',
        b'\xff\xfe{"step": 4}', b'[' * 100_000, b'', b'{"step": 4.0, "x": 1}',
    ],
)  # fmt: skip
def test_one_bad_line_costs_no_other_record(tmp_path, bad):
    path = tmp_path / 'metrics.jsonl'
    whole, held = _whole(path)
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b''.join([*lines[:3], bad + b'\n', *lines[4:]]))
    assert [record['step'] for record in writers.read_records(path)] == [1, 2, 3, *range(5, 11)]
    logged = []
    out = writers.Writers(tmp_path, ExperimentConfig(), 10, held, logged.append)
    out.close()
    assert path.read_bytes() == b''.join([*lines[:3], *lines[4:]])
    aside = (tmp_path / 'set_aside' / 'metrics.jsonl').read_bytes()
    assert bad + b'\n' in aside
    text = '\n'.join(logged)
    assert 'damaged lines' in text
    assert 'lacks 1 of the records before step 10' in text


def test_later_records_are_set_aside_and_written_again(tmp_path):
    path = tmp_path / 'metrics.jsonl'
    whole, _ = _whole(path)
    lines = whole.splitlines(keepends=True)
    path.write_bytes(whole[:-4])  # the process died within the last line
    held = json.loads(lines[5])
    log = writers.MetricLog(path, 6, held)
    assert (log.missing, log.damaged) == (0, 0)
    for step in range(7, 11):
        log.append(step, {'train/loss': 1 / 3 + step})
    log.close()
    assert path.read_bytes() == whole
    aside = (tmp_path / 'set_aside' / 'metrics.jsonl').read_bytes()
    assert aside == b''.join(lines[5:9]) + lines[9][:-4] + b'\n'
    writers.MetricLog(path, 10, json.loads(lines[9])).close()
    assert path.read_bytes() == whole


def test_of_two_records_of_a_step_the_later_one_stays(tmp_path):
    path = tmp_path / 'metrics.jsonl'
    whole, held = _whole(path)
    lines = whole.splitlines(keepends=True)
    other = b'{"step": 3, "train/loss": 9.0}\n'
    path.write_bytes(b''.join([*lines[:2], other, *lines[2:]]))
    log = writers.MetricLog(path, 10, held)
    log.close()
    assert (log.missing, log.damaged) == (0, 1)
    assert path.read_bytes() == whole
    assert other in (tmp_path / 'set_aside' / 'metrics.jsonl').read_bytes()


def test_a_whole_file_is_not_written_anew(tmp_path):
    path = tmp_path / 'metrics.jsonl'
    _, held = _whole(path, range(1, 10))
    before = path.stat().st_ino, path.read_bytes()
    log = writers.MetricLog(path, 10, held | {'step': 10})
    assert (path.stat().st_ino, path.read_bytes()) == before
    log.close()
    assert not (tmp_path / 'set_aside').exists()
