"""A symbol axis in early exit and rollouts: every chain equals the chain alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax import partitioning, train_state
from hrm_jax.config import RolloutConfig
from hrm_jax.inference.solver import Solver
from hrm_jax.types import Batch
from tests import rollouts_test
from tests.rollouts_test import BREADTH, CELLS, DEPTH, PUZZLES, VOCAB

SHARED = {
    'puzzle_emb_ndim': 0, 'H_layers': 0, 'gradient_window': 'last_cycle', 'symbol_heads': 2,
    'symbol_head_size': 4, 'intermediate_size': 32,
}  # fmt: skip
# Chains differ by their random starts and noise, or by their masks.
KINDS = {
    'fields': (
        {'levels': 'shared', 'symbol_exchange': 'attention_to_others', 'symbol_input': 'roles',
         'pos_encodings': 'rope2d', 'initial_state': 'random_in_training'},
        'halt_only', {'random_start': True},
    ),
    'mixing': (
        {'levels': 'shared', 'symbol_exchange': 'mean', 'symbol_input': 'roles',
         'pos_encodings': 'none', 'block': 'token_mixing', 'initial_state': 'random'},
        'halt_only', {},
    ),
    'se_rrm': (
        {'levels': 'single', 'symbol_exchange': 'attention', 'pos_encodings': 'rope2d_whole',
         'added_tokens': 2, 'q_head': False, 'q_confidence': True, 'initial_state': 'fixed',
         'attention_dropout': 0.3, 'dropout_at_inference': True},
        'random', {'high_step_noise': 0.0, 'update_noise': 0.0},
    ),
}  # fmt: skip


def make(kind):
    """The experiment, its weights (the Q head halts some chains early) and puzzles."""
    model, halting, section = KINDS[kind]
    config = rollouts_test.make_config(SHARED | model, {'halting': halting}, **section)
    mesh = partitioning.make_mesh(jax.devices()[:1])
    weights = train_state.create(config, mesh).weights
    if config.model.q_head:
        kernel = 20 * jax.random.normal(jax.random.key(1), (16, 2))
        head = {'kernel': kernel, 'bias': jnp.zeros(2)}
        weights = weights.replace(params=weights.params | {'q_head': head})
    inputs = np.random.default_rng(0).integers(1, VOCAB, (PUZZLES, CELLS)).astype(np.int32)
    return config, mesh, weights, Batch(inputs, inputs.copy(), np.zeros(PUZZLES, np.int32))


@pytest.mark.parametrize('kind', KINDS)
def test_every_chain_equals_the_chain_alone(kind):
    config, mesh, weights, puzzles = make(kind)
    config = rollouts_test.with_rollouts(config, 'adaptive', select='q')
    found = rollouts_test.run(config, mesh, weights, [puzzles], slots=8)
    plain = dataclasses.replace(config.eval, rollouts=RolloutConfig())
    solver = Solver(
        dataclasses.replace(config, eval=plain), weights, rollouts_test.sudoku(), 'sudoku',
        jax.devices()[:1],
    )  # fmt: skip
    single = solver.solve(list(puzzles.inputs))
    # Lots are drawn in training only.
    halting = config.act.halting.replace('random', 'fixed')
    spent = set()
    for puzzle in range(PUZZLES):
        [one] = found[puzzle]
        for chain in range(BREADTH):
            logits, q_halt, count = rollouts_test.alone(
                config, weights, puzzles, puzzle, chain, halting
            )
            assert one.chains.steps[chain] == count
            np.testing.assert_array_equal(one.chains.predictions[chain], logits[-1].argmax(-1))
            np.testing.assert_allclose(one.chains.q_halt[chain], q_halt, rtol=1e-4, atol=1e-4)
            spent.add(count)
            if chain == 0:  # early exit without rollouts
                assert single[puzzle].steps == count
                np.testing.assert_array_equal(single[puzzle].answer, logits[-1].argmax(-1))
        assert len({row.tobytes() for row in one.chains.predictions}) > 1
    assert spent == {DEPTH} if kind == 'se_rrm' else len(spent) > 1
