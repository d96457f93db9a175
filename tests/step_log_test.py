"""The speeds in the log, with a clock of the test's own."""

import json
import sys

import jax
import jax.numpy as jnp
import pytest

from hrm_jax import metrics, types
from hrm_jax.run import step_log
from hrm_jax.run.early_stopping import EarlyStopping
from hrm_jax.run.progress import Progress
from hrm_jax.run.writers import Writers
from tests import tiny_run


class Loss:
    """Stands for a loss on a device: says whether it is computed."""

    def __init__(self, ready: bool):
        self.is_ready = lambda: ready


@pytest.mark.parametrize('computes_at_once', [True, False], ids=['like a CPU', 'like a GPU'])
@pytest.mark.parametrize('every', [1, 3])
def test_every_line_has_the_speed_of_its_steps_also_the_last_one(
    tmp_path, monkeypatch, every, computes_at_once
):
    now = [100.0]
    monkeypatch.setattr(step_log.time, 'perf_counter', lambda: now[0])
    config = tiny_run.config(tmp_path, train={'log_every_steps': every})
    writers = Writers(tmp_path, config)
    log = step_log.StepLog(config, 80, writers, EarlyStopping(config.train.early_stopping))
    monkeypatch.setattr(log, '_measure', lambda step, sums: (sums[1], sums[2]))
    real = jax.tree.map(jnp.ones_like, types.Sums.zeros())
    names = ('lm_loss', 'q_halt_loss', 'q_continue_loss', 'lr', 'puzzle_emb_lr')
    values = dict.fromkeys(names, jnp.float32(1))

    class Sums(tuple):
        lm_loss = Loss(computes_at_once)

    with Progress('train', 9) as bar:
        log.start(bar)
        for step in range(1, 10):
            now[0] += 2.0  # every call takes a step's time: for the step itself, or the one before
            log.record(step, Sums((None, metrics.train_metrics(real, 8), values)))
        if not computes_at_once:
            now[0] += 2.0  # the last step was still running
        Sums.lm_loss = Loss(True)
        log.catch_up()
        shown = bar._text
    writers.close()
    lines = [json.loads(line) for line in (tmp_path / 'timing.jsonl').read_text().splitlines()]
    assert len(lines) >= 2
    assert {line['steps_per_second'] for line in lines} == {0.5}
    assert '0.5 steps/s' in shown


def test_loss_and_accuracy_stand_there_from_the_first_step(tmp_path, capsys, monkeypatch):
    for has_bar in (True, False):
        if not has_bar:
            monkeypatch.setitem(sys.modules, 'tqdm', None)
        config = tiny_run.config(tmp_path, train={'log_every_steps': 50})
        writers = Writers(tmp_path, config)
        log = step_log.StepLog(config, 80, writers, EarlyStopping(config.train.early_stopping))
        with Progress('train', 80) as bar:
            log.start(bar)
            for step in (1, 2, 3):
                log.record(step, jax.tree.map(jnp.ones_like, types.Sums.zeros()))
            log.catch_up()
        writers.close()
        shown = capsys.readouterr().err
        assert '1/80' in shown
        assert 'loss 0.1250, exact 100.0%' in shown
        assert has_bar or len(shown.splitlines()) == 1  # the next line comes with step 50


def test_a_run_that_nobody_waits_for_is_noted_once(tmp_path, capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(step_log.time, 'perf_counter', lambda: now[0])
    notes = {}
    for seconds in (0.1, 1e6):
        config = tiny_run.config(tmp_path, train={'log_every_steps': 2})
        writers = Writers(tmp_path, config)
        log = step_log.StepLog(config, 80, writers, EarlyStopping(config.train.early_stopping))
        with Progress('train', 80) as bar:
            log.start(bar)
            for step in range(1, 9):
                now[0] += seconds
                log.record(step, jax.tree.map(jnp.ones_like, types.Sums.zeros()))
        writers.close()
        notes[seconds] = capsys.readouterr().err.count('note: at')
    assert notes == {0.1: 0, 1e6: 1}
    assert 'years' in step_log.duration_note(1e9, 1e-6)
