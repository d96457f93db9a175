"""What the core checks need of files: splits on disk, original checkpoints, tensor shapes."""

from collections.abc import Iterator
import json
from pathlib import Path
import tempfile

from flax import linen as nn
import jax
import numpy as np

from experiments.parity.registry import Fixture, Report
from hrm_jax import train_state
from hrm_jax.config import ExperimentConfig, ModelConfig
from hrm_jax.data import pipeline, records
from hrm_jax.interop import formats, tensor_names, torch_reader
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
    for entry in tensor_names.entries(model):
        leaf = variables[entry.collection]
        for key in entry.path:
            leaf = leaf[key]
        shape = jax.eval_shape(
            lambda x, entry=entry: entry.to_official(x),
            jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
        ).shape
        found[entry.name] = (shape, str(leaf.dtype), entry.collection)
    return found


def round_trip(fixture: Fixture, report: Report) -> None:
    """torch -> orbax -> torch of ``NAME.pt``: the same names, order, types and bytes."""
    path = fixture.folder / f'{fixture.stem}.pt'
    if not path.is_file():
        return
    original = torch_reader.read_torch(path)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / 'config.json'
        config.write_text(json.dumps(fixture.info['config']))
        formats.save(formats.load(path, config=str(config)), folder / 'ours', 'orbax')
        back = formats.save(formats.load(folder / 'ours'), folder / 'step_1', 'torch')
        again = torch_reader.read_torch(back)
        wrong = [
            name
            for name in original.keys() | again.keys()
            if name not in again
            or name not in original
            or original[name].dtype != again[name].dtype
            or original[name].tobytes() != again[name].tobytes()
        ]
    wrong += [] if list(original) == list(again) else ['the order']
    note = '; '.join([f'{len(original)} tensors', *wrong])
    report.below('checkpoint to orbax and back', len(wrong), 0, note)
