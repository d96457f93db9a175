"""Loads and saves models in every format, whatever the format is.

=========== =============================================================================
torch       ``step_N`` of the originals, beside its ``all_config.yaml``
huggingface a folder with ``config.json`` and ``model.safetensors``, transformers' names
safetensors one file, the original's names, our configuration in its header
orbax       a checkpoint of ours, or the folder of a run
=========== =============================================================================
"""

from collections.abc import Mapping
import dataclasses
import json
import os
import re
from typing import Any

from hrm_jax import files
from hrm_jax.checkpoint import compatible, layout
from hrm_jax.checkpoint.store import SavedModel
from hrm_jax.config import ExperimentConfig
from hrm_jax.errors import CheckpointError
from hrm_jax.interop import (
    architecture,
    hub,
    orbax_io,
    original_config,
    safetensors_io,
    state_dict,
    torch_reader,
    torch_writer,
    transformers_config,
)
from hrm_jax.interop.architecture import Finding
from hrm_jax.interop.original_config import Settings
from hrm_jax.interop.transformers_config import HrmConfig

FORMATS = ('torch', 'huggingface', 'safetensors', 'orbax')
WEIGHTS_NAME = 'model.safetensors'
_STEP = re.compile(r'(?:^|_)step_(\d+)')
_TORCH_SUFFIXES = ('.pt', '.pth', '.bin', '.ckpt')


@dataclasses.dataclass(frozen=True)
class Source:
    """A checkpoint that was found.

    Attributes:
      format: one of ``FORMATS``.
      path: the file of the tensors, or the folder of an orbax checkpoint.
      config: the configuration file that belongs to it, or ''.
    """

    format: str
    path: str
    config: str


def find(
    path_or_hub_id: str | os.PathLike, config: str = '', revision: str | None = None
) -> Source:
    """Finds out what lies under a path or hub id.

    Args:
      path_or_hub_id: a file, a folder, or ``owner/name`` on the hub.
      config: configuration file to use in place of the one beside the weights.
      revision: branch, tag or commit on the hub.

    Raises:
      CheckpointError: there is nothing, or no checkpoint.
    """
    path = hub.local_path(path_or_hub_id, revision)
    folder = path if os.path.isdir(path) else os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(path):
        with open(path, 'rb') as file:
            is_torch = file.read(4) == b'PK\x03\x04'
        kind = 'torch' if is_torch or not path.endswith('.safetensors') else 'safetensors'
        return Source(kind, path, config or _config_beside(folder))
    names = sorted(os.listdir(path))
    if WEIGHTS_NAME in names or WEIGHTS_NAME + '.index.json' in names:
        chosen = WEIGHTS_NAME if WEIGHTS_NAME in names else WEIGHTS_NAME + '.index.json'
        kind = 'huggingface' if 'config.json' in names else 'safetensors'
        return Source(kind, os.path.join(path, chosen), config or _config_beside(folder))
    if layout.FOLDER in names or {'params', 'meta'} <= set(names):
        if config:
            raise CheckpointError(
                f'{path} is a checkpoint of ours and carries its configuration; leave out {config}.'
            )
        return Source('orbax', path, '')
    files = [name for name in names if os.path.isfile(os.path.join(path, name))]
    steps = [n for n in files if step_of(n) is not None and 'all_preds' not in n]
    others = [n for n in files if n.endswith(_TORCH_SUFFIXES) or n.startswith('checkpoint')]
    if 'checkpoint' in others:
        others = ['checkpoint']
    if steps or len(others) == 1:
        chosen = max(steps, key=lambda name: step_of(name) or 0) if steps else others[0]
        return Source('torch', os.path.join(path, chosen), config or _config_beside(folder))
    raise CheckpointError(
        f'{path} holds no checkpoint: expected step_N, model.safetensors or a folder '
        f'checkpoints; it has {", ".join(names[:8]) or "nothing"}. Name the file itself.'
    )


def step_of(path: str) -> int | None:
    """Returns N of a file named ``step_N``, otherwise None."""
    match = _STEP.search(os.path.basename(path))
    return int(match[1]) if match else None


def _config_beside(folder: str) -> str:
    for name in (original_config.FILE_NAME, transformers_config.FILE_NAME):
        if os.path.isfile(os.path.join(folder, name)):
            return os.path.join(folder, name)
    return ''


def settings_of(
    values: Mapping[str, Any], source: str, findings: Mapping[str, Finding]
) -> Settings:
    """Translates a parsed configuration of any of the three kinds, told apart by its keys."""
    if isinstance(values.get('model'), Mapping):
        rest = ExperimentConfig.from_dict(values).to_dict()
        return Settings(rest.pop('model'), rest, source)
    if values.get('model_type') == 'hrm' or 'num_attention_heads' in values:
        return transformers_config.settings(values, source)
    return original_config.from_original(values, source, findings)


def read_state(path: str) -> tuple[dict, dict[str, str]]:
    """Returns the tensors of a torch or safetensors file (or index of several), and metadata."""
    if path.endswith('.index.json'):
        with open(path, encoding='utf-8') as file:
            shards = sorted(set(json.load(file)['weight_map'].values()))
        state: dict = {}
        for shard in shards:
            name = os.path.join(os.path.dirname(path), os.path.basename(shard))
            state |= safetensors_io.read_safetensors(name)[0]
        return state, {}
    if torch_reader.is_torch_file(path) or not path.endswith('.safetensors'):
        return torch_reader.read_torch(path), {}
    return safetensors_io.read_safetensors(path)


def load(
    path_or_hub_id: str | os.PathLike | Source,
    *,
    config: str = '',
    seq_len: int = 0,
    forward_dtype: str = '',
    revision: str | None = None,
) -> SavedModel:
    """Loads weights from any format.

    Args:
      path_or_hub_id: a file, a folder, or ``owner/name`` on the hub; or what ``find`` returned.
      config: configuration file in place of the one beside the weights: the originals'
        all_config.yaml, transformers' config.json, or ours.
      seq_len: cells of a puzzle, where nothing else says.
      forward_dtype: type to compute in, in place of the checkpoint's.
      revision: branch, tag or commit on the hub.

    Returns:
      The model in numpy; arrays may be read-only views of the file.

    Raises:
      CheckpointError, ConfigError: anything is not as it must be.
      OSError: a file can not be read.
    """
    source = path_or_hub_id
    if not isinstance(source, Source):
        source = find(source, config, revision)
    if source.format == 'orbax':
        saved = orbax_io.read_model(source.path)
        return with_forward_dtype(saved, forward_dtype) if forward_dtype else saved
    state, metadata = read_state(source.path)
    tensors, prefix = state_dict.unify_names(state)
    findings = architecture.infer_model(tensors)
    if source.config:
        name = os.path.basename(source.config)
        settings = settings_of(original_config.read_mapping(source.config), name, findings)
    elif 'hrm_jax' in metadata:
        name = os.path.basename(source.path)
        settings = settings_of(json.loads(metadata['hrm_jax']), name, findings)
    else:
        settings = Settings({}, {}, 'no configuration')
    step = metadata.get('step', '')
    saved = state_dict.to_model(
        tensors,
        findings,
        settings,
        step=int(step) if step.isdigit() else step_of(source.path) or 0,
        seq_len=seq_len,
        forward_dtype=forward_dtype,
    )
    naming = 'transformers' if state_dict.has_transformers_names(state) else 'original'
    saved.meta['source'] |= {'prefix': prefix, 'naming': naming}
    return saved


def with_forward_dtype(saved: SavedModel, dtype: str) -> SavedModel:
    """Returns the model computing in another type; parameters stay float32."""
    import jax
    import numpy as np

    model = dataclasses.replace(saved.config.model, forward_dtype=dtype)
    weights = saved.weights
    constants = jax.tree.map(lambda x: np.asarray(x).astype(np.dtype(dtype)), weights.constants)
    config = dataclasses.replace(saved.config, model=model)
    weights = weights.replace(constants=constants)
    return dataclasses.replace(saved, weights=weights, config=config)


def with_puzzle_rows(saved: SavedModel, rows: int, choice: str) -> SavedModel:
    """Returns the model with ``rows`` rows of the puzzle table (see ``compatible.resize_table``).

    Raises:
      CheckpointError: the size differs and the choice is ``error``.
      CheckpointError: the model has no puzzle table.
    """
    if saved.weights.puzzle_table is None:
        raise CheckpointError('this model has no puzzle table (puzzle_emb_ndim=0).')
    table = compatible.resize_table(saved.weights.puzzle_table, rows, choice)
    model = dataclasses.replace(saved.config.model, num_puzzle_identifiers=rows)
    config = dataclasses.replace(saved.config, model=model)
    sizes = saved.meta.get('dataset', {}) | {'num_puzzle_identifiers': rows}
    meta = saved.meta | {'dataset': sizes}
    weights = saved.weights.replace(puzzle_table=table)
    return dataclasses.replace(saved, weights=weights, config=config, meta=meta)


def guess_format(destination: str | os.PathLike, source_format: str = '') -> str:
    """Chooses the format of a destination by its name.

    Raises:
      CheckpointError: the name says nothing, and the source is a checkpoint of ours.
    """
    name = os.path.basename(os.fspath(destination).rstrip('/'))
    if name.endswith('.safetensors'):
        return 'safetensors'
    if re.fullmatch(r'step_\d+', name) or name.endswith(_TORCH_SUFFIXES):
        return 'torch'
    if source_format == 'orbax':
        raise CheckpointError(
            f'{destination}: say --format torch, huggingface or safetensors; the name of a folder '
            f'does not show it.'
        )
    return 'orbax'


def save(
    saved: SavedModel,
    destination: str | os.PathLike,
    format: str,
    *,
    prefix: str | None = None,
    use_ema: bool = True,
    overwrite: bool = False,
) -> str:
    """Saves weights; returns the path of the checkpoint written.

    Args:
      saved: what to save.
      destination: a folder; for torch and safetensors also a file.
      format: one of ``FORMATS``.
      prefix: put before the names of the tensors; None: as they came, or the usual one.
      use_ema: saves the moving average of the parameters where there is one (orbax keeps both).
      overwrite: replaces files that exist.

    Raises:
      CheckpointError: the file exists, or the format can not hold the model. Nothing is
        written then.
    """
    destination = os.fspath(destination)
    if format == 'orbax':
        return os.fspath(orbax_io.write_model(destination, saved))
    if format == 'huggingface':
        state = state_dict.to_state(saved, 'transformers', prefix, use_ema)
        config = HrmConfig.from_experiment(saved.config)
        config.extra['architectures'] = ['HrmForCausalLM']
        _refuse_existing(os.path.join(destination, WEIGHTS_NAME), overwrite)
        with files.new_folder(destination, existing='add') as folder:
            metadata = {'format': 'pt', 'step': str(saved.step)}
            safetensors_io.write_safetensors(os.path.join(folder, WEIGHTS_NAME), state, metadata)
            config.save_pretrained(folder)
            with open(os.path.join(folder, 'README.md'), 'w', encoding='utf-8') as file:
                file.write(hub.model_card(saved))
        return destination
    state = state_dict.to_state(saved, 'original', prefix, use_ema)
    if format == 'safetensors':
        if not destination.endswith('.safetensors'):
            destination = os.path.join(destination, WEIGHTS_NAME)
        _refuse_existing(destination, overwrite)
        metadata = {'hrm_jax': saved.config.to_json(), 'step': str(saved.step)}
        safetensors_io.write_safetensors(destination, state, {'format': 'pt'} | metadata)
        return destination
    if format != 'torch':
        raise CheckpointError(f'format must be one of {", ".join(FORMATS)}; got {format!r}.')
    settings = _original_settings(saved, state)
    name = os.path.basename(destination.rstrip('/'))
    if step_of(name) is None and not name.endswith(_TORCH_SUFFIXES):
        destination = os.path.join(destination, f'step_{saved.step}')
    _refuse_existing(destination, overwrite)
    beside = os.path.join(os.path.dirname(os.path.abspath(destination)), original_config.FILE_NAME)
    with files.replacing(beside) as path:
        original_config.write_yaml(path, settings)
    torch_writer.write_torch(destination, state)
    return destination


def _original_settings(saved: SavedModel, state: Mapping[str, Any]) -> dict[str, Any]:
    """The all_config.yaml of weights, from which the very same model is read again."""
    model = saved.config.model
    values = original_config.to_original(saved.config)
    tensors, _ = state_dict.unify_names(state)
    findings = architecture.infer_model(tensors)
    stated = original_config.from_original(values, original_config.FILE_NAME, findings).model
    again = architecture.complete_model(stated, findings, original_config.FILE_NAME)
    if lost := architecture.differences(model, again):
        raise CheckpointError(
            f'no original has this model (here, and what it would be there: {"; ".join(lost)}). '
            f'Save as huggingface or safetensors, which keep our configuration.'
        )
    return values


def _refuse_existing(path: str, overwrite: bool) -> None:
    if os.path.exists(path) and not overwrite:
        raise CheckpointError(
            f'{path} exists already; choose another destination, or give --overwrite.'
        )
