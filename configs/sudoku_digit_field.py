r"""Sudoku-Extreme from 1,000 puzzles, digit fields of width 192: 1.06 million parameters.

    python -m data_builders sudoku --output-dir data/sudoku-extreme-1k-aug-1000 \
        --subsample-size 1000 --num-aug 1000
    python -m hrm_jax.main --config=configs/sudoku_digit_field.py --workdir=runs/sudoku_digit_field

A state for every digit and cell; all weights are shared by the digits, so that renaming the digits
changes nothing (the builder's permutations of the digits are without effect). Attention over the
cells and over the other digits of a cell, random starts and noise while training, answer anchors.
The values are those of Aakash-Marthandan/Fixed-Point-Reasoner-Structures (SA192): 50,000 steps of
768 puzzles, evaluated from a fixed start without noise. Their result: 97.31 % of the test puzzles
exactly right at 16 steps, 99.62 % at 64 (--config.eval.halt_max_steps=64); 128 random starts reach
99.98 % of 5,000. Their hardware: a TPU v6e-8. Not retrained here. Two values differ: their first
update has a learning rate of 0, and their arithmetic is float32 with the TPU's default products.
Compiled ahead for one H100 the train step needs 43 GB with --config.train.micro_batches=4, for
eight v6e chips 31 GB each.
"""

from hrm_jax.config import default_config_dict


def get_config():
    config = default_config_dict()
    config.name = 'sudoku_digit_field'
    config.data.path = 'data/sudoku-extreme-1k-aug-1000'
    config.model.levels = 'shared'
    config.model.gradient_window = 'last_cycle'
    config.model.H_cycles = 3
    config.model.L_cycles = 6
    config.model.L_layers = 2
    config.model.hidden_size = 192
    config.model.num_heads = 6
    config.model.pos_encodings = 'rope2d'
    config.model.puzzle_emb_ndim = 0
    config.model.symbol_exchange = 'attention_to_others'
    config.model.symbol_input = 'roles'
    config.model.symbol_heads = 4
    config.model.symbol_head_size = 32
    config.model.initializer = 'truncated_normal_plain'
    config.model.initial_state = 'random_in_training'
    config.model.start_distribution = 'normal'
    config.model.update_rate = 0.95
    config.model.update_noise = 0.01
    config.act.halting = 'halt_only'
    config.loss.anchor_weight = 1.0
    config.optimizer.name = 'adamw'
    config.optimizer.lr = 0.0001
    config.optimizer.weight_decay = 1.0
    config.optimizer.grad_clip_norm = 1.0
    config.optimizer.ema_decay = 0.999
    config.train.global_batch_size = 768
    config.train.epochs = 38400
    config.train.eval_interval = 1536
    config.eval.update_noise = 0.0
    return config
