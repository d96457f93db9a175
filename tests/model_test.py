"""Properties of the recursive core that no fixture states."""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax import partitioning, train_state, train_step
from hrm_jax.config import ActConfig, ExperimentConfig, ModelConfig, TrainConfig
from hrm_jax.errors import ConfigError
from hrm_jax.model import flops, hrm
from hrm_jax.types import LatentState

SMALL = ModelConfig(
    vocab_size=7,
    seq_len=9,
    num_puzzle_identifiers=3,
    hidden_size=32,
    num_heads=4,
    H_layers=1,
    L_layers=1,
    puzzle_emb_ndim=40,  # two slots, the second one partly padding
    forward_dtype='float32',
)


def _setup(model: ModelConfig, rows: int = 3):
    key = jax.random.key(1)
    config = ExperimentConfig(model=model)
    variables = jax.jit(lambda key: nn.unbox(train_state.init_variables(config, key)))(key)
    shape = (rows, model.total_len, model.hidden_size)
    dtype = jnp.dtype(model.forward_dtype)
    latent = LatentState(
        high=jax.random.normal(key, shape, dtype),
        low=jax.random.normal(jax.random.key(2), shape, dtype),
    )
    inputs = jax.random.randint(key, (rows, model.seq_len), 0, model.vocab_size)
    puzzle = jax.random.normal(key, (rows, model.puzzle_emb_ndim)) if model.prefix_len else None
    return hrm.HRM(model), variables, latent, inputs, puzzle


def _apply(core, *args):
    return jax.jit(core.apply)(*args)


def _largest(tree) -> float:
    return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


def test_one_step_gradient_is_that_of_the_last_two_updates():
    core, variables, latent, inputs, puzzle = _setup(SMALL)

    def loss(config, params, latent):
        module = hrm.HRM(config)
        state, _ = module.apply({**variables, 'params': params}, latent, inputs, puzzle)
        return jnp.sum(state.high**3)

    def run(latent, **changes):
        module = hrm.HRM(dataclasses.replace(SMALL, **changes))
        return _apply(module, variables, latent, inputs, puzzle)[0]

    # The state before the last low update, reached by whole calls of shorter schedules.
    before = run(latent, H_cycles=1, L_cycles=2)
    params = variables['params']
    level = core.bind(variables)
    x = level.embed(inputs, puzzle)
    low = level.L_level(before.low, before.high + x)
    last = LatentState(high=before.high, low=low)
    got = jax.jit(jax.grad(loss, argnums=1), static_argnums=0)(SMALL, params, latent)
    short = dataclasses.replace(SMALL, H_cycles=1, L_cycles=1, gradient_window='full')
    want = jax.jit(jax.grad(loss, argnums=1), static_argnums=0)(short, params, last)
    assert _largest(want) > 0.1
    worst = jax.tree.map(lambda a, b: jnp.abs(a - b).max() / jnp.abs(b).max(), got, want)
    assert _largest(worst['H_level']) < 1e-4
    assert _largest(worst['L_level']) < 1e-4


@pytest.mark.parametrize(
    ('window', 'flows'), [('one_step', False), ('last_cycle', False), ('full', True)]
)
def test_gradient_reaches_the_start_only_through_the_full_window(window, flows):
    core, variables, latent, inputs, puzzle = _setup(
        dataclasses.replace(SMALL, gradient_window=window)
    )

    def loss(latent):
        return jnp.sum(core.apply(variables, latent, inputs, puzzle)[0].high ** 3)

    assert (_largest(jax.jit(jax.grad(loss))(latent)) > 0) == flows


def test_rows_do_not_see_each_other():
    core, variables, latent, inputs, puzzle = _setup(SMALL)
    _, before = _apply(core, variables, latent, inputs, puzzle)
    changed = inputs.at[1].set((inputs[1] + 1) % SMALL.vocab_size)
    _, after = _apply(core, variables, latent, changed, puzzle)
    differs = np.abs(np.asarray(before.logits - after.logits)).max(axis=(1, 2))
    assert differs[1] > 1e-3
    np.testing.assert_array_equal(differs[[0, 2]], 0)


@pytest.mark.parametrize('changes', [
    {'pos_encodings': 'learned'},
    {'pos_encodings': 'none'},
    {'puzzle_emb_ndim': 0},
    {'levels': 'shared', 'gradient_window': 'last_cycle'},
    {'forward_dtype': 'bfloat16'},
    {'forward_dtype': 'float16'},
    {'remat': True},
], ids=str)  # fmt: skip
def test_every_choice_runs_in_its_dtype(changes):
    model = dataclasses.replace(SMALL, **changes)
    core, variables, latent, inputs, puzzle = _setup(model)
    state, outputs = _apply(core, variables, latent, inputs, puzzle)
    dtype = jnp.dtype(model.forward_dtype)
    assert state.high.dtype == state.low.dtype == outputs.logits.dtype == dtype
    assert outputs.q_halt.dtype == jnp.float32
    assert outputs.logits.shape == (3, model.seq_len, model.vocab_size)
    assert np.isfinite(np.asarray(outputs.logits, np.float32)).all()
    np.testing.assert_array_equal(outputs.q_halt, -5.0)  # zero weights, bias -5
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables['params']))


def test_remat_and_unrolled_cycles_change_no_number():
    core, variables, latent, inputs, puzzle = _setup(SMALL)
    _, want = _apply(core, variables, latent, inputs, puzzle)
    for changes in ({'remat': True}, {'unroll_cycles': True}):
        other = hrm.HRM(dataclasses.replace(SMALL, **changes))
        _, got = _apply(other, variables, latent, inputs, puzzle)
        np.testing.assert_allclose(got.logits, want.logits, atol=1e-5)


@pytest.mark.parametrize(('name', 'std'), [
    ('truncated_normal', 1.0), ('normal', 1.0), ('uniform', 3**-0.5)
])  # fmt: skip
def test_initializers_have_their_spread(name, std):
    model = dataclasses.replace(SMALL, hidden_size=128, initializer=name)
    _, variables, *_ = _setup(model)
    kernel = variables['params']['L_level']['layers_0']['self_attn']['qkv_proj']['kernel']
    spread = np.asarray(kernel) * 128**0.5
    assert abs(spread.std() - std) < 0.02
    if name == 'truncated_normal':
        assert abs(spread).max() <= 2.2737


@pytest.mark.parametrize(('changes', 'message'), [
    ({'hidden_size': 30}, 'multiple of model.num_heads'),
    ({'num_heads': 32}, 'even head size'),
    ({'levels': 'sepparate'}, "Did you mean 'separate'"),
    ({'H_cycles': 0}, 'greater than 0'),
    ({'puzzle_emb_len': 1}, 'must hold puzzle_emb_ndim'),
])  # fmt: skip
def test_contradictions_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(SMALL, **changes)


def _compile(rows: int = 8, **changes):
    model = ModelConfig(
        vocab_size=11, seq_len=81, num_puzzle_identifiers=1, forward_dtype='float32', **changes
    )
    config = ExperimentConfig(model=model, train=TrainConfig(global_batch_size=rows))
    mesh = partitioning.make_mesh(jax.devices()[:1])
    state = train_state.abstract(config, mesh)
    step = train_step.make_train_step(config, 100, mesh)
    return config, step.lower(state, state.carry.batch).compile()


def test_nothing_is_computed_twice():
    config, compiled = _compile(unroll_cycles=True)  # the full 27M model
    analytic = flops.train_step(config.model, config.act) * config.train.global_batch_size
    assert abs(compiled.cost_analysis()['flops'] / analytic - 1) < 0.02
    assert flops.train_step(config.model, ActConfig()) == pytest.approx(36.2e9, rel=5e-3)


@pytest.mark.parametrize(
    ('backend', 'dtype', 'exact'),
    [('gpu', 'float32', True), ('gpu', 'bfloat16', False), ('cpu', 'float32', False)],
)
def test_float32_is_not_cut_short_on_accelerators(monkeypatch, backend, dtype, exact):
    monkeypatch.setattr(jax, 'default_backend', lambda: backend)
    monkeypatch.setattr(partitioning, 'on_cpu', lambda: backend == 'cpu')
    model = dataclasses.replace(SMALL, forward_dtype=dtype, attention='xla')
    core, variables, latent, inputs, puzzle = _setup(model)

    def loss(params):
        latent_out, outputs = core.apply({**variables, 'params': params}, latent, inputs, puzzle)
        return outputs.logits.astype(jnp.float32).sum() + latent_out.low.astype(jnp.float32).sum()

    text = str(jax.make_jaxpr(jax.grad(loss))(variables['params']))
    products = text.count('dot_general[')
    assert products > 20
    assert text.count('(Precision.HIGHEST') == (products if exact else 0)
