"""The train step as a whole: it compiles once, learns, and does not depend on the devices."""

import dataclasses
import json
import os
from pathlib import Path
import subprocess
import sys

import jax
import numpy as np
import pytest

from hrm_jax import eval_step, partitioning, train_state, train_step
from hrm_jax.config import ActConfig, ExperimentConfig, ModelConfig, OptimizerConfig, TrainConfig
from hrm_jax.errors import ConfigError
from hrm_jax.types import Batch

CONFIG = ExperimentConfig(
    model=ModelConfig(
        vocab_size=7,
        seq_len=9,
        num_puzzle_identifiers=5,
        hidden_size=32,
        num_heads=4,
        H_layers=1,
        L_layers=1,
        puzzle_emb_ndim=32,
        forward_dtype='float32',
    ),
    act=ActConfig(halt_max_steps=3, halt_exploration_prob=0.5),
    optimizer=OptimizerConfig(lr=1e-3, lr_warmup_steps=2, ema_decay=0.9),
    train=TrainConfig(global_batch_size=16),
)
STEPS = 6


def batches():
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        inputs = rng.integers(1, 7, (16, 9), dtype=np.int32)
        yield Batch(inputs, inputs[:, ::-1].copy(), rng.integers(0, 5, 16, dtype=np.int32))


def _run(config=CONFIG):
    """Losses of a few steps, the last state, the step function and an evaluation."""
    mesh = partitioning.make_mesh()
    state = train_state.create(config, mesh)
    step = train_step.make_train_step(config, STEPS, mesh)
    trace = []
    for batch in batches():
        state, sums = step(state, partitioning.put_global(batch, mesh))
        trace.append([float(sums.lm_loss), float(sums.q_halt_loss), float(sums.q_continue_loss),
                      float(sums.count)])  # fmt: skip
    evaluate = eval_step.make_eval_step(config, mesh)
    result = evaluate(state.weights, partitioning.put_global(batch, mesh))
    return trace, state, step, result


@pytest.fixture(scope='module')
def run():
    return _run()


def test_the_step_compiles_once(run):
    assert run[2]._cache_size() == 1


def test_state_moves_as_it_should(run):
    _, state, _, _ = run
    mesh = partitioning.make_mesh()
    start = train_state.create(CONFIG, mesh)
    assert int(state.step) == STEPS
    for name in ('H_init', 'L_init'):  # never trained
        np.testing.assert_array_equal(state.weights.constants[name], start.weights.constants[name])
    params, first = state.weights.params, start.weights.params
    moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), params, first)
    assert all(change > 0 for change in jax.tree.leaves(moved))
    assert float(abs(state.weights.puzzle_table).max()) > 0
    average = state.ema['lm_head']['kernel']
    assert float(abs(average - first['lm_head']['kernel']).max()) > 0
    assert float(abs(average - params['lm_head']['kernel']).max()) > 0
    assert set(np.unique(state.carry.steps)) <= {1, 2, 3}


def test_abstract_state_is_that_of_the_real_one(run):
    mesh = partitioning.make_mesh()
    abstract = train_state.abstract(CONFIG, mesh)
    real = run[1]
    assert jax.tree.structure(abstract) == jax.tree.structure(real)
    for want, got in zip(jax.tree.leaves(abstract), jax.tree.leaves(real), strict=True):
        assert (want.shape, want.dtype) == (got.shape, got.dtype)
        assert want.sharding.is_equivalent_to(got.sharding, got.ndim)


@pytest.mark.parametrize('changes', [
    {'model': dataclasses.replace(CONFIG.model, puzzle_emb_ndim=0)},
    {'model': dataclasses.replace(CONFIG.model, forward_dtype='bfloat16')},
    {'act': ActConfig(halting='halt_only', halt_max_steps=3)},
    {'act': ActConfig(halt_max_steps=1)},
], ids=['no_puzzle_embedding', 'bfloat16', 'halt_only', 'one_step'])  # fmt: skip
def test_other_configurations_train(changes):
    trace, state, _, _ = _run(dataclasses.replace(CONFIG, **changes))
    assert np.isfinite(trace).all()
    has_prefix = changes.get('model', CONFIG.model).prefix_len > 0
    assert (state.weights.puzzle_table is not None) == has_prefix


def test_the_sizes_of_the_data_must_be_known():
    blank = dataclasses.replace(CONFIG, model=ModelConfig())
    with pytest.raises(ConfigError, match='must be known before the model is made'):
        train_state.create(blank, partitioning.make_mesh())


def test_eight_devices_give_the_numbers_of_one(run):
    """In a process of its own: the number of devices is fixed when jax starts."""
    environment = dict(os.environ, XLA_FLAGS='--xla_force_host_platform_device_count=8',
                       JAX_PLATFORMS='cpu')  # fmt: skip
    output = subprocess.run(
        [sys.executable, '-m', 'tests.train_step_test'],
        cwd=Path(__file__).parents[1],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    other = json.loads(output.splitlines()[-1])
    assert other['devices'] == 8
    trace, state, _, result = run
    np.testing.assert_allclose(other['trace'], trace, rtol=1e-5)
    assert other['total'] == pytest.approx(_total(state), rel=1e-5)
    assert other['eval_loss'] == pytest.approx(float(result.sums.lm_loss.sum()), rel=1e-5)
    assert 'must be a multiple of the 8 devices that share the rows' in other['refused']


def _total(state) -> float:
    return float(sum(abs(leaf).sum() for leaf in jax.tree.leaves(state.weights.params)))


def _report() -> None:
    trace, state, _, result = _run()
    refused = ''
    try:
        config = dataclasses.replace(CONFIG, train=TrainConfig(global_batch_size=12))
        train_state.create(config, partitioning.make_mesh())
    except ValueError as error:
        refused = str(error)
    print(json.dumps({
        'devices': jax.device_count(), 'trace': trace, 'total': _total(state),
        'eval_loss': float(result.sums.lm_loss.sum()), 'refused': refused,
    }))  # fmt: skip


if __name__ == '__main__':
    _report()
