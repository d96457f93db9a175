"""Evaluations in several calls: the same numbers, and a stop signal is answered in between."""

import dataclasses
import threading

import jax
import numpy as np
import pytest

from hrm_jax import eval_step, evaluate, metrics, partitioning, train_state
from hrm_jax.config import EvalConfig, RolloutConfig
from hrm_jax.data import records
from hrm_jax.inference import bounded, early_exit, rollouts
from hrm_jax.model import flops
from hrm_jax.run import plan
from tests import tiny_run


@pytest.fixture(scope='module')
def setup(tmp_path_factory):
    data = tiny_run.write_dataset(tmp_path_factory.mktemp('tiny') / 'data')
    config = tiny_run.config(data, act={'halt_max_steps': 5})
    dataset = records.load(data, 'test')
    sizes = {n: getattr(dataset.metadata, n)
             for n in ('vocab_size', 'seq_len', 'num_puzzle_identifiers')}  # fmt: skip
    config = dataclasses.replace(config, model=config.model.for_dataset(**sizes))
    mesh = partitioning.make_mesh(jax.devices()[:1])
    return config, dataset, mesh, train_state.create(config, mesh).weights


def with_eval(config, **options):
    return dataclasses.replace(config, eval=EvalConfig(global_batch_size=8, **options))


def few_flops(monkeypatch, config, mesh, steps, rows=8):
    """Lets a call have this number of ACT steps."""
    allowed = flops.act_step(config.inference_model) * rows * (steps + 0.5)
    monkeypatch.setattr(partitioning, '_CALL_FLOPS', {'cpu': allowed})
    assert bounded.steps_per_call(config, config.eval_batch_size, mesh) == steps


@pytest.mark.parametrize('options', [
    {},
    {'depth_multiples': (2, 3)},
    {'halting': 'adaptive'},
    {'rollouts': RolloutConfig(breadth=3, select='vote'), 'random_start': True,
     'depth_multiples': (2,)},
])  # fmt: skip
@pytest.mark.parametrize('steps', [1, 3])
def test_several_calls_give_the_numbers_of_one(setup, monkeypatch, options, steps):
    config, dataset, mesh, weights = setup
    config = with_eval(config, **options)

    def run(should_stop=lambda: False):
        step = evaluate.make_step(config, mesh)
        return step, evaluate.evaluate(config, step, weights, dataset, mesh, should_stop)

    one, whole = run()
    few_flops(monkeypatch, config, mesh, steps)
    several, parts = run()
    assert whole == parts
    assert whole
    if isinstance(several, early_exit.Worker):
        assert several._is_long
        assert not one._is_long
    elif isinstance(several, rollouts.Runner):
        assert several._worker._is_long
    else:
        assert isinstance(several, bounded.BoundedEvalStep)
        assert not isinstance(one, bounded.BoundedEvalStep)


@pytest.mark.parametrize('options', [
    {}, {'halting': 'adaptive'},
    {'rollouts': RolloutConfig(breadth=2), 'random_start': True},
])  # fmt: skip
def test_a_stop_is_answered_between_the_calls_of_a_batch(setup, monkeypatch, options):
    config, dataset, mesh, weights = setup
    config = with_eval(config, **options)
    few_flops(monkeypatch, config, mesh, 1)
    asked = []

    def should_stop():
        asked.append(len(asked))
        return len(asked) >= 2

    step = evaluate.make_step(config, mesh)
    assert evaluate.evaluate(config, step, weights, dataset, mesh, should_stop) is None
    assert len(asked) <= 4  # of the 5 steps that the first batch alone takes


class _Call:
    """What a call computes for as long as nobody lets it end."""

    def __init__(self, error=None):
        self.ended, self._error = threading.Event(), error

    def block_until_ready(self):
        assert self.ended.wait(60)
        if self._error is not None:
            raise self._error
        return self


@pytest.mark.parametrize('wish', [False, True])
def test_a_stop_is_answered_within_a_call(monkeypatch, wish):
    call, asked = _Call(), []

    def should_stop():
        asked.append(call.ended.is_set())
        if len(asked) == 3 and not wish:
            call.ended.set()
        return wish and len(asked) >= 2

    assert bounded.stopped_before(call, should_stop) == wish
    assert call.ended.is_set() != wish
    assert asked[:2] == [False, False]
    call.ended.set()

    # Several processes ask equally often, whoever of them is faster.
    monkeypatch.setattr(jax, 'process_count', lambda: 2)
    call, asked = _Call(), []
    threading.Timer(0.5, call.ended.set).start()
    bounded.stopped_before(call, should_stop)
    assert asked == [True]


def test_an_error_of_a_call_is_raised():
    call = _Call(ArithmeticError('of the device'))
    call.ended.set()
    with pytest.raises(ArithmeticError, match='of the device'):
        bounded.stopped_before(call, lambda: False)


def test_answers_in_calls_are_those_of_one_call(setup):
    config, dataset, mesh, weights = setup
    config = with_eval(config, depth_multiples=(2,))
    batch = next(iter(evaluate.pipeline.eval_batches(dataset, 8, None, 0, None)))[1]
    batch = partitioning.put_global(batch, mesh)
    whole = eval_step.make_eval_step(config, mesh, with_logits=True)(weights, batch, 3, 16)
    parts = bounded.BoundedEvalStep(config, mesh, 2, with_logits=True)(weights, batch, 3, 16)
    jax.tree.map(np.testing.assert_array_equal, whole, parts)
    assert metrics.eval_metrics(whole.sums).compute()


def test_a_long_call_of_train_steps_is_shortened(setup, monkeypatch):
    config = setup[0]
    train = dataclasses.replace(config.train, steps_per_dispatch=10)
    config = dataclasses.replace(
        config, train=train, checkpoint=dataclasses.replace(config.checkpoint, every_steps=0)
    )
    made = plan.make_plan(config)
    assert made.steps_at_once(0) == 10
    of_row = flops.train_step(made.config.model, made.config.act)
    monkeypatch.setattr(partitioning, '_CALL_FLOPS', {'cpu': of_row * 8 * 4.5})
    assert plan.make_plan(config).steps_at_once(0) == 4


def test_long_runs_of_tiny_steps_take_several_in_one_call(setup, monkeypatch):
    config = setup[0]
    config = dataclasses.replace(
        config, train=dataclasses.replace(config.train, max_steps=0),
        checkpoint=dataclasses.replace(config.checkpoint, every_steps=0),
    )  # fmt: skip
    assert config.train.steps_per_dispatch == 0

    def steps_at_once(last_step):
        return plan.make_plan(config).lasting(last_step).steps_at_once(1)

    assert (steps_at_once(19_999), steps_at_once(20_000)) == (1, 8)
    of_row = flops.train_step(plan.make_plan(config).config.model, config.act)
    rows = config.train.global_batch_size
    monkeypatch.setattr(partitioning, '_CALL_FLOPS', {'cpu': of_row * rows * 15})
    assert steps_at_once(20_000) == 1  # steps that the devices have enough to do with
