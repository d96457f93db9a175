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
    assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == 27_275_266
