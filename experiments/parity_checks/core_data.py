"""What the core checks need of the disk format and of a model's abstract parameters."""

from collections.abc import Iterator
import json
from pathlib import Path

from flax import linen as nn
import jax
import numpy as np

from experiments.parity_checks.registry import Fixture
from hrm_jax import train_state
from hrm_jax.config import ExperimentConfig, ModelConfig
from hrm_jax.data import pipeline, records
from hrm_jax.interop import official
from hrm_jax.types import Batch


def write_npy_folder(fixture: Fixture, root: Path) -> None:
    """Writes the arrays ``dataset/*`` as the original's test split below ``root``."""
    split = root / 'test'
    split.mkdir()
    (split / 'dataset.json').write_text(json.dumps(fixture.info['dataset_json']))
    for name, values in fixture.group('dataset/').items():
        np.save(split / f'{name}.npy', values)


def eval_batches(root: Path, batch_size: int) -> Iterator[tuple[str, Batch, int]]:
    """The evaluation batches that the project's reader makes of the folder."""
    dataset = records.load(root, 'test', 'npy_folder')
    return pipeline.eval_batches(dataset, batch_size)


def count_batches(fixture: Fixture) -> int:
    """Batches that the fixture lists."""
    return len({name.split('/')[0] for name in fixture.arrays if name.startswith('batch')})


def official_shapes(model: ModelConfig) -> dict[str, tuple[tuple[int, ...], str, str]]:
    """Original name -> (shape, dtype, collection) of the tensors that the model really makes."""
    config = ExperimentConfig(model=model)
    variables = jax.eval_shape(
        lambda key: train_state.init_variables(config, key), jax.random.key(0)
    )
    variables = nn.unbox(variables)
    variables['puzzle_table'] = jax.ShapeDtypeStruct(
        (model.num_puzzle_identifiers, model.puzzle_emb_ndim), np.float32
    )
    found = {}
    for entry in official.entries(model):
        leaf = variables[entry.collection]
        for key in entry.path:
            leaf = leaf[key]
        shape = jax.eval_shape(
            lambda x, entry=entry: entry.to_official(x),
            jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
        ).shape
        found[entry.name] = (shape, str(leaf.dtype), entry.collection)
    return found
