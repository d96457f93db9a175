"""The tensors of the originals' state dicts: their names there, their places here.

sapientinc/HRM stores linear weights as (out, in) under names such as
``H_level.layers.0.self_attn.qkv_proj.weight``; ours are (in, out) with the axes kept apart. TRM
and the SRU fork keep its names where they keep its parts; krychu/hrm has names of its own.
Wrappers (``_orig_mod.`` of torch.compile, ``module.`` of data parallelism, ``model.inner.`` ...)
carry no information and are removed on reading, in any order and depth.
"""

import numpy as np

from hrm_jax.config.model import SRUPP_SHRINK, ModelConfig
from hrm_jax.errors import CheckpointError
from hrm_jax.interop import se_rrm
from hrm_jax.interop.tensors import Entry, bias, linear, reshaped, same

# Parts of a name that a wrapper adds where it wraps, which may be inside of the model.
_WRAPPERS = {
    '_orig_mod', 'module', '_fsdp_wrapped_module', '_checkpoint_wrapped_module', '_forward_module',
}  # fmt: skip
# Attributes under which programs hold the model: the loss head, the core, a trainer's module.
_HOLDERS = {'model', 'inner', 'net', 'network', '_model', 'ema_model'}


def unwrapped(name: str) -> str:
    """Removes what wrappers put into a name, wherever they wrap."""
    return '.'.join(part for part in name.split('.') if part not in _WRAPPERS)


def strip_prefix(name: str) -> str:
    """Returns a name of the original's state dict without wrappers and holders."""
    parts = unwrapped(name).split('.')
    while len(parts) > 1 and parts[0] in _HOLDERS:
        del parts[0]
    return '.'.join(parts)


def _block_entries(config: ModelConfig, there: str, here: tuple[str, ...]) -> list[Entry]:
    dim, heads = config.hidden_size, (config.num_heads, config.head_dim)

    def part(module, name, outputs, inputs):
        return linear(f'{there}{module}.{name}.weight', (*here, module, name), outputs, inputs)

    def gated(module, width, inner):
        found = [
            part(module, 'gate_up_proj', (2, inner), (width,)),
            part(module, 'down_proj', (width,), (inner,)),
        ]
        if _is_urm(config):
            name, path = f'{there}{module}.dwconv', (*here, module, 'conv')
            found[1:1] = [
                Entry(
                    f'{name}.weight', 'params', (*path, 'kernel'), (inner, 1, 2),
                    lambda x: x[:, 0].T, lambda x: x.T[:, None],
                ),
                same(f'{name}.bias', 'params', (*path, 'bias'), (inner,)),
            ]  # fmt: skip
        return found

    match config.block:
        case 'token_mixing':
            length = config.total_len
            mixer = gated('mlp_t', length, config.inner_size(length))
        case 'attention':
            mixer = [
                part('self_attn', 'qkv_proj', (3, *heads), (dim,)),
                part('self_attn', 'o_proj', (dim,), heads),
            ]
        case _:
            raise _unknown(config)
    return [*mixer, *gated('mlp', dim, config.mlp_dim)]


def _is_urm(config: ModelConfig) -> bool:
    """Whether UbiquantAI/URM has this architecture (models/urm/urm.py), with names of its own."""
    single = config.levels == 'single' and not config.closing_update
    return single and config.gated_unit == 'conv_swiglu'


def _unknown(config: ModelConfig) -> CheckpointError:
    return CheckpointError(
        f'no original has the block {config.block!r}, so its tensors have no names in other '
        f'formats. Keep the model as a checkpoint of ours.'
    )


def _state_entries(config: ModelConfig) -> list[Entry]:
    dim = config.hidden_size
    collection = 'params' if config.initial_state == 'learned' else 'constants'
    if config.initial_state == 'random':
        return []  # drawn anew for every puzzle (EqR)

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
        name = 'init_hidden' if _is_urm(config) else name
        return [state(name, 'H_init', (dim,), (dim,))]
    if config.chains > 1:
        return [high, state('L_init', 'L_init', (config.chains, dim), (config.chains, 1, dim))]
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
                found += _recurrent_entries(config, ours, i)
            else:
                there = f'layers.{i}.' if _is_urm(config) else f'{theirs}.layers.{i}.'
                found += _block_entries(config, there, (ours, f'layers_{i}'))
    return found


def entries(config: ModelConfig) -> list[Entry]:
    """Every tensor of a checkpoint of this architecture, in the original's order.

    Args:
      config: architecture with the sizes of the data set filled in.
    """
    if config.running_mean:
        raise CheckpointError(
            'no original of running means as states is public, so their tensors have no names in '
            'other formats. Keep the model as a checkpoint of ours.'
        )
    if config.flow:
        raise CheckpointError(
            'no original of looped flows is public, so their tensors have no names in other '
            'formats. Keep the model as a checkpoint of ours.'
        )
    if config.has_symbols:
        return se_rrm.entries(config)
    if not config.q_head:
        return _path_finder_entries(config)
    if config.register_tokens:
        return _sic_entries(config)
    dim = config.hidden_size
    table = ('embed_tokens', 'embedding')
    found = [
        *_state_entries(config),
        same('embed_tokens.embedding_weight', 'params', table, (config.vocab_size, dim)),
        linear('lm_head.weight', ('lm_head',), (config.vocab_size,), (dim,)),
        linear('q_head.weight', ('q_head',), (2,), (dim,)),
        same('q_head.bias', 'params', ('q_head', 'bias'), (2,)),
    ]
    if config.has_puzzle_table:
        shape = (config.num_puzzle_identifiers, config.puzzle_emb_ndim)
        found.append(same('puzzle_emb.weights', 'puzzle_table', (), shape))
    if config.uses_learned_positions:
        path = ('embed_pos', 'embedding')
        found.append(same('embed_pos.embedding_weight', 'params', path, (config.total_len, dim)))
    return found + _level_entries(config)


def _sic_entries(config: ModelConfig) -> list[Entry]:
    """Every tensor of a model of jvdillon/sic (code/model.py, TRM3) with mixers."""
    if config.block != 'token_mixing' or not config.head_bias or config.levels != 'shared':
        raise _unknown(config)
    dim, vocab = config.hidden_size, config.vocab_size
    registers = (config.register_tokens, dim)
    low_shape = (dim,) if config.chains == 1 else (config.chains, 1, dim)
    q = ('q_head',)
    found = [
        same('register_tokens', 'params', ('register_tokens',), registers),
        reshaped('H_init', 'constants', ('H_init',), (1, dim), (dim,)),
        reshaped('L_init', 'constants', ('L_init',), (config.chains, dim), low_shape),
        same('embed_tokens.weight', 'params', ('embed_tokens', 'embedding'), (vocab, dim)),
        linear('head.weight', ('lm_head',), (vocab,), (dim,)),
        bias('head.bias', ('lm_head',), (vocab,)),
        # One output there. Our second one, q_continue, is neither read nor trained by halt_only.
        Entry(
            'q_head.weight', 'params', (*q, 'kernel'), (1, dim),
            lambda x: np.stack([x[0], np.zeros_like(x[0])], 1), lambda x: x[:, :1].T,
        ),
        Entry(
            'q_head.bias', 'params', (*q, 'bias'), (1,),
            lambda x: np.append(x, np.asarray(-5, x.dtype)), lambda x: x[:1],
        ),
    ]  # fmt: skip
    sizes = {'attn': (config.total_len, 'mlp_t'), 'mlp': (dim, 'mlp')}
    for i in range(config.L_layers):
        for theirs, (width, ours) in sizes.items():
            inner = config.inner_size(width) if ours == 'mlp_t' else config.mlp_dim
            there, here = f'reasoning.{i}.{theirs}.', ('L_level', f'layers_{i}', ours)
            found += [
                linear(f'{there}up_proj.weight', (*here, 'gate_up_proj'), (2, inner), (width,)),
                linear(f'{there}down_proj.weight', (*here, 'down_proj'), (width,), (inner,)),
            ]
    return found


def _gates(name: str, path: tuple[str, ...], dim: int, inputs: int) -> Entry:
    # Channel d, gate k stands at row 3 d + k there; here the gates are an axis before the channels.
    return Entry(
        name,
        'params',
        (*path, 'kernel'),
        (3 * dim, inputs),
        lambda x: np.transpose(x.reshape(dim, 3, inputs), (2, 1, 0)),
        lambda x: np.transpose(x, (2, 1, 0)).reshape(3 * dim, inputs),
    )


def _norm(name: str, path: tuple[str, ...], width: int) -> list[Entry]:
    return [
        same(f'{name}.weight', 'params', (*path, 'scale'), (width,)),
        same(f'{name}.bias', 'params', (*path, 'bias'), (width,)),
    ]


def _recurrent_entries(config: ModelConfig, level: str, layer: int) -> list[Entry]:
    """Tensors of one SRU or SRU++ layer (NewJerseyStyle/HRM-rnn-base, hrm_act_v2.py and _v3)."""
    if config.block not in ('sru', 'srupp'):
        raise _unknown(config)
    dim, plus = config.hidden_size, config.block == 'srupp'
    there = f'{level}.{"sru." if plus else ""}rnn_lst.{layer}.'
    here = (level, f'layers_{layer}')
    inner, transform = f'{there}transform_module.', (*here, 'transform')
    collection = 'constants' if config.sru_frozen_weight_c else 'params'
    found = [
        reshaped(f'{there}weight_c', collection, (*here, 'weight_c'), (2 * dim,), (2, dim)),
        reshaped(f'{there}bias', 'params', (*here, 'bias'), (2 * dim,), (2, dim)),
        same(f'{there}scale_x', 'unused', (), (1,)),
    ]
    if not plus:
        return [*found, _gates(f'{inner}weight', transform, dim, dim)]
    width = dim // SRUPP_SHRINK
    return [
        *found,
        same(f'{inner}alpha', 'params', (*transform, 'alpha'), (1,)),
        linear(f'{inner}linear1.weight', (*transform, 'linear1'), (width,), (dim,)),
        linear(f'{inner}linear2.weight', (*transform, 'linear2'), (2 * width,), (width,)),
        _gates(f'{inner}linear3.weight', (*transform, 'linear3'), dim, width),
        *_norm(f'{inner}layer_norm', (*transform, 'layer_norm'), width),
        *_norm(f'{there}layer_norm', (*here, 'layer_norm'), dim),
    ]


def _path_block(config: ModelConfig, there: str, here: tuple[str, ...]) -> list[Entry]:
    dim, inner = config.hidden_size, config.mlp_dim
    heads = (config.num_heads, config.head_dim)
    qkv, o = (*here, 'self_attn', 'qkv_proj'), (*here, 'self_attn', 'o_proj')
    found = [linear(f'{there}attn.w_qkv.weight', qkv, (3, *heads), (dim,))]
    if config.qkv_bias:
        found.append(bias(f'{there}attn.w_qkv.bias', qkv, (3, *heads)))
    found.append(linear(f'{there}attn.w_o.weight', o, (dim,), heads))
    if config.o_bias:
        found.append(bias(f'{there}attn.w_o.bias', o, (dim,)))
    found += [
        linear(f'{there}mlp.w0.weight', (*here, 'mlp', 'gate_up_proj'), (2, inner), (dim,)),
        linear(f'{there}mlp.w1.weight', (*here, 'mlp', 'down_proj'), (dim,), (inner,)),
    ]
    if config.norm_scale:
        for number, norm in enumerate(('attn_norm', 'mlp_norm')):
            path = (*here, norm, 'scale')
            found.append(same(f'{there}norm{number}.weight', 'params', path, (dim,)))
    return found


def _path_finder_entries(config: ModelConfig) -> list[Entry]:
    """Every tensor of a path finder (krychu/hrm, hrm/hrm.py), in the original's order.

    One-module models, which the original only describes, are named like its H module.
    """
    if config.block != 'attention':
        raise _unknown(config)
    dim = config.hidden_size
    states = {'zH_init': 'H_init', 'zL_init': 'L_init'}
    modules = {'H': ('H_level', config.H_layers), 'L': ('L_level', config.L_layers)}
    if config.levels == 'single':
        del states['zL_init']
        modules = {'H': ('L_level', config.L_layers)}
    collection = 'params' if config.initial_state == 'learned' else 'constants'
    found = [
        reshaped(there, collection, (here,), (1, 1, dim), (dim,)) for there, here in states.items()
    ]
    table = ('embed_tokens', 'embedding')
    found.append(same('embed.tok.weight', 'params', table, (config.vocab_size, dim)))
    if config.uses_learned_positions:
        table = ('embed_pos', 'embedding')
        found.append(same('embed.pos.weight', 'params', table, (config.total_len, dim)))
    for there, (here, layers) in modules.items():
        for i in range(layers):
            found += _path_block(config, f'{there}.hrm_blocks.{i}.', (here, f'layers_{i}'))
    found.append(linear('head.weight', ('lm_head',), (config.vocab_size,), (dim,)))
    if config.head_bias:
        found.append(bias('head.bias', ('lm_head',), (config.vocab_size,)))
    return found
