"""Every file in configs/ is an experiment that can be built: config, state and train step."""

import dataclasses
import importlib
import pathlib

import jax
import numpy as np
import pytest

from hrm_jax import partitioning, train_state, train_step
from hrm_jax.config import ExperimentConfig
from hrm_jax.types import Batch

ROOT = pathlib.Path(__file__).resolve().parent.parent
NAMES = sorted(path.stem for path in (ROOT / 'configs').glob('*.py') if path.stem != '__init__')


def load(name: str) -> ExperimentConfig:
    config = importlib.import_module(f'configs.{name}').get_config()
    return ExperimentConfig.from_dict(config)


@pytest.mark.parametrize('name', NAMES)
def test_state_and_train_step_can_be_built(name):
    config = load(name)
    sizes = {'vocab_size': 11, 'seq_len': 81, 'num_puzzle_identifiers': 3, 'puzzle_tasks': 3}
    model = config.model.for_dataset(**sizes)
    config = dataclasses.replace(config, model=model)
    mesh = partitioning.make_mesh(jax.devices()[:1])
    state = train_state.abstract(config, mesh)
    rows = jax.ShapeDtypeStruct((config.train.global_batch_size, 81), np.int32)
    ids = jax.ShapeDtypeStruct((config.train.global_batch_size,), np.int32)

    new_state, sums = jax.eval_shape(
        train_step.make_train_step(config, 1000, mesh), state, Batch(rows, rows, ids)
    )

    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), (state, new_state))
    assert shapes[0] == shapes[1]
    assert sums.lm_loss.dtype == np.float32


@pytest.mark.parametrize('name', NAMES)
def test_the_docstring_gives_the_commands(name):
    text = importlib.import_module(f'configs.{name}').__doc__
    config = load(name)
    assert config.name == name
    assert f'--config=configs/{name}.py' in text
    assert f'--output-dir {config.data.path}' in text or 'make quickstart' in text


def test_sizes_of_the_published_recipe():
    config = load('sudoku_extreme_1k')
    model = config.model.for_dataset(vocab_size=11, seq_len=81, num_puzzle_identifiers=1)
    config = dataclasses.replace(config, model=model)
    state = train_state.abstract(config, partitioning.make_mesh(jax.devices()[:1]))
    assert sum(leaf.size for leaf in jax.tree.leaves(state.weights.params)) == 27_275_266


# Batch size, epochs, learning rates (model, puzzle table), weight decay, H and L cycles.
RECIPES = {
    # The commands of sapientinc/HRM (README).
    'arc1': (768, 100_000, 1e-4, 1e-2, 0.1, 2, 2),
    'arc2': (768, 100_000, 1e-4, 1e-2, 0.1, 2, 2),
    'maze_hard_1k': (768, 20_000, 1e-4, 1e-4, 1.0, 2, 2),
    'sudoku_extreme_1k': (768, 20_000, 1e-4, 1e-4, 1.0, 2, 2),
    'sudoku_extreme_1k_laptop': (384, 20_000, 7e-5, 7e-5, 1.0, 2, 2),
    'sudoku_hard_full': (2304, 100, 3e-4, 3e-4, 0.1, 2, 8),
    # The commands of SamsungSAILMontreal/TinyRecursiveModels (README).
    'arc1_trm': (768, 100_000, 1e-4, 1e-2, 0.1, 3, 4),
    'arc2_trm': (768, 100_000, 1e-4, 1e-2, 0.1, 3, 4),
    'maze_trm': (768, 50_000, 1e-4, 1e-4, 1.0, 3, 4),
    'sudoku_trm_att': (768, 50_000, 1e-4, 1e-4, 1.0, 3, 6),
    'sudoku_trm_mlp': (768, 50_000, 1e-4, 1e-4, 1.0, 3, 6),
    # The laptop command of NewJerseyStyle/HRM-rnn-base, with its SRU models.
    'sudoku_sru': (384, 20_000, 7e-5, 7e-5, 1.0, 1, 1),
    'sudoku_srupp': (384, 20_000, 7e-5, 7e-5, 1.0, 1, 1),
}
# The record holders: batch size, steps or epochs, learning rate, weight decay, H and L cycles, and
# what makes each of them.
RECORDS = {
    'sudoku_eqr': (768, 50_000, 1e-4, 1.0, 3, 6, {
        'initial_state': 'random', 'high_start_std': 1.0, 'low_start_std': 1.0, 'L_layers': 2,
        'update_rate': 0.95, 'update_noise': 0.01, 'block': 'token_mixing', 'total_len': 81,
    }),
    'maze_eqr': (768, 100_000, 1e-4, 1.0, 3, 4, {
        'initial_state': 'random', 'update_rate': 0.95, 'update_noise': 0.01, 'head_dim': 16,
        'block': 'attention', 'pos_encodings': 'rope', 'hidden_size': 128, 'L_layers': 1,
    }),
    'sudoku_sic': (384, 8_000, 1e-4, 1.0, 6, 9, {
        'gated_unit': 'sigmoid_rms', 'head_bias': True, 'total_len': 82, 'mlp_dim': 1536,
        'L_layers': 2, 'levels': 'shared', 'gradient_window': 'last_cycle',
    }),
    'sudoku_cgar': (768, 65_104, 1e-4, 1.0, 3, 6, {'block': 'token_mixing', 'L_layers': 2}),
    'sudoku_urm': (128, 390_625, 1e-4, 1.0, 2, 6, {
        'levels': 'single', 'closing_update': False, 'L_layers': 4, 'mlp_dim': 1536,
        'gradient_window': 'last_cycle', 'gated_unit': 'conv_swiglu', 'block': 'attention',
        'prefix_len': 1, 'conv_dtype': 'bfloat16',
    }),
    'arc1_urm': (768, 200_000, 1e-4, 0.1, 2, 6, {
        'levels': 'single', 'L_layers': 4, 'gated_unit': 'conv_swiglu', 'prefix_len': 1,
    }),
}  # fmt: skip


@pytest.mark.parametrize('name', RECIPES)
def test_published_recipes(name):
    """A recipe keeps its values when the one that it derives from changes."""
    config = load(name)
    optimizer, model = config.optimizer, config.model
    assert RECIPES[name] == (
        config.train.global_batch_size, config.train.epochs, optimizer.lr,
        optimizer.puzzle_emb_lr, optimizer.weight_decay, model.H_cycles, model.L_cycles,
    )  # fmt: skip
    assert optimizer.puzzle_emb_weight_decay == optimizer.weight_decay
    assert config.train.epochs == 10 * config.train.eval_interval
    trm = name.split('_')[1:2] == ['trm']
    assert (model.levels == 'shared') == trm
    assert (config.act.halting == 'halt_only') == trm
    assert optimizer.ema_decay == (0.999 if trm else 0)


@pytest.mark.parametrize('name', RECORDS)
def test_recipes_of_the_record_holders(name):
    config = load(name)
    train, optimizer = config.train, config.optimizer
    model = config.model.for_dataset(vocab_size=11, seq_len=81, num_puzzle_identifiers=1)
    batch, length, lr, decay, high, low, details = RECORDS[name]
    steps = train.max_steps or train.epochs * 1000 // batch  # 1,000 groups of one example each
    assert (train.global_batch_size, optimizer.lr, optimizer.weight_decay) == (batch, lr, decay)
    assert length in (steps, train.epochs)
    assert (model.H_cycles, model.L_cycles) == (high, low)
    assert {name: getattr(model, name) for name in details} == details
    assert (config.act.halting, config.act.halt_max_steps) == ('halt_only', 16)


def test_the_training_of_sic_and_cgar():
    sic, cgar = load('sudoku_sic'), load('sudoku_cgar')
    optimizer = sic.optimizer
    assert (optimizer.name, optimizer.muon_lr, optimizer.muon_momentum) == ('muon', 0.02, 0.6)
    assert (optimizer.muon_weight_decay, optimizer.muon_steps) == (0.005, 3)
    assert (optimizer.ema_decay, optimizer.ema_start_step) == (0.9, 5000)
    assert (optimizer.grad_clip_norm, optimizer.lr_min_ratio) == (1.0, 0.0)
    assert (optimizer.lr_warmup_steps, optimizer.schedule_start) == (0, 0)
    assert (sic.loss.loss_type, sic.loss.label_smoothing) == ('softmax_cross_entropy', 0.2)
    assert (sic.loss.q_weight, sic.data.augmentation) == (0.05, 'digits')
    assert (cgar.train.curriculum, cgar.train.curriculum_shares) == ('cgar', (0.3, 0.6))
    assert (cgar.loss.step_decay, cgar.loss.q_weight) == (0.7, 0.5)


def test_augmented_hrm_is_hrm_with_hints_and_ten_checkpoints():
    config, base = load('sudoku_augmented_hrm'), load('sudoku_extreme_1k')
    assert (config.train.epochs, config.train.eval_interval) == (40_000, 1000)
    assert config.checkpoint.keep_latest == 10
    assert config.data.path == f'{base.data.path}-hints'
    for name in ('model', 'act', 'loss', 'optimizer', 'eval'):
        assert getattr(config, name) == getattr(base, name)
    assert config.train.global_batch_size == base.train.global_batch_size


def test_a_recipe_does_not_change_the_one_that_it_derives_from():
    """Every call of ``get_config`` makes a configuration of its own."""
    before = load('sudoku_extreme_1k')
    for name in NAMES:
        load(name)
    assert load('sudoku_extreme_1k') == before
