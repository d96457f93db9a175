"""The originals' parameter names and layouts against ours, both ways, in numpy.

sapientinc/HRM stores linear weights as (out, in) under names such as
``H_level.layers.0.self_attn.qkv_proj.weight``; ours are (in, out) with the axes kept apart. TRM
and the SRU fork keep its names where they keep its parts; krychu/hrm has names of its own.
Prefixes that wrap the model (``_orig_mod.`` of torch.compile, ``model.inner.``) carry no
information and are cut off on reading.
"""

from collections.abc import Mapping
import re
from typing import Any

import numpy as np

from hrm_jax.config import ModelConfig
from hrm_jax.interop import entries_path, entries_sru
from hrm_jax.interop.entry import Entry, linear, reshaped, same

_PREFIX = re.compile(r'^(_orig_mod\.)?(model\.)?inner\.')


def _block_entries(config: ModelConfig, there: str, here: tuple[str, ...]) -> list[Entry]:
    dim, heads = config.hidden_size, (config.num_heads, config.head_dim)

    def part(module, name, outputs, inputs):
        return linear(f'{there}{module}.{name}.weight', (*here, module, name), outputs, inputs)

    def gated(module, width, inner):
        return [
            part(module, 'gate_up_proj', (2, inner), (width,)),
            part(module, 'down_proj', (width,), (inner,)),
        ]

    if config.block == 'token_mixing':
        length = config.total_len
        mixer = gated('mlp_t', length, config.inner_size(length))
    else:
        mixer = [
            part('self_attn', 'qkv_proj', (3, *heads), (dim,)),
            part('self_attn', 'o_proj', (dim,), heads),
        ]
    return [*mixer, *gated('mlp', dim, config.mlp_dim)]


def _state_entries(config: ModelConfig) -> list[Entry]:
    dim = config.hidden_size
    collection = 'params' if config.initial_state == 'learned' else 'constants'

    def state(name, ours, shape, own_shape, index=None):
        return reshaped(name, collection, (ours,), shape, own_shape, index)

    if config.is_recurrent:
        return [
            state(name, name, (layers, 1, dim), (layers, dim))
            for name, layers in (('H_init', config.H_layers), ('L_init', config.L_layers))
        ]
    high = state('H_init', 'H_init', (dim,), (dim,))
    if config.levels == 'single':
        name = 'L_init' if config.closing_update else 'H_init'
        return [state(name, 'H_init', (dim,), (dim,))]
    if config.low_states > 1:
        several = range(config.low_states)
        return [high, *(state(f'L{i + 1}_init', 'L_init', (dim,), (1, dim), i) for i in several)]
    return [high, state('L_init', 'L_init', (dim,), (dim,))]


def _level_entries(config: ModelConfig) -> list[Entry]:
    # (their name, our name, layers); one-module models have our L_level only.
    match config.levels:
        case 'separate':
            levels = [
                ('H_level', 'H_level', config.H_layers),
                ('L_level', 'L_level', config.L_layers),
            ]
        case 'shared':
            levels = [('L_level', 'L_level', config.L_layers)]
        case _:  # TRM's single-z ablation, or its plain baseline
            theirs = 'L_level' if config.closing_update else 'H_level'
            levels = [(theirs, 'L_level', config.L_layers)]
    found = []
    for theirs, ours, layers in levels:
        for i in range(layers):
            if config.is_recurrent:
                found += entries_sru.layer_entries(config, ours, i)
            else:
                found += _block_entries(config, f'{theirs}.layers.{i}.', (ours, f'layers_{i}'))
    return found


def entries(config: ModelConfig) -> list[Entry]:
    """Every tensor of a checkpoint of this architecture, in the original's order.

    Args:
      config: architecture with the sizes of the data set filled in.
    """
    if not config.q_head:
        return entries_path.entries(config)
    dim = config.hidden_size
    table = ('embed_tokens', 'embedding')
    found = [
        *_state_entries(config),
        same('embed_tokens.embedding_weight', 'params', table, (config.vocab_size, dim)),
        linear('lm_head.weight', ('lm_head',), (config.vocab_size,), (dim,)),
        linear('q_head.weight', ('q_head',), (2,), (dim,)),
        same('q_head.bias', 'params', ('q_head', 'bias'), (2,)),
    ]
    if config.prefix_len:
        shape = (config.num_puzzle_identifiers, config.puzzle_emb_ndim)
        found.append(same('puzzle_emb.weights', 'puzzle_table', (), shape))
    if config.uses_learned_positions:
        path = ('embed_pos', 'embedding')
        found.append(same('embed_pos.embedding_weight', 'params', path, (config.total_len, dim)))
    return found + _level_entries(config)


def strip_prefix(name: str) -> str:
    """Cuts the wrappers off a name of the original's state dict."""
    return _PREFIX.sub('', name)


def from_official(
    tensors: Mapping[str, np.ndarray], config: ModelConfig
) -> tuple[dict[str, Any], dict[str, Any], np.ndarray | None]:
    """Turns a state dict of the original into (params, constants, puzzle_table).

    Raises:
      ValueError: a tensor is missing, unknown, or of another shape than the configuration's;
        the message names it.
    """
    tensors = {strip_prefix(name): np.asarray(value) for name, value in tensors.items()}
    expected = entries(config)
    names = {entry.name for entry in expected}
    missing, extra = sorted(names - set(tensors)), sorted(set(tensors) - names)
    if missing or extra:
        raise ValueError(
            'the tensors must be exactly those of the configuration; missing: '
            f'{", ".join(missing) or "none"}; not known: {", ".join(extra) or "none"}. '
            'Check the configuration (levels, layers, positions, puzzle embedding).'
        )
    collections: dict[str, Any] = {'params': {}, 'constants': {}, 'puzzle_table': None}
    stacks: dict[tuple[str, ...], list[np.ndarray]] = {}
    for entry in expected:
        value = tensors[entry.name]
        if value.shape != entry.shape:
            raise ValueError(
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
    return collections['params'], collections['constants'], collections['puzzle_table']


def to_official(
    params: Mapping[str, Any],
    constants: Mapping[str, Any],
    puzzle_table: np.ndarray | None,
    config: ModelConfig,
    prefix: str = '_orig_mod.model.inner.',
) -> dict[str, np.ndarray]:
    """Turns our arrays into a state dict in the original's names, order and layout."""
    roots = {'params': params, 'constants': constants, 'puzzle_table': puzzle_table}
    tensors = {}
    for entry in entries(config):
        if entry.collection == 'unused':
            tensors[prefix + entry.name] = np.ones(entry.shape, np.float32)
            continue
        value = roots[entry.collection]
        for key in entry.path:
            value = value[key]
        value = np.asarray(value if entry.index is None else value[entry.index])
        tensors[prefix + entry.name] = np.ascontiguousarray(entry.to_official(value))
    return tensors
