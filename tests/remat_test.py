"""What the backward pass keeps, counted on the traced program: with remat the blocks' inputs."""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp
import pytest

from hrm_jax import train_state, train_step
from hrm_jax.config import ExperimentConfig

ROWS, CELLS, WIDTH = 8, 64, 32


def kept(remat, window, layers):
    """Bytes that are kept for the backward pass of one ACT step, beside weights and state."""
    config = ExperimentConfig.from_dict({
        'model': {
            'vocab_size': 5, 'seq_len': CELLS, 'num_puzzle_identifiers': 1, 'hidden_size': WIDTH,
            'num_heads': 4, 'intermediate_size': WIDTH, 'puzzle_emb_ndim': WIDTH,
            'H_layers': layers, 'L_layers': layers, 'gradient_window': window,
            'forward_dtype': 'float32', 'attention': 'xla', 'remat': remat,
        },
        'act': {'train_q_continue': False},
        'train': {'global_batch_size': ROWS},
    })  # fmt: skip
    state = jax.eval_shape(lambda key: train_state._build(config, key), jax.random.key(0))
    state = nn.unbox(state)

    def residuals(params, state):
        def loss(params):
            weights = dataclasses.replace(state.weights, params=params)
            rows, steps = jnp.zeros((ROWS, WIDTH)), jnp.zeros(ROWS, jnp.int32)
            return train_step.step_loss(config, weights, rows, state.carry, steps)[0]

        return jax.tree.leaves(jax.vjp(loss, params)[1])

    found = jax.eval_shape(residuals, state.weights.params, state)
    weights = {leaf.shape for leaf in jax.tree.leaves(state.weights.params)}
    return sum(x.size * x.dtype.itemsize for x in found if x.shape not in weights)


@pytest.mark.parametrize('window', ['one_step', 'full'])
def test_remat_keeps_little_more_for_every_block(window):
    block = ROWS * (CELLS + 1) * WIDTH * 4  # the input of one block
    per_layer = {
        remat: kept(remat, window, layers=3) - kept(remat, window, layers=2)
        for remat in (False, True)
    }
    levels = 2 if window == 'one_step' else 2 + 4  # H_cycles x (1 high + L_cycles low) updates
    assert 0 < per_layer[True] <= 1.5 * levels * block
    assert per_layer[False] > 6 * per_layer[True]
