"""Loads and saves models in every format, whatever the format is.

=========== =============================================================================
torch       ``step_N`` of the originals, beside its ``all_config.yaml``
huggingface a folder with ``config.json`` and ``model.safetensors``, transformers' names
safetensors one file, the original's names where there are any, otherwise ours; our
            configuration in its header
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
from hrm_jax.checkpoint import compatible, layout, weights_only
from hrm_jax.checkpoint.store import SavedModel
from hrm_jax.config import ExperimentConfig
from hrm_jax.errors import CheckpointError, ConfigError
from hrm_jax.interop import (
    architecture,
    hub,
    original_config,
    own_names,
    presets,
    pretrained,
    safetensors_io,
    state_dict,
    torch_writer,
    transformers_config,
)
from hrm_jax.interop.architecture import Finding
from hrm_jax.interop.original_config import Settings
from hrm_jax.interop.sources import (
    TORCH_SUFFIXES,
    WEIGHTS_NAME,
    Source,
    find,
    read_state,
    step_of,
)
from hrm_jax.interop.transformers_config import HrmConfig

FORMATS = ('torch', 'huggingface', 'safetensors', 'orbax')


def settings_of(
    values: Mapping[str, Any], source: str, findings: Mapping[str, Finding]
) -> Settings:
    """Translates a parsed configuration of any of the three kinds, distinguished by its keys."""
    if isinstance(values.get('model'), Mapping):
        rest = ExperimentConfig.from_dict(values).to_dict()
        return Settings(rest.pop('model'), rest, source)
    if values.get('model_type') == 'hrm' or 'num_attention_heads' in values:
        return transformers_config.settings(values, source)
    return original_config.from_original(values, source, findings)


def load(
    path_or_hub_id: str | os.PathLike | Source,
    *,
    config: str = '',
    seq_len: int = 0,
    forward_dtype: str = '',
    revision: str | None = None,
    member: str = '',
    preset: str = '',
) -> SavedModel:
    """Loads weights from any format.

    Args:
      path_or_hub_id: a file, a folder, or ``owner/name`` on the hub; or what ``find`` returned.
      config: configuration file in place of the one beside the weights: the originals'
        all_config.yaml, transformers' config.json, or ours.
      seq_len: cells of a puzzle, where nothing else states it.
      forward_dtype: type to compute in, in place of the checkpoint's.
      revision: branch, tag or commit on the hub.
      member: keys that lead to the state dict in a torch file that has several, e.g. ``ema``.
      preset: published recipe (``presets.PRESETS``) that gives what the tensors do not show, where
        no configuration is beside the weights.

    Returns:
      The model in numpy; arrays may be read-only views of the file.

    Raises:
      CheckpointError, ConfigError: anything is not as it must be.
      OSError: a file cannot be read.
    """
    source = path_or_hub_id
    if not isinstance(source, Source):
        source = find(source, config, revision)
    if source.format == 'orbax':
        presets.refuse(preset, source.path)
        saved = weights_only.read_model(source.path)
        return with_forward_dtype(saved, forward_dtype) if forward_dtype else saved
    state, metadata, step = read_state(source.path, member)
    if own_names.MARK in metadata:
        presets.refuse(preset, source.path)
        saved = own_names.to_model(state, metadata, source.path)
        return with_forward_dtype(saved, forward_dtype) if forward_dtype else saved
    tensors, prefix = state_dict.unify_names(state)
    findings = architecture.infer_model(tensors)
    try:
        if preset:
            presets.refuse(preset, source.config or ('hrm_jax' in metadata and source.path) or '')
            settings = presets.settings(preset, findings)
        else:
            settings = _settings_of(source, metadata, findings)
        stated = str(metadata.get('step', ''))
        steps = (int(stated) if stated.isdecimal() else None, step_of(source.path), step, 0)
        saved = state_dict.to_model(
            tensors,
            findings,
            settings,
            step=next(one for one in steps if one is not None),
            seq_len=seq_len,
            forward_dtype=forward_dtype,
        )
    except ConfigError as error:
        raise CheckpointError(f'{source.config or source.path}: {error}') from error
    naming = 'transformers' if state_dict.has_transformers_names(state) else 'original'
    saved.meta['source'] |= {'prefix': prefix, 'naming': naming}
    return saved


def _settings_of(
    source: Source, metadata: Mapping[str, str], findings: Mapping[str, Finding]
) -> Settings:
    """What the configuration beside the weights, or within their file, states."""
    if source.config:
        name = os.path.basename(source.config)
        return settings_of(original_config.read_mapping(source.config), name, findings)
    if 'hrm_jax' not in metadata:
        return Settings({}, {}, architecture.NO_CONFIGURATION)
    name = os.path.basename(source.path)
    try:
        values = json.loads(metadata['hrm_jax'])
    except (ValueError, RecursionError, TypeError) as error:
        raise CheckpointError(f'{name}: its configuration is not JSON ({error}).') from error
    if not isinstance(values, Mapping):
        raise CheckpointError(f'{name}: its configuration must be an object; it is {values!r:.60}.')
    return settings_of(values, name, findings)


def open_model(
    selector: str | os.PathLike, workdir: str | os.PathLike = '', **options: Any
) -> tuple[SavedModel, Any]:
    """Finds and loads a checkpoint as the commands name it, of any format.

    Args:
      selector: a step, ``latest`` or ``best`` of the workdir; or what ``load`` takes.
      workdir: folder of a run, or of a checkpoint of another format.
      **options: of ``load``.

    Returns:
      The model, and the path of its checkpoint.

    Raises:
      CheckpointError, OSError: see ``load``.
    """
    selector = pretrained.resolved(os.fspath(selector))
    named = selector in ('latest', 'best') or re.fullmatch(r'[0-9]{1,15}', selector)
    place = os.fspath(workdir) if named else selector
    try:
        path = layout.resolve(selector, layout.as_path(workdir or '.'))
    except CheckpointError:
        # None of ours: a checkpoint of another format has no steps to choose from.
        if selector == 'best' or (named and selector != 'latest') or not _is_foreign(place):
            raise
    else:
        ignored = [name for name, value in options.items() if value and name != 'forward_dtype']
        if ignored:
            raise CheckpointError(
                f'{path} is a checkpoint of ours and carries its configuration; leave out '
                f'{", ".join(ignored)}.'
            )
        saved = weights_only.read_model(path)
        dtype = options.get('forward_dtype')
        return (with_forward_dtype(saved, dtype) if dtype else saved), path
    source = find(place, options.pop('config', ''), options.pop('revision', None))
    return load(source, **options), layout.as_path(source.path)


def _is_foreign(place: str) -> bool:
    """Whether a path, or an id of the hub, may be a checkpoint of another format."""
    if not os.path.exists(files.expanded(place)):
        return hub.is_hub_id(place)
    try:
        return find(place).format != 'orbax'
    except (CheckpointError, OSError):
        return False


def with_forward_dtype(saved: SavedModel, dtype: str) -> SavedModel:
    """Returns the model computing in another type; parameters stay float32."""
    import jax
    import numpy as np

    model = dataclasses.replace(saved.config.model, forward_dtype=dtype)
    weights = saved.weights

    def cast(x):
        x = np.asarray(x)
        return x if np.issubdtype(x.dtype, np.integer) else x.astype(np.dtype(dtype))

    constants = jax.tree.map(cast, weights.constants)
    config = dataclasses.replace(saved.config, model=model)
    weights = weights.replace(constants=constants)
    return dataclasses.replace(saved, weights=weights, config=config)


def with_puzzle_rows(saved: SavedModel, rows: int, choice: str) -> SavedModel:
    """Returns the model with ``rows`` rows of the puzzle table (see ``compatible.resize_table``).

    Raises:
      CheckpointError: the size differs and the choice is ``error``.
      CheckpointError: the model has no puzzle table, or composes embeddings.
    """
    if saved.weights.puzzle_table is None:
        raise CheckpointError('this model has no puzzle table (puzzle_emb_ndim=0).')
    if saved.config.model.composes_embeddings:
        raise CheckpointError(
            'this model composes embeddings (model.puzzle_embedding=composed): their rows follow '
            'from a data set. Begin a run on it with these weights.'
        )
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
      CheckpointError: the name shows no format, and the source is a checkpoint of ours.
    """
    name = os.path.basename(os.fspath(destination).rstrip('/'))
    if name.endswith('.safetensors'):
        return 'safetensors'
    if re.fullmatch(r'step_\d+', name) or name.endswith(TORCH_SUFFIXES):
        return 'torch'
    if source_format == 'orbax':
        raise CheckpointError(
            f'{destination}: give --format torch, huggingface or safetensors; the name of a folder '
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
      CheckpointError: the file exists, or the format cannot hold the model. Nothing is
        written then.
    """
    destination = os.fspath(files.local_path(destination, 'the destination', CheckpointError))
    if format == 'orbax':
        return os.fspath(weights_only.write_model(destination, saved))
    if saved.config.model.composes_embeddings:
        raise CheckpointError(
            f'{format} has a row for every puzzle identifier, and this model composes embeddings '
            f'(model.puzzle_embedding=composed). Save it as orbax.'
        )
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
    if format == 'safetensors':
        if not destination.endswith('.safetensors'):
            destination = os.path.join(destination, WEIGHTS_NAME)
        _refuse_existing(destination, overwrite)
        if state_dict.has_names(saved.config.model):
            state = state_dict.to_state(saved, 'original', prefix, use_ema)
            metadata = {'hrm_jax': saved.config.to_json(), 'step': str(saved.step)}
        else:
            state, metadata = own_names.to_tensors(saved, use_ema)
        safetensors_io.write_safetensors(destination, state, {'format': 'pt'} | metadata)
        return destination
    state = state_dict.to_state(saved, 'original', prefix, use_ema)
    if format != 'torch':
        raise CheckpointError(f'format must be one of {", ".join(FORMATS)}; got {format!r}.')
    settings = _original_settings(saved, state)
    name = os.path.basename(destination.rstrip('/'))
    if step_of(name) is None and not name.endswith(TORCH_SUFFIXES):
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
