"""Names of the path finder (krychu/hrm, hrm/hrm.py): a family of its own, without ACT."""

from hrm_jax.config_model import ModelConfig
from hrm_jax.interop.entry import Entry, bias, linear, reshaped, same


def _block(config: ModelConfig, there: str, here: tuple[str, ...]) -> list[Entry]:
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


def entries(config: ModelConfig) -> list[Entry]:
    """Every tensor of a path finder, in the original's order.

    One-module models, which the original only describes, are named like its H module.
    """
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
            found += _block(config, f'{there}.hrm_blocks.{i}.', (here, f'layers_{i}'))
    found.append(linear('head.weight', ('lm_head',), (config.vocab_size,), (dim,)))
    if config.head_bias:
        found.append(bias('head.bias', ('lm_head',), (config.vocab_size,)))
    return found
