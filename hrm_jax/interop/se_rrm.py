"""The tensors of SE-RRM (ml-jku/SE-RRM models/recursive_reasoning/trm_equi.py): names and places.

The original stores the vectors of symbols and slots as (1, symbols, cells or slots, D), and in the
compute type although they are trained.
"""

from hrm_jax.config import ModelConfig
from hrm_jax.errors import CheckpointError
from hrm_jax.interop.tensors import Entry, linear, reshaped, same

# Tensors of which every such model has one: it shows which kind it is.
SHARED, OWN = 'embed_symbol_tokens', 'embed_symbols'
_INPUT = ('embed_symbols',)


def check_named(config: ModelConfig) -> None:
    """Raises CheckpointError where a model with a symbol axis is not an SE-RRM."""
    found = {
        'block': config.block, 'levels': config.levels, 'closing_update': config.closing_update,
        'symbol_exchange': config.symbol_exchange, 'symbol_input': config.symbol_input,
        'q_confidence': config.q_confidence,
        'initial_state': config.initial_state.replace('random_in_training', 'fixed'),
        'qkv_bias': config.qkv_bias, 'o_bias': config.o_bias, 'norm_scale': config.norm_scale,
    }  # fmt: skip
    wanted = {
        'block': 'attention', 'levels': 'single', 'closing_update': False,
        'symbol_exchange': 'attention', 'symbol_input': 'presence', 'q_confidence': True,
        'initial_state': 'fixed', 'qkv_bias': False, 'o_bias': False, 'norm_scale': False,
    }  # fmt: skip
    wrong = [f'{name}={value!r}' for name, value in found.items() if value != wanted[name]]
    if config.shared_symbols and config.first_symbol != 2:
        wrong.append(f'first_symbol={config.first_symbol}')
    if config.pos_encodings not in ('rope', 'rope2d_whole', 'learned'):
        wrong.append(f'pos_encodings={config.pos_encodings!r}')
    if wrong:
        raise CheckpointError(
            f'of the models with a symbol axis only SE-RRM has tensors with names in other '
            f'formats; this one differs in {", ".join(wrong)}. Keep the model as a checkpoint of '
            f'ours.'
        )


def entries(config: ModelConfig) -> list[Entry]:
    """Every tensor, in the original's order."""
    check_named(config)
    dim, count, slots = config.hidden_size, config.num_symbols, config.added_tokens

    def vectors(name: str, here: str, symbols: int, length: int, ours: tuple[int, ...]) -> Entry:
        return reshaped(name, 'params', (*_INPUT, here), (1, symbols, length, dim), ours)

    found = []
    if slots and config.shared_symbols:
        special = (2, slots, dim)
        found += [
            vectors('add_tokens_special', 'special_slots', 2, slots, special),
            vectors('add_tokens', 'slots', 1, slots, (1, slots, dim)),
        ]
    elif slots:
        found.append(vectors('add_tokens', 'slots', count, slots, (count, slots, dim)))
    if config.uses_learned_positions:
        cells = config.seq_len
        found.append(vectors('pos_embedding', 'positions', 1, cells, (cells, dim)))
    if config.shared_symbols:
        found += [
            vectors('embed_special_tokens', 'special_tokens', 2, 1, (2, 1, dim)),
            vectors(SHARED, 'tokens', 1, 1, (1, 1, dim)),
        ]
    else:
        found.append(vectors(OWN, 'tokens', count, 1, (count, 1, dim)))
    found.append(reshaped('Z_init', 'constants', ('H_init',), (dim,), (dim,)))
    if config.has_puzzle_table:
        shape = (config.num_puzzle_identifiers, config.puzzle_row_size)
        found.append(same('puzzle_emb.weights', 'puzzle_table', (), shape))
    if config.shared_symbols:
        found.append(linear('lm_head.weight', ('lm_head', 'each'), (1,), (dim,)))
    else:
        path = ('lm_head', 'all')
        found.append(linear('lm_head.weight', path, (config.vocab_size,), (count, dim)))
    for i in range(config.L_layers):
        found += _block(config, f'L_level.layers.{i}.', ('L_level', f'layers_{i}'))
    return found


def _block(config: ModelConfig, there: str, here: tuple[str, ...]) -> list[Entry]:
    dim, inner = config.hidden_size, config.mlp_dim
    found = []
    for name, ours, heads in (
        ('attn', 'self_attn', (config.num_heads, config.head_dim)),
        ('attn_t', 'symbol_exchange', (config.symbol_heads, config.symbol_head_size)),
    ):
        qkv, o = (*here, ours, 'qkv_proj'), (*here, ours, 'o_proj')
        found.append(linear(f'{there}{name}.qkv_proj.weight', qkv, (3, *heads), (dim,)))
        found.append(linear(f'{there}{name}.o_proj.weight', o, (dim,), heads))
    gate_up, down = (*here, 'mlp', 'gate_up_proj'), (*here, 'mlp', 'down_proj')
    found.append(linear(f'{there}mlp.gate_up_proj.weight', gate_up, (2, inner), (dim,)))
    found.append(linear(f'{there}mlp.down_proj.weight', down, (dim,), (inner,)))
    return found
