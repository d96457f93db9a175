"""What is computed: no more than the analytic count; the look-ahead gives the step's own Q."""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax import partitioning, train_state, train_step
from hrm_jax.config import ActConfig, ExperimentConfig, ModelConfig, TrainConfig
from hrm_jax.model import flops, hrm

# One of each kind of core, as configs/ makes them.
SRU = {'H_cycles': 1, 'L_cycles': 1, 'gradient_window': 'full'}
SHARED = {'levels': 'shared', 'gradient_window': 'last_cycle'}
SINGLE = {'levels': 'single', 'gradient_window': 'last_cycle'}
KINDS = {
    'hrm': {},
    'bptt': {'gradient_window': 'full'},
    'token_mixing': {**SHARED, 'block': 'token_mixing', 'L_layers': 2},
    'trm': {**SHARED, 'puzzle_emb_len': 16, 'L_layers': 2},
    'several_states': {**SHARED, 'low_states': 2},
    'single': SINGLE,
    'single_closed': {**SINGLE, 'closing_update': True},
    'sru': {**SRU, 'block': 'sru'},
    'sru_bidirectional': {**SRU, 'block': 'sru', 'sru_bidirectional': True},
    # Wide, for its products are narrow: at 512 the elementwise work is 2.1 % of them.
    'srupp': {**SRU, 'block': 'srupp', 'hidden_size': 1024},
}


def _config(kind: str, rows: int = 32, act: ActConfig = ActConfig(), **sizes) -> ExperimentConfig:
    model = ModelConfig(**{
        'vocab_size': 11, 'seq_len': 81, 'num_puzzle_identifiers': 1, 'forward_dtype': 'float32',
        'H_layers': 1, 'L_layers': 1, **KINDS[kind], **sizes,
    })  # fmt: skip
    return ExperimentConfig(model=model, act=act, train=TrainConfig(global_batch_size=rows))


def _compile(config: ExperimentConfig):
    mesh = partitioning.make_mesh(jax.devices()[:1])
    state = train_state.abstract(config, mesh)
    step = train_step.make_train_step(config, 100, mesh)
    return step.lower(state, state.carry.batch).compile()


@pytest.mark.parametrize('kind', KINDS)
def test_nothing_is_computed_twice(kind):
    config = _config(kind, unroll_cycles=True)
    analytic = flops.train_step(config.model, config.act) * config.train.global_batch_size
    assert _compile(config).cost_analysis()['flops'] / analytic == pytest.approx(1, abs=0.02)


def test_the_target_pass_can_be_left_out():
    with_target, without = (
        flops.train_step(ModelConfig(vocab_size=11, seq_len=81), ActConfig(train_q_continue=on))
        for on in (True, False)
    )
    assert with_target == pytest.approx(36.2e9, rel=1e-2)
    assert with_target / without == pytest.approx(1.58, abs=0.01)


def test_memory_grows_with_the_batch_alone():
    sizes = {'hidden_size': 128, 'puzzle_emb_ndim': 128, 'num_heads': 4}

    def temporaries(rows, cycles):
        config = _config('hrm', rows, H_cycles=cycles, L_cycles=cycles, **sizes)
        return _compile(config).memory_analysis().temp_size_in_bytes

    one, two, deep = temporaries(16, 2), temporaries(32, 2), temporaries(16, 4)
    assert 1.8 < two / one < 2.05
    assert deep / one == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize('kind', KINDS)
def test_the_look_ahead_is_the_steps_own_q(kind):
    config = _config(kind, 3, seq_len=9, hidden_size=32, num_heads=4, puzzle_emb_ndim=32,
                     remat=kind == 'bptt', qkv_bias=True, initializer='uniform')  # fmt: skip
    model = config.model
    key = jax.random.key(1)
    variables = jax.jit(lambda key: nn.unbox(train_state.init_variables(config, key)))(key)
    weights = 0.3 * jax.random.normal(key, (32, 2))  # they begin as zeros
    variables['params']['q_head']['kernel'] = weights
    empty = hrm.empty_latent(model, 3)
    latent = jax.tree.map(lambda z: jax.random.normal(key, z.shape, z.dtype), empty)
    inputs = jax.random.randint(key, (3, 9), 0, 11)
    puzzle = jax.random.normal(key, (3, 32))
    core = hrm.HRM(model)
    _, outputs = jax.jit(core.apply)(variables, latent, inputs, puzzle)
    ahead = jax.jit(lambda *a: core.apply(*a, method='q_values'))(variables, latent, inputs, puzzle)
    assert np.ptp(outputs.q_halt) > 0.01
    np.testing.assert_allclose(ahead, [outputs.q_halt, outputs.q_continue], rtol=1e-5, atol=1e-5)


def test_with_dropout_the_look_ahead_has_the_steps_masks():
    config = dataclasses.replace(
        _config('hrm').model, hidden_size=32, num_heads=4, puzzle_emb_ndim=32, dropout=0.5
    )
    core = hrm.HRM(config)
    key = jax.random.key(1)
    args = hrm.empty_latent(config, 2), jnp.ones((2, 81), jnp.int32), jnp.ones((2, 32))
    variables = nn.unbox(core.init(key, *args))
    variables['params']['q_head']['kernel'] = jnp.ones((32, 2))
    rngs = {'dropout': key}
    _, outputs = core.apply(variables, *args, rngs=rngs)
    ahead = core.apply(variables, *args, rngs=rngs, method='q_values')
    np.testing.assert_array_equal(ahead, [outputs.q_halt, outputs.q_continue])
