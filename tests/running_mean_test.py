"""States that are running means of their updates: the limits, and ten thousand updates."""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax.config import ModelConfig
from hrm_jax.errors import ConfigError
from hrm_jax.model import hrm, layers, running_mean, starts
from hrm_jax.types import Weights
from tests import commands

MODEL = ModelConfig(
    vocab_size=5, seq_len=4, num_puzzle_identifiers=2, levels='shared', L_layers=1, H_cycles=2,
    L_cycles=2, hidden_size=8, num_heads=2, puzzle_emb_ndim=8, round_mlp=False,
    gradient_window='last_cycle', forward_dtype='float32',
)  # fmt: skip


@pytest.fixture(scope='module', autouse=True)
def _compiled():
    with commands.quick_compiles():
        yield


def _rule(decay: float, dim: int, seed: int = 0) -> running_mean.Rule:
    query = jax.random.normal(jax.random.key(seed), (dim,))
    log_decay = jnp.log(decay) if decay else running_mean.NOTHING
    return running_mean.Rule(query, jnp.float32(log_decay))


def test_without_memory_it_is_the_plain_update_bit_for_bit():
    rule = _rule(0.0, 8)
    for dtype in (jnp.float32, jnp.bfloat16):
        before, new = jax.random.normal(jax.random.key(1), (2, 3, 4, 8)).astype(dtype)
        weight = 50 * jax.random.normal(jax.random.key(2), (3, 4))
        mean, _ = running_mean.averaged(rule, 1e-5, before, weight, new)
        np.testing.assert_array_equal(mean, new)


@pytest.mark.parametrize('window', ['last_cycle', 'one_step', 'full'])
@pytest.mark.parametrize('levels', ['shared', 'single'])
def test_a_model_without_memory_is_the_plain_model_bit_for_bit(window, levels):
    plain = dataclasses.replace(MODEL, gradient_window=window, levels=levels)
    config = dataclasses.replace(plain, running_mean=True)
    inputs, rows = jnp.ones((3, 4), jnp.int32), jnp.ones((3, 8))
    variables = nn.unbox(
        hrm.HRM(config).init(jax.random.key(0), starts.empty_latent(config, 3), inputs, rows)
    )
    query = jax.random.normal(jax.random.key(1), (8,))
    params = variables['params'] | {'high_mean': {'query': query}}
    if levels == 'shared':
        params['low_mean'] = {'query': -query}
    weights = Weights(params, variables['constants'], None)

    @jax.jit
    def run(weights):
        found = []
        for model in (plain, config):
            latent = starts.fresh_latent(model, weights, 3)
            latent, _ = hrm.act_step(model, weights, latent, inputs, rows)
            found.append(hrm.act_step(model, weights, latent, inputs, rows))
        return found

    (latent, outputs), (mean_latent, mean_outputs) = run(weights)
    np.testing.assert_array_equal(latent.high, mean_latent.high)
    if levels == 'shared':
        np.testing.assert_array_equal(latent.low, mean_latent.low)
    np.testing.assert_array_equal(outputs.logits, mean_outputs.logits)


def test_ten_thousand_updates_give_the_weighted_mean():
    steps, dim, decay = 10_000, 4, 0.999
    rule = _rule(decay, dim)
    # Scores of both signs, some so large that their exponentials overflow float32.
    rule = rule._replace(query=60 * rule.query / jnp.linalg.norm(rule.query))
    updates = jax.random.normal(jax.random.key(3), (steps, 1, 2, dim))

    def step(held, new):
        held = running_mean.averaged(rule, 1e-5, *held, new)
        return held, held

    start = jnp.zeros((1, 2, dim)), jnp.full((1, 2), running_mean.NOTHING)
    means, weights = jax.jit(lambda start: jax.lax.scan(step, start, updates)[1])(start)
    assert np.isfinite(means).all()
    scores = np.asarray(layers.rms_norm(updates, 1e-5), np.float64) @ np.asarray(
        rule.query, np.float64
    )
    assert scores.max() > 100 > -100 > scores.min()
    for number in (0, 1, 99, steps - 1):
        ages = np.arange(number, -1, -1.0)[:, None, None]
        logs = scores[: number + 1] + ages * np.log(decay)
        shares = np.exp(logs - logs.max(0))
        wanted = (shares[..., None] * updates[: number + 1]).sum(0) / shares.sum(0)[..., None]
        np.testing.assert_allclose(means[number], wanted, atol=2e-4)
        total = np.log(shares.sum(0)) + logs.max(0)
        np.testing.assert_allclose(weights[number], total, rtol=1e-5, atol=2e-3)


def test_a_learned_decay_begins_where_it_is_set_and_learns():
    config = dataclasses.replace(MODEL, running_mean=True, mean_decay=0.7, learned_mean_decay=True)
    inputs, rows = jnp.arange(12).reshape(3, 4) % 5, jnp.ones((3, 8))
    variables = nn.unbox(
        hrm.HRM(config).init(jax.random.key(0), starts.empty_latent(config, 3), inputs, rows)
    )
    params = variables['params']
    for level in ('high_mean', 'low_mean'):
        assert jax.nn.sigmoid(params[level]['decay']) == pytest.approx(0.7)
        params[level]['query'] = jax.random.normal(jax.random.key(1), (8,))

    @jax.jit
    @jax.grad
    def gradient(params):
        weights = Weights(params, variables['constants'], None)
        latent = starts.fresh_latent(config, weights, 3)
        latent, _ = hrm.act_step(config, weights, latent, inputs, rows)
        return jnp.square(hrm.act_step(config, weights, latent, inputs, rows)[1].logits).sum()

    found = gradient(params)
    for level in ('high_mean', 'low_mean'):
        assert np.isfinite(found[level]['query']).all()
        assert found[level]['decay'] != 0
        assert np.any(found[level]['query'] != 0)


def test_settings_that_contradict_each_other():
    for settings, reason in (
        ({'mean_decay': 0.5}, 'are of model.running_mean'),
        ({'running_mean': True, 'mean_decay': 1.0}, r'in \[0, 1\)'),
        ({'running_mean': True, 'learned_mean_decay': True}, 'must then be above 0'),
        ({'running_mean': True, 'low_states': 2}, 'one for each level'),
    ):
        with pytest.raises(ConfigError, match=reason):
            dataclasses.replace(MODEL, **settings)
