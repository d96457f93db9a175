"""FLOPs by hand are those of the traced program, loops and answer anchors included."""

import jax
import jax.numpy as jnp
import pytest

from experiments import flop_counts
from hrm_jax.config import ActConfig, ExperimentConfig, LossConfig, ModelConfig, TrainConfig

SIZES = {
    'vocab_size': 6, 'seq_len': 16, 'num_puzzle_identifiers': 1, 'hidden_size': 32, 'num_heads': 2,
    'H_cycles': 3, 'L_cycles': 2, 'H_layers': 0, 'L_layers': 1, 'puzzle_emb_ndim': 0,
    'gradient_window': 'last_cycle', 'forward_dtype': 'float32', 'attention': 'xla',
    'symbol_heads': 2, 'symbol_head_size': 8, 'round_mlp': False,
}  # fmt: skip
FIELDS = {'levels': 'shared', 'symbol_input': 'roles'}


def test_loops_count_as_often_as_they_turn():
    x = jnp.ones((2, 3))
    assert flop_counts.traced_flops(lambda a: a @ a.T, x) == 2 * 2 * 2 * 3

    def looped(square):
        return jax.lax.scan(lambda c, _: (c @ square, None), square, length=5)[0]

    assert flop_counts.traced_flops(jax.jit(looped), jnp.ones((4, 4))) == 5 * 2 * 4**3
    with pytest.raises(NotImplementedError, match='unknown length'):
        flop_counts.traced_flops(
            lambda s: jax.lax.while_loop(lambda c: c[0, 0] < 9, lambda c: c @ c, s),
            jnp.ones((2, 2)),
        )


@pytest.mark.parametrize(
    ('model', 'loss', 'halting'),
    [
        (FIELDS | {'symbol_exchange': 'attention_to_others', 'pos_encodings': 'rope2d'},
         {'anchor_weight': 1.0, 'anchor_share': 0.5, 'anchor_steps': 2}, 'halt_only'),
        (FIELDS | {'symbol_exchange': 'mean', 'block': 'token_mixing', 'pos_encodings': 'none'},
         {}, 'halt_only'),
        ({'levels': 'single', 'symbol_exchange': 'attention', 'pos_encodings': 'rope2d_whole',
          'added_tokens': 2, 'q_head': False, 'q_confidence': True}, {}, 'random'),
    ],
)  # fmt: skip
def test_both_counts_agree(model, loss, halting):
    config = ExperimentConfig(
        model=ModelConfig(**SIZES | model),
        act=ActConfig(halting=halting, halt_max_steps=3),
        loss=LossConfig(**loss),
        train=TrainConfig(global_batch_size=4),
    )
    for program in flop_counts.programs(config).values():
        assert program.traced() / program.by_hand == pytest.approx(1, abs=0.005)
