"""Durations, lines of a bar, estimates of a run's time, and metrics with their meaning."""

import dataclasses

import jax
import pytest

from hrm_jax import metrics, train
from hrm_jax.config import ExperimentConfig
from hrm_jax.run import estimate, summary
from hrm_jax.run.plan import make_plan
from hrm_jax.run.progress import duration, line
from tests import tiny_run


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [
        (0.4, '00:00'), (312, '05:12'), (3599.6, '1:00:00'), (11112, '3:05:12'),
        (86_399.4, '23:59:59'), (86_400, '1 d 0 h'), (186_000, '2 d 4 h'), (40 * 86400, '40 d 0 h'),
        (4e7, '1.3 years'), (1e12, '31,688 years'), (float('nan'), '?'), (float('inf'), '?'),
    ],
)  # fmt: skip
def test_durations(seconds, text):
    assert duration(seconds) == text


FACTS = ('loss 0.0779', 'exact 93.2%', '9.77 steps/s', '312.6 examples/s')


@pytest.mark.parametrize('total', [2500, 26_041, 1_041_667])
@pytest.mark.parametrize('left', [75.0, 1e6, 1e9, None])
def test_80_columns_keep_loss_accuracy_and_speed(total, left):
    text = line('train', total // 2, total, 2 * 86400, left, FACTS, 80)
    assert len(text) < 80
    for fact in FACTS[:3]:
        assert fact in text
    assert ('?' if left is None else duration(left)) in text


def test_lines_shrink_from_the_least_important_end():
    texts = [line('train', 1586, 2500, 140, 75, FACTS, width) for width in (None, 100, 80, 50, 30)]
    assert texts[0] == (
        'train:  63% ██████     1586/2500 [02:20<01:15, loss 0.0779, exact 93.2%, 9.77 steps/s, '
        '312.6 examples/s]'
    )
    assert [sum(fact in text for fact in FACTS) for text in texts] == [4, 4, 3, 1, 0]
    assert all('01:15' in text for text in texts)
    assert len(line('train', 1, 2, 1, 1, FACTS, 10)) < 10


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return tiny_run.write_dataset(tmp_path_factory.mktemp('set') / 'data')


def test_a_dry_run_estimates_the_time_where_steps_are_quick(data, monkeypatch):
    config, logged = tiny_run.config(data, train={'max_steps': 10}), []
    estimate.dry_run(config, logged.append)
    assert 'for 10 steps at' in logged[-1]
    assert 'measured here' in logged[-1]
    estimate.dry_run(config, logged.append, time_steps=0)
    assert 'time:' not in logged[-1]
    monkeypatch.setattr(estimate, '_QUICK', {'cpu': 0})
    estimate.dry_run(config, logged.append)
    assert 'at best for 10 steps of' in logged[-1]
    assert '--time-steps=3' in logged[-1]
    estimate.dry_run(config, logged.append, time_steps=1)
    assert 'measured here' in logged[-1]


def test_years_are_called_years_before_the_first_step(data, monkeypatch, tmp_path):
    plan = make_plan(tiny_run.config(data, train={'max_steps': 2}))
    assert estimate.warning(plan) == ''
    monkeypatch.setattr(estimate, '_QUICK', {'cpu': 0})
    monkeypatch.setattr(estimate, '_flops_per_second', lambda plan: 0.001)
    assert 'years' in estimate.warning(plan)
    assert 'years' in estimate.describe(plan, None)
    logged = []
    train.train(plan.config, tmp_path / 'run', log=logged.append)
    assert sum('takes at best' in text for text in logged) == 1


def config_of(halting='q_learning', q_head=True, **act):
    return ExperimentConfig.from_dict({
        'act': {'halting': halting, **act}, 'model': {'q_head': q_head},
        'loss': {'q_weight': 0.5 if q_head else 0.0},
    })  # fmt: skip


@pytest.mark.parametrize(
    ('config', 'q_halt', 'q_continue'),
    [
        (config_of(), True, True),
        (config_of(train_q_continue=False), True, False),
        (config_of('halt_only'), True, False),
        (config_of('fixed'), True, False),
        (config_of('fixed', q_head=False), False, False),
    ],
)
def test_only_metrics_of_what_the_model_has_are_shown(config, q_halt, q_continue):
    names = [field.name for field in dataclasses.fields(metrics.EvalMetrics)
             if not field.name.startswith('_')]  # fmt: skip
    table = summary.metrics_table({f'eval/all/{name}': 0.5 for name in names}, config)
    assert ('q_halt' in table) == q_halt
    assert ('q_continue' in table) == q_continue
    assert 'eval/all/exact_accuracy' in table
    shown = metrics.names_of(config, metrics.TrainMetrics, 'train')
    assert ('train/q_continue_loss' in shown) == q_continue
    assert ('train/q_halt_accuracy' in shown) == q_halt


def test_every_metric_is_explained_where_it_is_printed():
    names = [n for c in (metrics.TrainMetrics, metrics.EvalMetrics) for n in c.__annotations__]
    names += ['arc/hrm_pass@2', 'arc/trm_single@1000', 'arc/puzzles', 'arc/missing', 'acc4x']
    for name in names:
        assert metrics.meaning(f'eval/all/{name}'), name
    assert 'one of 2 answers' in metrics.meaning('eval/all/arc/hrm_pass@2')
    assert metrics.meaning('eval/all/acc4x') == 'exact_accuracy with 4 times the ACT steps'
    line_of = summary.metrics_table({'eval/all/accuracy': 1.0})
    assert line_of == '  eval/all/accuracy  1  share of cells that are right'
    assert jax.device_count() >= 1
