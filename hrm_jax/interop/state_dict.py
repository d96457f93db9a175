"""State dicts (names and arrays, from any file) to and from ``SavedModel``, both ways.

Two ways to name the same tensors exist: the original's and that of transformers. Both store
linear weights as (out, in). Names and types that a source has and ours does not need are kept
in ``meta['source']``, so that the way back gives the same names, order, types and bytes.
"""

from collections.abc import Iterable, Mapping
import dataclasses
import os
import re
from typing import Any

from flax import traverse_util
import ml_dtypes
import numpy as np

from hrm_jax import files
from hrm_jax.checkpoint.store import SavedModel
from hrm_jax.config import ExperimentConfig, ModelConfig
from hrm_jax.errors import CheckpointError
from hrm_jax.interop import architecture, se_rrm, tensor_names
from hrm_jax.interop.architecture import Finding
from hrm_jax.interop.original_config import Settings
from hrm_jax.types import Weights

# transformers' name -> the original's, for the tensors whose names differ.
_TRANSFORMERS_NAMES = {
    'embed_tokens.weight': 'embed_tokens.embedding_weight',
    'embed_pos.weight': 'embed_pos.embedding_weight',
    'puzzle_emb.weight': 'puzzle_emb.weights',
}
_ORIGINAL_NAMES = {there: name for name, there in _TRANSFORMERS_NAMES.items()}
ORIGINAL_PREFIX = '_orig_mod.model.inner.'  # torch.compile around the loss head around the model
TRANSFORMERS_PREFIX = 'model.inner.'  # HrmForCausalLM; HrmModel alone has 'inner.'
_FLOATS = tuple(map(np.dtype, (np.float64, np.float32, np.float16, ml_dtypes.bfloat16)))
# Tensors that every model of the family has, under one of these names.
_ANCHORS = {
    'embed_tokens.embedding_weight', 'embed_tokens.weight', 'embed.tok.weight', se_rrm.SHARED,
    se_rrm.OWN,
}  # fmt: skip


class UnknownLength(CheckpointError):
    """Nothing states the number of cells of a puzzle."""


def to_model(
    tensors: Mapping[str, np.ndarray],
    findings: Mapping[str, Finding],
    settings: Settings,
    *,
    step: int = 0,
    seq_len: int = 0,
    forward_dtype: str = '',
) -> SavedModel:
    """Makes weights of ours from a state dict and what a configuration states about it.

    Args:
      tensors: result of ``unify_names``; may be memory mapped. A large puzzle table is not
        copied.
      findings: what the tensors show (``architecture.infer_model``).
      settings: what the configuration states.
      step: train steps done.
      seq_len: cells of a puzzle, where neither tensors nor configuration show it.
      forward_dtype: type to compute in, in place of the checkpoint's.

    Raises:
      CheckpointError: names the tensor or setting that is missing, not known, of another
        shape, or that contradicts the configuration.
      ConfigError: the settings contradict each other.
    """
    dtypes = {name: str(array.dtype) for name, array in tensors.items()}
    stated = dict(settings.model)
    if seq_len and stated.get('seq_len') not in (None, 0, seq_len):
        raise CheckpointError(
            f'{settings.source} states that a puzzle has {stated["seq_len"]} cells; got --seq-len '
            f'{seq_len}. Leave the flag out.'
        )
    if seq_len:
        stated['seq_len'] = seq_len
    if forward_dtype:
        stated['forward_dtype'] = forward_dtype
    model = architecture.complete_model(stated, findings, settings.source)
    model = _sized(model, settings)
    weights = from_official(_cast(tensors, model), model)
    config = ExperimentConfig.from_dict(settings.rest | {'model': dataclasses.asdict(model)})
    usual = _usual_dtypes(model, tensors)
    source = {
        'dtypes': {name: dtype for name, dtype in dtypes.items() if dtype != usual[name]},
    }
    sizes = {
        name: getattr(model, name) for name in ('vocab_size', 'seq_len', 'num_puzzle_identifiers')
    }
    meta = {'dataset': sizes, 'metrics': {}, 'source': source}
    return SavedModel(step, weights, None, config, meta)


def from_official(tensors: Mapping[str, np.ndarray], config: ModelConfig) -> Weights:
    """Turns a state dict of the original into weights of ours.

    Raises:
      CheckpointError: a tensor is missing, unknown, or of another shape than the configuration's;
        the message names it.
    """
    tensors = {tensor_names.strip_prefix(name): np.asarray(x) for name, x in tensors.items()}
    expected = tensor_names.entries(config)
    known = {entry.name for entry in expected}
    missing, extra = sorted(known - set(tensors)), sorted(set(tensors) - known)
    if missing or extra:
        raise CheckpointError(
            'the tensors must be exactly those of the configuration; missing: '
            f'{", ".join(missing) or "none"}; not known: {", ".join(extra) or "none"}. '
            'Check the configuration (levels, layers, positions, puzzle embedding).'
        )
    collections: dict[str, Any] = {'params': {}, 'constants': {}, 'puzzle_table': None}
    stacks: dict[tuple[str, ...], list[np.ndarray]] = {}
    for entry in expected:
        value = tensors[entry.name]
        if value.shape != entry.shape:
            raise CheckpointError(
                f'{entry.name} must have the shape {entry.shape} by the configuration; got '
                f'{value.shape}. Check hidden_size, expansion, vocabulary and data set.'
            )
        if entry.collection == 'unused':
            continue
        value = np.ascontiguousarray(entry.to_ours(value))
        if entry.collection == 'puzzle_table':
            collections['puzzle_table'] = value
            continue
        if entry.index is not None:
            stack = stacks.setdefault((entry.collection, *entry.path), [])
            stack.append(value)
            value = np.stack(stack)
        node = collections[entry.collection]
        for key in entry.path[:-1]:
            node = node.setdefault(key, {})
        node[entry.path[-1]] = value
    return Weights(**collections)


def to_official(
    weights: Weights, config: ModelConfig, prefix: str = ORIGINAL_PREFIX
) -> dict[str, np.ndarray]:
    """Turns weights of ours into a state dict in the original's names, order and layout."""
    tensors = {}
    for entry in tensor_names.entries(config):
        if entry.collection == 'unused':
            tensors[prefix + entry.name] = np.ones(entry.shape, np.float32)
            continue
        value = getattr(weights, entry.collection)
        for key in entry.path:
            value = value[key]
        value = np.asarray(value if entry.index is None else value[entry.index])
        tensors[prefix + entry.name] = np.ascontiguousarray(entry.to_official(value))
    return tensors


def is_of_this_family(names: Iterable[str]) -> bool:
    """Whether a state dict with these names may be a model of this family."""
    return any(tensor_names.strip_prefix(name) in _ANCHORS for name in names)


def unify_names(state: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], str]:
    """Returns the tensors under the original's names, and the prefix removed from them.

    Raises:
      CheckpointError: the prefixes differ, or two names mean the same tensor.
    """
    renamed = _TRANSFORMERS_NAMES if has_transformers_names(state) else {}
    tensors: dict[str, np.ndarray] = {}
    whole: dict[str, str] = {}  # prefix, wrappers included -> a name with it
    inside: dict[str, str] = {}  # the same without wrappers
    for name, array in state.items():
        short = tensor_names.strip_prefix(name)
        ours = renamed.get(short, short)
        if ours in tensors:
            raise CheckpointError(f'two tensors are called {ours}, one of them {name}.')
        tensors[ours] = array
        whole.setdefault(name.removesuffix(short) if name.endswith(short) else '?', name)
        plain = tensor_names.unwrapped(name)
        inside.setdefault(plain.removesuffix(short), name)
    if len(inside) != 1:
        raise CheckpointError(
            f'all tensors must have the same prefix; got {", ".join(inside.values())}.'
        )
    # Wrappers around parts of the model are not put back.
    again = whole if len(whole) == 1 and '?' not in whole else inside
    return tensors, next(iter(again))


def has_transformers_names(names: Iterable[str]) -> bool:
    """Whether tensors are named as in transformers rather than as in the original."""
    found = {tensor_names.strip_prefix(name) for name in names}
    # jvdillon/sic has one of these names too.
    return bool(found & set(_TRANSFORMERS_NAMES)) and 'register_tokens' not in found


def _sized(model: ModelConfig, settings: Settings) -> ModelConfig:
    if not model.has_puzzle_table and not model.num_puzzle_identifiers:
        model = dataclasses.replace(model, num_puzzle_identifiers=1)
    if model.seq_len:
        return model
    path = settings.rest.get('data', {}).get('path', '')
    metadata = os.path.join(path, 'train', 'dataset.json')
    if path and os.path.isfile(metadata):
        stated = files.read_json(metadata, CheckpointError, dict)
        cells = stated.get('seq_len')
        # The data set itself, not another one of its name: the alphabet must be the model's.
        if type(cells) is int and cells > 0 and stated.get('vocab_size') == model.vocab_size:
            return dataclasses.replace(model, seq_len=cells)
    raise UnknownLength(
        f'neither the tensors nor {settings.source} state the number of cells of a puzzle. Give it '
        f'with --seq-len: 81 for 9x9 Sudokus, 900 for 30x30 mazes and ARC.'
    )


def _usual_dtypes(model: ModelConfig, names: Any) -> dict[str, str]:
    """The type each tensor has in a checkpoint that the original writes."""
    return {name: model.forward_dtype if _is_constant(name) else 'float32' for name in names}


def _is_constant(name: str) -> bool:
    return re.fullmatch(r'[HL]\d*_init|Z_init|init_hidden', name) is not None


def _cast(tensors: Mapping[str, np.ndarray], model: ModelConfig) -> dict[str, np.ndarray]:
    for name, array in tensors.items():
        if array.dtype not in _FLOATS:
            raise CheckpointError(
                f'{name} must be float32, float64, bfloat16 or float16; it is {array.dtype}.'
            )
    usual = _usual_dtypes(model, tensors)
    cast = {}
    for name, array in tensors.items():
        with np.errstate(over='ignore'):
            cast[name] = array.astype(np.dtype(usual[name]), copy=False)
        if array.dtype == np.float64 and not np.isfinite(cast[name]).all():
            raise CheckpointError(f'{name} has values that float32 does not hold.')
    return cast


def has_names(model: ModelConfig) -> bool:
    """Whether an original has models of this kind, and so names for their tensors."""
    try:
        tensor_names.entries(model)
    except CheckpointError:
        return False
    return model.q_head or model.has_symbols


def to_state(
    saved: SavedModel, naming: str = 'original', prefix: str | None = None, use_ema: bool = True
) -> dict[str, np.ndarray]:
    """Returns the state dict of a model, in the original's order.

    Args:
      saved: the model.
      naming: ``original`` or ``transformers``.
      prefix: put before every name; None: what the weights came with, or else the usual one.
      use_ema: takes the moving average of the parameters where there is one, as the TRM
        repository does when it saves.

    Raises:
      CheckpointError: the model has a parameter that no original has.
    """
    source = saved.meta.get('source', {})
    same_naming = source.get('naming', 'original') == naming
    if prefix is None:
        usual = ORIGINAL_PREFIX if naming == 'original' else TRANSFORMERS_PREFIX
        prefix = source['prefix'] if source and same_naming else usual
    weights = saved.inference_weights(use_ema)
    _check_has_names(weights.params, saved.config.model)
    state = to_official(weights, saved.config.model, prefix='')
    for name, dtype in source.get('dtypes', {}).items():
        state[name] = state[name].astype(np.dtype(dtype))
    if naming == 'transformers':
        state = {_ORIGINAL_NAMES.get(name, name): array for name, array in state.items()}
    return {(prefix or '') + name: array for name, array in state.items()}


def _check_has_names(params: Any, model: ModelConfig) -> None:
    """Options that no original has (biases, learned states ...) must not get lost silently."""
    if not model.q_head and not model.has_symbols:
        raise CheckpointError(
            'models without a Q head (path finders) are not converted; their original has names '
            'of its own. Keep the model as a checkpoint of ours.'
        )
    named = {e.path for e in tensor_names.entries(model) if e.collection == 'params'}
    nameless = set(traverse_util.flatten_dict(params)) - named
    if nameless:
        raise CheckpointError(
            f'{", ".join(sorted("/".join(path) for path in nameless))}: no original has such a '
            f'parameter, so this format has no name for it. Keep the model as a checkpoint of ours.'
        )
