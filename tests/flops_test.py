"""What is computed: no more than the analytic count; the look-ahead gives the step's own Q."""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import flop_counts
from hrm_jax import curriculum, partitioning, train_state, train_step
from hrm_jax.config import ActConfig, EvalConfig, ExperimentConfig, ModelConfig, TrainConfig
from hrm_jax.model import flops, hrm, starts
from hrm_jax.types import Weights
from tests import commands

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


# Techniques of the record holders, small: their products are counted one by one.
MIXER = {**SHARED, 'block': 'token_mixing'}
TECHNIQUES = {
    'chains': {**MIXER, 'chains': 3, 'chain_similarity': 0.9},
    # Of many symbols, so that the noisy answer counts.
    'flow': {**SHARED, 'flow': True, 'flow_pseudotarget_steps': 2, 'vocab_size': 512},
    'running_mean': {**SHARED, 'running_mean': True},
    'registers': {**MIXER, 'puzzle_emb_ndim': 0, 'register_tokens': 3, 'head_bias': True,
                  'gated_unit': 'sigmoid_rms'},
    'urm': {**SINGLE, 'gated_unit': 'conv_swiglu', 'L_cycles': 3},
    'random': {**SHARED, 'initial_state': 'random', 'update_noise': 0.1, 'update_rate': 0.9},
}  # fmt: skip


def _config(kind: str, rows: int = 32, act: ActConfig = ActConfig(), **sizes) -> ExperimentConfig:
    model = ModelConfig(**{
        'vocab_size': 11, 'seq_len': 81, 'num_puzzle_identifiers': 1, 'forward_dtype': 'float32',
        'H_layers': 1, 'L_layers': 1, **(KINDS | TECHNIQUES)[kind], **sizes,
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


def _small(technique: str) -> ExperimentConfig:
    sizes = {'seq_len': 12, 'hidden_size': 64, 'num_heads': 4, 'unroll_cycles': True}
    if 'puzzle_emb_ndim' not in TECHNIQUES[technique]:
        sizes['puzzle_emb_ndim'] = 64
    act = ActConfig(halting='halt_only')
    return _config(technique, 4, act, **sizes)


def _without_convolution(model: ModelConfig) -> ModelConfig:
    """Its two taps are no matrix product."""
    plain = model.gated_unit != 'conv_swiglu'
    return model if plain else dataclasses.replace(model, gated_unit='swiglu')


@pytest.mark.parametrize('technique', TECHNIQUES)
def test_the_products_of_a_train_step_are_those_of_the_program(technique):
    config = _small(technique)
    with commands.quick_compiles():
        found = flop_counts.optimized_flops(_compile(config).as_text())
    rows, model = config.train.global_batch_size, _without_convolution(config.model)
    assert found / (rows * flops.train_step(model, config.act)) == pytest.approx(1, abs=0.005)


@pytest.mark.parametrize('technique', ['chains', 'flow', 'urm'])
def test_the_products_of_a_step_at_inference_are_those_of_the_program(technique):
    config = _small(technique)
    evaluation = EvalConfig(chains=min(2, config.model.chains))
    model = dataclasses.replace(config, eval=evaluation).inference_model
    variables = jax.eval_shape(lambda k: nn.unbox(train_state.init_variables(config, k)),
                               jax.random.key(0))  # fmt: skip
    weights = Weights(variables['params'], variables['constants'], None)

    def step(weights, inputs, rows):
        latent = starts.fresh_latent(model, weights, 4, jax.random.key(0))
        return hrm.act_step(model, weights, latent, inputs, rows, jax.random.key(1))

    arguments = weights, np.ones((4, 12), np.int32), np.ones((4, 64), np.float32)
    with commands.quick_compiles():
        compiled = jax.jit(step).lower(*arguments).compile()
    found = flop_counts.optimized_flops(compiled.as_text())
    analytic = 4 * flops.act_step(_without_convolution(model))
    assert found / analytic == pytest.approx(1, abs=0.005)


def test_a_curriculum_costs_the_mean_of_its_stages():
    config = _small('registers')
    cost = curriculum.flops_of_a_step(config)
    assert cost == 4 * flops.train_step(config.model, config.act)
    model = dataclasses.replace(config.model, H_cycles=3, L_cycles=6)
    config = dataclasses.replace(
        config, model=model, train=dataclasses.replace(config.train, curriculum='cgar')
    )
    stages = [dataclasses.replace(model, H_cycles=h, L_cycles=l) for h, l in ((1, 2), (2, 4))]
    costs = [4 * flops.train_step(one, config.act) for one in (*stages, model)]
    mean = 0.3 * costs[0] + 0.3 * costs[1] + 0.4 * costs[2]
    assert curriculum.flops_of_a_step(config) == pytest.approx(mean)


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
    empty = starts.empty_latent(model, 3)
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
    args = starts.empty_latent(config, 2), jnp.ones((2, 81), jnp.int32), jnp.ones((2, 32))
    variables = nn.unbox(core.init(key, *args))
    variables['params']['q_head']['kernel'] = jnp.ones((32, 2))
    rngs = {'dropout': key}
    _, outputs = core.apply(variables, *args, rngs=rngs)
    ahead = core.apply(variables, *args, rngs=rngs, method='q_values')
    np.testing.assert_array_equal(ahead, [outputs.q_halt, outputs.q_continue])
