"""Checks of the parts that not every model has: symbols, chains, means, flows, an attention.

Each takes a ``ModelConfig`` and raises a ConfigError where its settings contradict each other. What
every model has is checked in model.py, from where these are called.
"""

from typing import Any

from hrm_jax.config.checks import require_not_negative, require_positive
from hrm_jax.errors import ConfigError


def check_symbols(model: Any) -> None:
    """Checks the symbol axis (model/symbols.py), and what it leaves out."""
    name = f'model.symbol_exchange={model.symbol_exchange}'
    ConfigError.require(
        not (model.q_head and model.q_confidence),
        'model.q_confidence takes the place of the Q head: set model.q_head=False.',
    )
    if not model.has_symbols:
        ConfigError.require(
            (model.added_tokens == 0 or model.lattice.on) and model.shared_symbols,
            'model.added_tokens and model.shared_symbols are for models with a symbol axis: '
            'set model.symbol_exchange, or leave them out.',
        )
        return
    ConfigError.require(
        not model.is_recurrent,
        f'{name} needs a block with a state per position; got {model.block}.',
    )
    ConfigError.require(
        model.block != 'transformer',
        f'{name} stands between the two halves of a block, and model.block=transformer has no '
        f'place for it: use attention or token_mixing.',
    )
    ConfigError.require(
        model.shared_symbols or model.symbol_input == 'presence',
        f'model.symbol_input={model.symbol_input} has one set of vectors for all symbols: leave '
        f'model.shared_symbols=True, or use symbol_input=presence.',
    )
    ConfigError.require(
        model.vocab_size == 0 or model.num_symbols > 1,
        f'{name} needs two symbols or more; of {model.vocab_size} tokens, those from '
        f'{model.first_symbol} on are symbols (model.first_symbol).',
    )
    ConfigError.require(
        model.puzzle_emb_len == 0 and model.register_tokens == 0 and not model.head_bias,
        f'{name} adds the puzzle vector to every cell and reads all symbols with one vector: '
        f'model.puzzle_emb_len, model.register_tokens and model.head_bias must be left out '
        f'(model.added_tokens are its registers).',
    )
    ConfigError.require(
        model.chains == 1 and not model.flow and not model.running_mean,
        f'{name} has a state for every symbol and position, and model.chains compares, '
        f'model.running_mean weighs and model.flow feeds states of positions alone; got chains='
        f'{model.chains}, running_mean={model.running_mean} and flow={model.flow}. Leave them out.',
    )
    if model.symbol_exchange == 'mean':
        return
    require_positive(**{
        'model.symbol_heads': model.symbol_heads,
        'model.symbol_head_size': model.symbol_head_size,
    })  # fmt: skip
    ConfigError.require(
        model.symbol_exchange == 'attention' or model.hidden_size % model.symbol_heads == 0,
        f'{name} divides hidden_size over model.symbol_heads; got {model.hidden_size} and '
        f'{model.symbol_heads}.',
    )


def check_groups(model: Any) -> None:
    """Checks the rows, columns and boxes of ``group_mixing``."""
    if model.block != 'group_mixing':
        ConfigError.require(
            model.box_height == model.box_width == 0,
            'model.box_height and model.box_width are for model.block=group_mixing.',
        )
        return
    height, width = model.board_shape
    ConfigError.require(
        height * width == model.seq_len,
        f'model.block=group_mixing needs whole rows of cells; got {model.seq_len} cells, {width} '
        f'in a row. Set model.board_width for boards that are not square.',
    )
    ConfigError.require(
        model.prefix_len == 0 and model.added_tokens == 0,
        'model.block=group_mixing has cells only: leave out model.puzzle_emb_ndim (0), '
        'model.register_tokens and model.added_tokens, or give it a symbol axis.',
    )
    sizes = (model.box_height, model.box_width)
    ConfigError.require(
        sizes == (0, 0) or model.seq_len == 0
        or (min(sizes) > 0 and height % sizes[0] == 0 and width % sizes[1] == 0),
        f'model.box_height and model.box_width must divide the board into whole boxes; got '
        f'{sizes[0]} x {sizes[1]} for {height} x {width} cells.',
    )  # fmt: skip


def check_chains(model: Any) -> None:
    """Checks several chains of a puzzle (model/chains.py)."""
    require_positive(**{'model.chains': model.chains})
    ConfigError.require(
        -1 <= model.chain_similarity <= 1,
        f'model.chain_similarity is a cosine, in [-1, 1]; got {model.chain_similarity}.',
    )
    ConfigError.require(
        model.initial_state != 'random_low' or model.levels != 'single',
        'model.initial_state=random_low needs a low state; levels=single has one state. Use '
        'model.initial_state=random.',
    )
    if model.chains == 1:
        ConfigError.require(
            not model.align_chains and model.chain_similarity == 1,
            'model.align_chains and model.chain_similarity are of several chains; model.chains '
            'is 1. Set it, or leave them out.',
        )
        return
    ConfigError.require(
        model.levels != 'single' and model.low_states == 1 and not model.is_recurrent,
        f'model.chains={model.chains} needs one low state per chain beside a shared high one: '
        f'levels=separate or shared, low_states=1 and a block with a state per position; got '
        f'levels={model.levels}, low_states={model.low_states}, block={model.block}.',
    )
    ConfigError.require(
        not model.flow,
        'model.chains compare answers to one question, and the steps of model.flow denoise one '
        'answer whose noise and time the chains would share: use one of them.',
    )
    ConfigError.require(
        not model.q_confidence,
        'model.chains answers with the chain that halts, and model.q_confidence is a probability, '
        'not a decision: use a Q head.',
    )
    ConfigError.require(
        not model.align_chains or model.initial_state != 'learned',
        'model.align_chains sets starts that are drawn; initial_state=learned trains them.',
    )


def check_running_mean(model: Any) -> None:
    """Checks states that are running means (model/running_mean.py)."""
    ConfigError.require(
        0 <= model.mean_decay < 1,
        f'model.mean_decay must be in [0, 1); got {model.mean_decay}.',
    )
    ConfigError.require(
        not model.learned_mean_decay or model.mean_decay > 0,
        'model.learned_mean_decay begins at model.mean_decay, which must then be above 0.',
    )
    ConfigError.require(
        model.running_mean or (model.mean_decay == 0 and not model.learned_mean_decay),
        'model.mean_decay and model.learned_mean_decay are of model.running_mean. Set it, or '
        'leave them out.',
    )
    ConfigError.require(
        not model.running_mean or (model.low_states == 1 and not model.is_recurrent),
        f'model.running_mean needs states that are updated in place, one for each level; got '
        f'low_states={model.low_states} and block={model.block}.',
    )


def check_flow(model: Any) -> None:
    """Checks looped flows (model/flows.py)."""
    require_not_negative(**{
        f'model.{name}': getattr(model, name)
        for name in ('flow_pseudotarget_steps', 'flow_steps', 'flow_noise')
    })  # fmt: skip
    require_positive(**{'model.flow_draws': model.flow_draws})
    ConfigError.require(
        model.flow_open_token >= -1 and (model.flow_open_token < (model.vocab_size or 2**31)),
        f'model.flow_open_token must be a token, or -1 where no cell is given; got '
        f'{model.flow_open_token} with {model.vocab_size} tokens.',
    )


def check_attention(model: Any) -> None:
    """Checks that the chosen attention and gated unit can compute the model."""
    name = model.attention
    needs = {
        'cudnn': (
            model.forward_dtype != 'float32' and model.head_dim % 8 == 0,
            'bfloat16 or float16 and a head size that is a multiple of 8',
        ),
        'pallas': (model.head_dim <= 128, 'a head size of at most 128'),
        'tpu': (model.forward_dtype != 'float16', 'bfloat16 or float32'),
    }
    holds, what = needs.get(name, (True, ''))
    ConfigError.require(
        holds,
        f'model.attention={name} needs {what}; got {model.forward_dtype} and '
        f'{model.head_dim}. Use model.attention=auto.',
    )
    ConfigError.require(
        model.gated_unit_kernel == 'xla' or model.gated_unit == 'swiglu',
        f'model.gated_unit_kernel={model.gated_unit_kernel} has gated_unit=swiglu alone; got '
        f'{model.gated_unit}. Use model.gated_unit_kernel=xla.',
    )
