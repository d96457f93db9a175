"""Properties of the relatives that no fixture states, and each of them on several devices."""

import dataclasses
import functools
import json
import os
from pathlib import Path
import subprocess
import sys

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax import eval_step, partitioning, train_state, train_step
from hrm_jax.config import (
    ActConfig,
    EvalConfig,
    ExperimentConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)
from hrm_jax.data import pipeline
from hrm_jax.errors import ConfigError
from hrm_jax.model import hrm, sru, starts
from hrm_jax.types import Batch, Weights

SIZES = {
    'vocab_size': 7, 'seq_len': 9, 'num_puzzle_identifiers': 3, 'hidden_size': 32, 'num_heads': 2,
    'H_layers': 1, 'L_layers': 1, 'forward_dtype': 'float32', 'puzzle_emb_ndim': 32,
}  # fmt: skip
RECURRENT = {'H_cycles': 1, 'L_cycles': 1, 'gradient_window': 'full', 'H_layers': 2, 'L_layers': 2}
PATHS = {
    'puzzle_emb_ndim': 0, 'q_head': False, 'norm_scale': True, 'round_mlp': False,
    'initializer': 'uniform', 'dropout': 0.2, 'attention_dropout': 0.2,
}  # fmt: skip
DROPOUT = {'dropout': 0.2, 'attention_dropout': 0.2}
KINDS = {
    'token_mixing': {'levels': 'shared', 'gradient_window': 'last_cycle', 'block': 'token_mixing'},
    'six_states': {'levels': 'shared', 'gradient_window': 'last_cycle', 'low_states': 6},
    'srupp': {'block': 'srupp', **RECURRENT, **DROPOUT},
    'path_finder': {**PATHS, 'initial_state': 'learned', 'pos_encodings': 'rope+learned'},
    'registers_and_noise': {
        'levels': 'shared',
        'gradient_window': 'last_cycle',
        'block': 'token_mixing',
        'gated_unit': 'sigmoid_rms',
        'register_tokens': 1,
        'puzzle_emb_ndim': 0,
        'head_bias': True,
        'initial_state': 'random',
        'update_rate': 0.9,
        'update_noise': 0.1,
    },
    'convolution': {
        'levels': 'single',
        'gradient_window': 'last_cycle',
        'gated_unit': 'conv_swiglu',
    },
    'one_module_bptt': {**PATHS, 'levels': 'single', 'gradient_window': 'full'},
}


def experiment(kind: str) -> ExperimentConfig:
    model = ModelConfig(**{**SIZES, **KINDS[kind]})
    fixed = not model.q_head
    return ExperimentConfig(
        model=model,
        act=ActConfig(halting='fixed' if fixed else 'halt_only', halt_max_steps=2),
        loss=LossConfig(q_weight=0.0 if fixed else 0.5),
        optimizer=OptimizerConfig(
            name='adamw' if fixed else 'muon' if model.register_tokens else 'adam_atan2',
            lr=1e-3,
            lr_warmup_steps=2,
            muon_lr=1e-3,
            muon_dtype='float32',
        ),
        train=TrainConfig(global_batch_size=8),
        eval=EvalConfig(depth_multiples=(2,)),
    )


def batches(count: int = 3):
    rng = np.random.default_rng(0)
    for _ in range(count):
        inputs = rng.integers(1, 7, (8, 9), dtype=np.int32)
        yield Batch(inputs, inputs[:, ::-1].copy(), rng.integers(0, 3, 8, dtype=np.int32))


def run(kind: str, devices: int) -> list[float]:
    """Losses of some train steps, then those of an evaluation at two depths."""
    config, mesh = experiment(kind), partitioning.make_mesh(jax.devices()[:devices])
    state = train_state.create(config, mesh)
    step = train_step.make_train_step(config, 10, mesh)
    seen = []
    for batch in batches():
        state, sums = step(state, partitioning.put_global(batch, mesh))
        seen.append(float(sums.lm_loss))
    evaluate = eval_step.make_eval_step(config, mesh)
    result = evaluate(state.weights, partitioning.put_global(batch, mesh))
    return [*seen, *(float(sums.lm_loss.sum()) for sums in (result.sums, *result.deeper))]


def test_eight_devices_give_the_numbers_of_one():
    """In a process of its own: the number of devices is fixed when jax starts."""
    # Quicker to compile; both sides of the comparison are compiled alike.
    environment = dict(os.environ, XLA_FLAGS='--xla_force_host_platform_device_count=8',
                       JAX_PLATFORMS='cpu', JAX_DISABLE_MOST_OPTIMIZATIONS='1')  # fmt: skip
    output = subprocess.run(
        [sys.executable, '-m', 'tests.variants_test'],
        cwd=Path(__file__).parents[1],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    seen = json.loads(output.splitlines()[-1])
    assert set(seen) == set(KINDS)
    for kind, (one, eight) in seen.items():
        np.testing.assert_allclose(eight, one, rtol=2e-5, err_msg=kind)


def weights_of(model: ModelConfig, key: int = 0) -> tuple[ExperimentConfig, Weights]:
    config = ExperimentConfig(
        model=model,
        act=ActConfig(halting='q_learning' if model.q_head else 'fixed'),
        loss=LossConfig(q_weight=0.5 if model.q_head else 0.0),
    )
    variables = nn.unbox(train_state.init_variables(config, jax.random.key(key)))
    return config, Weights(variables['params'], variables.get('constants', {}), None)


INPUTS = jnp.asarray(next(batches(1)).inputs)


def test_trained_initial_states_learn_and_change_no_number():
    model = ModelConfig(**{**SIZES, 'puzzle_emb_ndim': 0, 'initial_state': 'learned'})
    _, weights = weights_of(model)
    assert weights.constants == {}

    def loss(params, model, constants):
        weights = Weights(params, constants, None)
        latent = starts.fresh_latent(model, weights, 8)
        _, outputs = hrm.act_step(model, weights, latent, INPUTS, None)
        return jnp.square(outputs.logits).mean()

    params = weights.params
    value, grads = jax.jit(jax.value_and_grad(loss), static_argnums=1)(params, model, {})
    assert all(float(jnp.abs(grads[name]).max()) > 1e-7 for name in ('H_init', 'L_init'))
    states = {name: params[name] for name in ('H_init', 'L_init')}
    fixed = dataclasses.replace(model, initial_state='fixed')
    same = jax.jit(loss, static_argnums=1)(params, fixed, states)
    assert float(value) == pytest.approx(float(same), rel=1e-5)  # other programs, other rounding


@pytest.mark.parametrize(('both_ways', 'sees'), [(False, False), (True, True)])
def test_a_causal_recurrence_answers_q_before_it_has_seen_the_board(both_ways, sees):
    sizes = {**SIZES, **RECURRENT, 'block': 'sru', 'sru_bidirectional': both_ways}
    model = ModelConfig(**sizes)
    _, weights = weights_of(model)
    kernel = jax.random.normal(jax.random.key(5), weights.params['q_head']['kernel'].shape)
    params = {**weights.params, 'q_head': {'kernel': kernel, 'bias': jnp.zeros(2)}}
    weights = weights.replace(params=params)
    step = jax.jit(lambda latent: hrm.act_step(model, weights, latent, INPUTS, jnp.ones((8, 32))))
    latent, first = step(starts.fresh_latent(model, weights, 8))
    _, second = step(latent)
    assert (float(jnp.ptp(first.q_halt)) > 1e-4) == sees
    assert float(jnp.ptp(second.q_halt)) > 1e-4  # the carry has seen it


def test_recurrence_equals_a_loop_over_positions():
    rng = np.random.default_rng(0)
    rows, length, dim = 2, 11, 6
    u = rng.normal(size=(rows, length, 3, dim))
    x, c = rng.normal(size=(rows, length, dim)), rng.normal(size=(rows, dim))
    v, b, mask = rng.normal(size=(2, dim)), rng.normal(size=(2, dim)), rng.random((rows, dim))
    got, last = sru.recur(*(jnp.asarray(a, jnp.float32) for a in (u, x, c, v, b, mask)))
    want = np.zeros_like(x)
    for t in range(length):
        f, r = (1 / (1 + np.exp(-(u[:, t, k + 1] + b[k] + v[k] * c))) for k in range(2))
        c = f * c + (1 - f) * u[:, t, 0]
        want[:, t] = x[:, t] + (c - x[:, t]) * r * mask
    np.testing.assert_allclose(got, want, atol=1e-5)
    np.testing.assert_allclose(last, c, atol=1e-5)


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_half_precision_is_near_single(dtype):
    """Activations round, the cells do not: they stay float32."""
    sizes = {**SIZES, **RECURRENT, 'block': 'srupp'}
    seen = {}
    for name in ('float32', dtype):
        model = ModelConfig(**{**sizes, 'forward_dtype': name})
        _, weights = weights_of(model)
        latent = starts.fresh_latent(model, weights, 8)
        step = jax.jit(functools.partial(hrm.act_step, model))
        latent, outputs = step(weights, latent, INPUTS, jnp.ones((8, 32)))
        assert latent.high.dtype == latent.low.dtype == jnp.float32
        assert outputs.logits.dtype == jnp.dtype(name)
        seen[name] = np.asarray(outputs.logits, np.float32)
    assert 0 < np.abs(seen[dtype] - seen['float32']).max() < 0.1


def test_frozen_weights_are_no_parameters():
    sizes = {**SIZES, **RECURRENT, 'block': 'sru'}
    for frozen, home in ((True, 'constants'), (False, 'params')):
        weights = weights_of(ModelConfig(**sizes, sru_frozen_weight_c=frozen))[1]
        for collection in ('constants', 'params'):
            layer = getattr(weights, collection).get('L_level', {}).get('layers_0', {})
            assert ('weight_c' in layer) == (collection == home)


@pytest.mark.parametrize('kind', ['srupp', 'path_finder'])
def test_dropout_needs_a_key_and_follows_it(kind):
    model = dataclasses.replace(experiment(kind).model, initial_state='fixed')
    _, weights = weights_of(model)
    latent = starts.fresh_latent(model, weights, 8)
    rows = jnp.ones((8, 32)) if model.prefix_len else None

    @functools.partial(jax.jit, static_argnames='training')
    def logits(key, training=True):
        step = hrm.act_step(model, weights, latent, INPUTS, rows, key, training=training)
        return step[1].logits

    still, one, two = logits(None), logits(jax.random.key(1)), logits(jax.random.key(2))
    np.testing.assert_array_equal(one, logits(jax.random.key(1)))
    np.testing.assert_array_equal(still, logits(jax.random.key(1), training=False))
    assert min(float(jnp.abs(a - b).max()) for a, b in ((still, one), (one, two))) > 1e-3


def test_every_update_of_a_segment_drops_other_units():
    """Two cycles under one key differ from twice the first cycle's masks."""
    model = ModelConfig(**{**SIZES, **PATHS, 'levels': 'single', 'gradient_window': 'full',
                           'L_cycles': 1})  # fmt: skip
    _, weights = weights_of(model)
    latent = starts.fresh_latent(model, weights, 8)

    def state(H_cycles, latent):
        cycles = dataclasses.replace(model, H_cycles=H_cycles)
        step = jax.jit(functools.partial(hrm.act_step, cycles, training=True))
        return step(weights, latent, INPUTS, None, jax.random.key(0))[0]

    twice = state(1, state(1, latent))
    assert float(jnp.abs(twice.high - state(2, latent).high).max()) > 1e-3


def test_a_sweep_gives_the_evaluation_at_every_depth():
    config = experiment('token_mixing')
    mesh = partitioning.make_mesh(jax.devices()[:1])
    state = train_state.create(config, mesh)
    batch = next(batches(1))
    sweep = eval_step.make_depth_sweep(config, mesh, 4)(state.weights, batch)
    result = eval_step.make_eval_step(config, mesh)(state.weights, batch)
    for depth, sums in ((2, result.sums), (4, result.deeper[0])):
        np.testing.assert_allclose(sweep.lm_loss[depth - 1], sums.lm_loss, rtol=1e-5)
        assert float(sums.steps) == depth * 8


class _Counter:
    """Batches 0, 1, 2, ... with a position."""

    at = 0

    def __next__(self):
        self.at += 1
        return self.at - 1

    def get_state(self):
        return {'at': self.at}

    def set_state(self, state):
        self.at = state['at']


@pytest.mark.parametrize('before', range(8))
def test_held_batches_go_on_where_they_were(before):
    whole = pipeline.HeldBatches(_Counter(), 3)
    first = [next(whole) for _ in range(before)]
    again = pipeline.HeldBatches(_Counter(), 3)
    again.set_state(json.loads(json.dumps(whole.get_state())))
    assert first + [next(again) for _ in range(9 - before)] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(('changes', 'message'), [
    ({'low_states': 2, 'L_cycles': 3, 'levels': 'shared'}, 'must not exceed model.low_states'),
    ({'levels': 'single', 'low_states': 2}, 'has one state'),
    ({'closing_update': True}, 'is for levels=single'),
    ({'block': 'sru'}, 'set levels=separate'),
    ({'block': 'srupp', **RECURRENT, 'hidden_size': 24}, 'multiple of 16'),
    ({'sru_bidirectional': True}, 'needs an SRU block'),
    ({'dropout': 1.0}, r'be in \[0, 1\)'),
])  # fmt: skip
def test_contradictions_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**{**SIZES, **changes})


def test_a_model_without_q_can_not_decide_when_to_halt():
    with pytest.raises(ConfigError, match=r'q_head=False needs act\.halting=fixed'):
        ExperimentConfig(model=ModelConfig(**{**SIZES, 'q_head': False}))


if __name__ == '__main__':
    print(json.dumps({kind: [run(kind, 1), run(kind, 8)] for kind in KINDS}))
