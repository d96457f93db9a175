"""Tensors under the names that they have here, for models that no original has.

A safetensors file then holds ``params/...``, ``constants/...`` and ``puzzle_table``, and in its
header the configuration, the train step, and what the data set was.
"""

from collections.abc import Mapping
import json
import os
from typing import Any

from flax import linen as nn
from flax import traverse_util
import jax
import numpy as np

from hrm_jax import train_state
from hrm_jax.checkpoint.store import SavedModel
from hrm_jax.config import ExperimentConfig
from hrm_jax.errors import CheckpointError
from hrm_jax.types import Weights

# In the header of such a file, beside ``hrm_jax`` (the configuration).
MARK = 'hrm_jax_data'


def to_tensors(saved: SavedModel, use_ema: bool) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors of a model by name, and the texts of the header."""
    weights = saved.inference_weights(use_ema)
    tree = {'params': weights.params, 'constants': weights.constants}
    tensors = {name: np.asarray(x) for name, x in traverse_util.flatten_dict(tree, sep='/').items()}
    if weights.puzzle_table is not None:
        tensors['puzzle_table'] = np.asarray(weights.puzzle_table)
    facts = json.dumps(saved.meta.get('dataset', {}))
    return tensors, {'hrm_jax': saved.config.to_json(), MARK: facts, 'step': str(saved.step)}


def to_model(
    tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str], path: str
) -> SavedModel:
    """The inverse of ``to_tensors``.

    Raises:
      CheckpointError: the header is not as it must be, or names or shapes are not those of the
        configuration in it.
    """
    name = os.path.basename(path)
    values, facts = (_object(metadata, key, name) for key in ('hrm_jax', MARK))
    config = ExperimentConfig.from_dict(values)
    expected = _shapes(config)
    found = {key: x.shape for key, x in tensors.items()}
    if wrong := sorted(
        key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key)
    ):
        key = wrong[0]
        raise CheckpointError(
            f'{name}: tensors and configuration must agree; {len(wrong)} do not, e.g. {key}: '
            f'{found.get(key, "missing")} in the file, {expected.get(key, "none")} by the '
            f'configuration. Write the file again with hrm-jax convert.'
        )
    tree = traverse_util.unflatten_dict(
        {key: np.array(x) for key, x in tensors.items() if key != 'puzzle_table'}, sep='/'
    )
    weights = Weights(
        params=tree['params'],
        constants=tree.get('constants', {}),
        puzzle_table=tensors.get('puzzle_table'),
    )
    step = metadata.get('step', '')
    meta = {'dataset': facts, 'metrics': {}, 'source': {}}
    return SavedModel(int(step) if step.isdecimal() else 0, weights, None, config, meta)


def _object(metadata: Mapping[str, str], key: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(metadata[key])
    except (KeyError, ValueError, RecursionError, TypeError) as error:
        raise CheckpointError(f'{name}: {key} in its header must be JSON ({error!r}).') from error
    if not isinstance(value, dict):
        raise CheckpointError(f'{name}: {key} in its header must be an object; got {value!r:.60}.')
    return value


def _shapes(config: ExperimentConfig) -> dict[str, tuple[int, ...]]:
    variables = jax.eval_shape(
        lambda key: nn.unbox(train_state.init_variables(config, key)), jax.random.key(0)
    )
    tree: Any = {name: variables.get(name, {}) for name in ('params', 'constants')}
    flat: Any = traverse_util.flatten_dict(tree, sep='/')
    shapes = {name: x.shape for name, x in flat.items()}
    model = config.model
    if model.has_puzzle_table:
        shapes['puzzle_table'] = (model.num_puzzle_identifiers, model.puzzle_row_size)
    return shapes
