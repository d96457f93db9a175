"""Techniques can be combined: every pair trains and evaluates, or is refused with a reason."""

import dataclasses
import itertools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax import eval_step, partitioning, train_state, train_step
from hrm_jax.checkpoint import store
from hrm_jax.checkpoint.saver import Saver
from hrm_jax.config import CheckpointConfig, ExperimentConfig
from hrm_jax.errors import ConfigError
from hrm_jax.types import Batch
from tests import commands

VOCAB, CELLS, ROWS = 5, 4, 4
BASE = {
    'model': {
        'vocab_size': VOCAB, 'seq_len': CELLS, 'num_puzzle_identifiers': 2, 'levels': 'shared',
        'gradient_window': 'full', 'H_cycles': 1, 'L_cycles': 1, 'L_layers': 1,
        'hidden_size': 8, 'num_heads': 2, 'puzzle_emb_ndim': 8, 'round_mlp': False,
        'forward_dtype': 'float32',
    },
    'act': {'halting': 'halt_only', 'halt_max_steps': 2, 'halt_exploration_prob': 0.5},
    'optimizer': {'lr': 1e-2, 'lr_warmup_steps': 0},
    'train': {'global_batch_size': ROWS},
}  # fmt: skip
# One technique a line: its settings, section by section.
TECHNIQUES = {
    'random start': {'model': {'initial_state': 'random'}},
    'update noise': {'model': {'update_noise': 0.01, 'update_rate': 0.95}},
    'chains': {'model': {'chains': 2, 'chain_similarity': 0.9, 'align_chains': True},
               'eval': {'chains': 2}},
    'flow': {'model': {'flow': True, 'flow_open_token': 1, 'flow_pseudotarget_steps': 2},
             'eval': {'flow_noise': 1.0}},
    'running mean': {'model': {'running_mean': True, 'mean_decay': 0.5}},
    'muon': {'optimizer': {'name': 'muon', 'muon_dtype': 'float32'}},
    'curriculum': {'train': {'curriculum': 'cgar'}, 'model': {'H_cycles': 2, 'L_cycles': 2}},
    'token mixing': {'model': {'block': 'token_mixing'}},
    'attention': {'model': {'block': 'attention'}},
}  # fmt: skip
REFUSED = {
    frozenset(('chains', 'flow')): 'one answer whose noise and time the chains would share',
}
# Either, not both.
ALTERNATIVES = ({'token mixing', 'attention'},)
PAIRS = [
    pair for pair in itertools.combinations(TECHNIQUES, 2) if set(pair) not in ALTERNATIVES
]  # fmt: skip


@pytest.fixture(scope='module', autouse=True)
def _compiled():
    with commands.quick_compiles():
        yield


def experiment(*techniques: str) -> ExperimentConfig:
    values = {section: dict(settings) for section, settings in BASE.items()}
    for name in techniques:
        for section, settings in TECHNIQUES[name].items():
            values.setdefault(section, {}).update(settings)
    return ExperimentConfig.from_dict(values)


def batch(seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    labels = rng.integers(1, VOCAB, (ROWS, CELLS)).astype(np.int32)
    inputs = np.where(rng.random(labels.shape) < 0.5, labels, 1).astype(np.int32)
    return Batch(inputs, labels, rng.integers(0, 2, ROWS).astype(np.int32))


@pytest.mark.parametrize('pair', PAIRS, ids=' and '.join)
def test_every_pair_trains_and_evaluates_or_is_refused(pair):
    reason = REFUSED.get(frozenset(pair))
    if reason is not None:
        with pytest.raises(ConfigError, match=reason):
            experiment(*pair)
        return
    config = experiment(*pair).with_eval_steps(1)

    @jax.jit
    def run(key, batch):
        before = nn.unbox(train_state._build(config, key))
        after, sums = train_step.train_step(config, 4, before, batch)
        return before, after, sums, eval_step.eval_step(config, after.weights, batch, key)

    before, after, sums, result = run(jax.random.key(0), batch())

    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), (before, after))
    assert shapes[0] == shapes[1]
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), before.weights, after.weights)
    assert moved.params['lm_head']['kernel']
    assert moved.params['L_level']['layers_0']['mlp']['down_proj']['kernel']
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((after.weights, sums, result)))
    assert sums.rows == result.sums.rows == ROWS
    assert result.sums.count == ROWS
    assert result.predictions.shape == (ROWS, CELLS)


def test_every_refusal_is_of_techniques_of_the_table():
    assert {name for pair in REFUSED for name in pair} <= set(TECHNIQUES)


# Everything that is drawn at once, and all states that a carry may have.
RESUMED = {
    'draws': ('random start', 'update noise'),
    'chains': ('chains', 'random start', 'running mean'),
    'flow': ('flow', 'running mean'),
    'stage of the curriculum': ('curriculum', 'muon'),
}


@pytest.mark.parametrize('name', RESUMED)
def test_a_run_resumes_exactly(name, tmp_path):
    config = experiment(*RESUMED[name])
    mesh = partitioning.make_mesh(jax.devices()[:1])
    step = train_step.make_train_step(config, 4, mesh)

    def trained(state, numbers):
        for number in numbers:
            state, _ = step(state, partitioning.put_global(batch(number), mesh))
        return state

    half = trained(train_state.create(config, mesh), range(2))
    meta = {'step': 2, 'config': config.to_dict(), 'dataset': {}, 'metrics': {}}
    with Saver(tmp_path, CheckpointConfig()) as saver:
        saver.save(half, {'batches': 2}, meta)
        saver.wait()
    restored, _ = store.restore(tmp_path / 'checkpoints' / '2', train_state.abstract(config, mesh))
    whole, resumed = trained(half, range(2, 4)), trained(restored, range(2, 4))

    def arrays(state):
        return jax.tree.leaves(dataclasses.replace(state, rng=jax.random.key_data(state.rng)))

    for one, other in zip(arrays(whole), arrays(resumed), strict=True):
        np.testing.assert_array_equal(one, other)
