"""FLOPs of the matrix products of a step, counted by hand: the arithmetic it cannot avoid.

Left out is what is small beside it: the Q head, the scores of running means, comparison and
alignment of chains; and the optimizers, whose work (Muon's is matrix products too) does not grow
with the rows.
"""

from hrm_jax import act
from hrm_jax.config import ActConfig, LossConfig, ModelConfig
from hrm_jax.config.model import SRUPP_SHRINK


def block_forward(config: ModelConfig) -> int:
    """FLOPs (multiplications and additions) of the matrix products of one block on one row."""
    if config.has_symbols:
        return config.num_symbols * (_one_symbol(config) + _exchange(config))
    return _one_symbol(config)


def _one_symbol(config: ModelConfig) -> int:
    # All of a block, or what it does for one symbol: the exchange is counted apart.
    length, dim, inner = config.total_len, config.hidden_size, config.mlp_dim
    match config.block:
        case 'sru':
            return 2 * length * 3 * dim * dim
        case 'srupp':
            width = dim // SRUPP_SHRINK
            maps = dim * width + 2 * width * width + 3 * width * dim
            return 2 * length * (maps + 2 * length * width)
        case 'token_mixing':
            return 2 * 3 * length * dim * (config.inner_size(length) + inner)
        case 'group_mixing':
            return 2 * (_groups(config) * dim * dim + 3 * length * dim * inner)
        case 'transformer':
            width = config.attention_width
            projections = 4 * dim * width + 2 * dim * inner
            return 2 * length * (projections + 2 * length * width)
        case 'attention':
            width = config.attention_width
            projections = 4 * dim * width + 3 * dim * inner + _convolution(config)
            scores_and_mixing = 2 * length * width
            return 2 * length * (projections + scores_and_mixing)
    raise _unknown(config)


def _exchange(config: ModelConfig) -> int:
    # What one symbol takes from the others, at all positions.
    dim, width = config.hidden_size, config.symbol_heads * config.symbol_head_size
    match config.symbol_exchange:
        case 'mean':
            return 2 * config.total_len * dim * dim
        case 'attention':
            return 2 * config.total_len * (4 * dim * width + 2 * config.num_symbols * width)
        case 'attention_to_others':
            maps, scores_and_mixing = 2 * dim * width + dim * dim, width + dim
            return 2 * config.total_len * (maps + config.num_symbols * scores_and_mixing)
    raise NotImplementedError(
        f'the FLOPs of model.symbol_exchange={config.symbol_exchange} are not counted; add a case '
        f'to model/flops.py.'
    )


def _groups(config: ModelConfig) -> int:
    # Rows, columns and boxes of the board.
    height, width = config.board_shape
    box = config.box_height * config.box_width
    return height + width + (height * width // box if box else 0)


def _convolution(config: ModelConfig) -> int:
    # Multiplications for each position of the depthwise convolution of two taps.
    return 2 * config.mlp_dim if config.gated_unit == 'conv_swiglu' else 0


def _first_position(config: ModelConfig) -> int:
    # A block of which position 0 alone is wanted (``first_only`` in blocks.py).
    length, dim = config.total_len, config.hidden_size
    gated_unit = 3 * dim * config.mlp_dim + _convolution(config)
    match config.block:
        case 'token_mixing':
            return 2 * (3 * length * dim * config.inner_size(length) + gated_unit)
        case 'group_mixing':
            return 2 * (_groups(config) * dim * dim + gated_unit)
        case 'attention':
            width = config.attention_width
            keys_and_values, query_and_output = 2 * length * dim * width, 2 * dim * width
            scores_and_mixing = 2 * length * width
            return 2 * (keys_and_values + query_and_output + scores_and_mixing + gated_unit)
        case 'transformer':
            width = config.attention_width
            keys_and_values, query_and_output = 2 * length * dim * width, 2 * dim * width
            feed_forward = 2 * dim * config.mlp_dim
            return 2 * (keys_and_values + query_and_output + 2 * length * width + feed_forward)
    raise _unknown(config)


def _unknown(config: ModelConfig) -> NotImplementedError:
    return NotImplementedError(
        f'the FLOPs of model.block={config.block} are not counted; add a case to model/flops.py.'
    )


def _updates(config: ModelConfig) -> tuple[int, int]:
    # Block applications of one pass, and how many of them carry gradient.
    low, high = config.L_layers, config.H_layers
    if config.levels != 'separate':
        high = low if config.levels == 'shared' or config.closing_update else 0
    cycle = config.L_cycles * low + high
    graded = {'one_step': low + high, 'last_cycle': cycle, 'full': config.H_cycles * cycle}
    return config.H_cycles * cycle, graded[config.gradient_window]


def _head(config: ModelConfig) -> int:
    if config.has_symbols and config.shared_symbols:
        return 2 * config.seq_len * config.hidden_size * config.num_symbols
    width = config.num_symbols * config.hidden_size if config.has_symbols else config.hidden_size
    return 2 * config.seq_len * width * config.vocab_size


def _noisy_answer(config: ModelConfig) -> tuple[int, int]:
    # Looped flows: the projection of the noisy answer and the two maps of the time, forward and
    # backward. What goes into the first map of each has no gradient.
    if not config.flow:
        return 0, 0
    dim = config.hidden_size
    first, second = 2 * config.seq_len * config.vocab_size * dim + 2 * dim, 2 * dim * dim
    return first + second, first + 2 * second


def _candidates(config: ModelConfig) -> tuple[int, int, int]:
    # Candidate sets: the first map, all loops, and the heads at one loop.
    pairs = config.seq_len * config.num_symbols * config.hidden_size
    loops = config.L_cycles * config.L_layers * block_forward(config)
    return 2 * pairs, loops, 2 * (2 * pairs + config.hidden_size)


def act_step(config: ModelConfig) -> int:
    """FLOPs of one ACT step at inference on one row, all of its chains together."""
    if config.lattice.on:
        return sum(_candidates(config))
    step = _updates(config)[0] * block_forward(config) + _head(config) + _noisy_answer(config)[0]
    return config.chains * step


def q_values(config: ModelConfig) -> int:
    """FLOPs of the pass that gives the next step's Q values on one row (``HRM.q_values``)."""
    total, block = _updates(config)[0], block_forward(config)
    if config.block == 'sru':
        # The first layer's input map sees the puzzle only: the compiler takes the other pass's.
        return (total - 1) * block // (1 if config.sru_bidirectional else config.total_len)
    ends_high = config.levels != 'single' or config.closing_update
    if config.is_recurrent or config.has_symbols or not ends_high:
        return total * block
    return (total - 1) * block + _first_position(config)


def train_step(
    config: ModelConfig, act_config: ActConfig, loss_config: LossConfig = LossConfig()
) -> int:
    """FLOPs of one train step on one row.

    Forward, the second forward for the Q target where the halting rule has one, and twice the
    forward of what carries gradient. Answer anchors add their share of the rows. Candidate sets:
    heads at every loop, and the step that moves the row after the update.
    """
    if config.lattice.on:
        first, loops, heads = _candidates(config)
        learned = 2 * first + 3 * (loops + config.L_cycles * heads)  # candidates have no gradient
        return learned + act_step(config)
    _, graded = _updates(config)
    target = q_values(config) if act.has_continue_target(act_config) else 0
    backward = 2 * (graded * block_forward(config) + _head(config)) + _noisy_answer(config)[1]
    step = act_step(config) + config.chains * backward
    if loss_config.anchor_weight == 0:
        return step + target
    return step + target + round(loss_config.anchor_share * loss_config.anchor_steps * step)
