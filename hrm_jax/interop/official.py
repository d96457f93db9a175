"""The original's parameter names and layouts against ours, both ways, in numpy.

The original (sapientinc/HRM) stores linear weights as (out, in) under names such as
``H_level.layers.0.self_attn.qkv_proj.weight``; ours are (in, out) with the axes kept apart.
Prefixes that wrap the model (``_orig_mod.`` of torch.compile, ``model.inner.``) carry no
information and are cut off on reading.
"""

from collections.abc import Callable, Mapping
import dataclasses
import re
from typing import Any

import numpy as np

from hrm_jax.config import ModelConfig

_PREFIX = re.compile(r'^(_orig_mod\.)?(model\.)?inner\.')


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor: its name there, its place here, and the two maps between the layouts.

    Attributes:
      name: the original's name without wrapping prefix.
      collection: ``params``, ``constants`` or ``puzzle_table``.
      path: keys inside the collection.
      shape: the original's shape.
      to_ours, to_official: numpy maps between the layouts.
    """

    name: str
    collection: str
    path: tuple[str, ...]
    shape: tuple[int, ...]
    to_ours: Callable[[np.ndarray], np.ndarray]
    to_official: Callable[[np.ndarray], np.ndarray]


def _same(name, collection, path, shape) -> Entry:
    return Entry(name, collection, path, shape, lambda x: x, lambda x: x)


def _linear(name, path, outputs: tuple[int, ...], inputs: tuple[int, ...]) -> Entry:
    out_size, in_size = int(np.prod(outputs)), int(np.prod(inputs))
    return Entry(
        name,
        'params',
        (*path, 'kernel'),
        (out_size, in_size),
        lambda x: x.T.reshape(*inputs, *outputs),
        lambda x: x.reshape(in_size, out_size).T,
    )


def _block_entries(config: ModelConfig, level: str, layer: int) -> list[Entry]:
    dim, heads, head_dim, inner = (
        config.hidden_size, config.num_heads, config.head_dim, config.mlp_dim
    )  # fmt: skip
    there, here = f'{level}.layers.{layer}.', (level, f'layers_{layer}')

    def linear(module, part, outputs, inputs):
        return _linear(f'{there}{module}.{part}.weight', (*here, module, part), outputs, inputs)

    return [
        linear('self_attn', 'qkv_proj', (3, heads, head_dim), (dim,)),
        linear('self_attn', 'o_proj', (dim,), (heads, head_dim)),
        linear('mlp', 'gate_up_proj', (2, inner), (dim,)),
        linear('mlp', 'down_proj', (dim,), (inner,)),
    ]


def entries(config: ModelConfig) -> list[Entry]:
    """Every tensor of a checkpoint of this architecture, in the original's order.

    Args:
      config: architecture with the sizes of the data set filled in.
    """
    dim = config.hidden_size
    found = [
        _same('H_init', 'constants', ('H_init',), (dim,)),
        _same('L_init', 'constants', ('L_init',), (dim,)),
        _same(
            'embed_tokens.embedding_weight',
            'params',
            ('embed_tokens', 'embedding'),
            (config.vocab_size, dim),
        ),
        _linear('lm_head.weight', ('lm_head',), (config.vocab_size,), (dim,)),
        _linear('q_head.weight', ('q_head',), (2,), (dim,)),
        _same('q_head.bias', 'params', ('q_head', 'bias'), (2,)),
    ]
    if config.prefix_len:
        shape = (config.num_puzzle_identifiers, config.puzzle_emb_ndim)
        found.append(_same('puzzle_emb.weights', 'puzzle_table', (), shape))
    if config.pos_encodings == 'learned':
        path = ('embed_pos', 'embedding')
        found.append(_same('embed_pos.embedding_weight', 'params', path, (config.total_len, dim)))
    levels = {'H_level': config.H_layers, 'L_level': config.L_layers}
    if config.levels == 'shared':
        del levels['H_level']
    for level, layers in levels.items():
        for layer in range(layers):
            found += _block_entries(config, level, layer)
    return found


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
    for entry in expected:
        value = tensors[entry.name]
        if value.shape != entry.shape:
            raise ValueError(
                f'{entry.name} must have the shape {entry.shape} by the configuration; got '
                f'{value.shape}. Check hidden_size, expansion, vocabulary and data set.'
            )
        value = np.ascontiguousarray(entry.to_ours(value))
        if entry.collection == 'puzzle_table':
            collections['puzzle_table'] = value
            continue
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
        value = roots[entry.collection]
        for key in entry.path:
            value = value[key]
        tensors[prefix + entry.name] = np.ascontiguousarray(entry.to_official(np.asarray(value)))
    return tensors
