"""A run with every draw, Muon and a curriculum resumes exactly, at every stage."""

import json

import pytest

from hrm_jax import train
from tests import commands, tiny_run
from tests.resume_test import assert_same_end

RECIPE = {
    'model': {
        'levels': 'shared', 'gradient_window': 'last_cycle', 'H_cycles': 2, 'L_cycles': 3,
        'puzzle_emb_ndim': 0, 'register_tokens': 1, 'gated_unit': 'sigmoid_rms',
        'initial_state': 'random', 'update_rate': 0.9, 'update_noise': 0.05,
        'high_step_noise': 0.05, 'forward_dtype': 'float32',
    },
    'act': {'halting': 'halt_only'},
    'loss': {'loss_type': 'softmax_cross_entropy', 'label_smoothing': 0.1, 'step_decay': 0.7},
    'optimizer': {'name': 'muon', 'grad_clip_norm': 1.0, 'ema_start_step': 12},
}  # fmt: skip


@pytest.fixture(scope='module', autouse=True)
def _compiled():
    with commands.quick_compiles():
        yield


def recipe(data, max_steps: int):
    # Of 80 steps: stages begin at 8 and 16, evaluations are at 10 and 20.
    stages = {'curriculum': 'cgar', 'curriculum_shares': (0.1, 0.2), 'max_steps': max_steps}
    return tiny_run.config(data, train=stages, **RECIPE)


def test_a_run_of_a_recipe_resumes_exactly(tmp_path):
    data = tiny_run.write_dataset(tmp_path / 'data')
    train.train(recipe(data, 20), tmp_path / 'long')
    train.train(recipe(data, 10), tmp_path / 'short')
    logged = []
    train.train(recipe(data, 20), tmp_path / 'short', log=logged.append)
    assert any('resumed from step 10' in text for text in logged)
    assert_same_end(tmp_path / 'long', tmp_path / 'short', recipe(data, 20))
    lines = (tmp_path / 'long' / 'metrics.jsonl').read_text().splitlines()
    rates = json.loads(lines[0])
    assert rates['train/muon_lr'] > rates['train/lr'] > 0
