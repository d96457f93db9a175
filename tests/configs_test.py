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
    model = config.model.for_dataset(vocab_size=11, seq_len=81, num_puzzle_identifiers=3)
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


def test_a_recipe_does_not_change_the_one_that_it_derives_from():
    """Every call of ``get_config`` makes a configuration of its own."""
    before = load('sudoku_extreme_1k')
    for name in NAMES:
        load(name)
    assert load('sudoku_extreme_1k') == before
