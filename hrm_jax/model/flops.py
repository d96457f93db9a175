"""The arithmetic that a step can not avoid: FLOPs of its matrix products, counted by hand."""

from hrm_jax import act
from hrm_jax.config import ActConfig, ModelConfig


def block_forward(config: ModelConfig) -> int:
    """FLOPs (multiplications and additions) of one attention block on one row."""
    length, dim, inner = config.total_len, config.hidden_size, config.mlp_dim
    projections = 4 * dim * dim + 3 * dim * inner
    scores_and_mixing = 2 * length * dim
    return 2 * length * (projections + scores_and_mixing)


def _updates(config: ModelConfig) -> tuple[int, int]:
    # Block applications of one pass, and how many of them carry gradient.
    high_layers = config.L_layers if config.levels == 'shared' else config.H_layers
    cycle = config.L_cycles * config.L_layers + high_layers
    graded = {
        'one_step': config.L_layers + high_layers,
        'last_cycle': cycle,
        'full': config.H_cycles * cycle,
    }
    return config.H_cycles * cycle, graded[config.gradient_window]


def act_step(config: ModelConfig) -> int:
    """FLOPs of one ACT step at inference on one row."""
    head = 2 * config.seq_len * config.hidden_size * config.vocab_size
    return _updates(config)[0] * block_forward(config) + head


def train_step(config: ModelConfig, act_config: ActConfig) -> int:
    """FLOPs of one train step on one row.

    Forward, the second forward for the Q target where the halting rule has one (it needs no
    logits), and twice the forward of what carries gradient.
    """
    passes = 2 if act.has_continue_target(act_config) else 1
    total, graded = _updates(config)
    head = 2 * config.seq_len * config.hidden_size * config.vocab_size
    return (passes * total + 2 * graded) * block_forward(config) + 3 * head
