r"""Sudoku-Extreme from 1,000 puzzles, digit fields of width 128: 0.62 million parameters.

    python -m data_builders sudoku --output-dir data/sudoku-extreme-1k-aug-1000 \
        --subsample-size 1000 --num-aug 1000
    python -m hrm_jax.main --config=configs/sudoku_digit_field_128.py \
        --workdir=runs/sudoku_digit_field_128

The model of configs/sudoku_digit_field.py in another size (SA128). Their result: 95.45 %
of the test puzzles exactly right at 16 steps, 99.48 % at 64 steps. Not retrained here. Compiled
ahead for one H100 the train step needs 34 GB with --config.train.micro_batches=4, 136 GB without;
for eight v6e chips 26 GB each.
"""

from configs import sudoku_digit_field


def get_config():
    config = sudoku_digit_field.get_config()
    config.name = 'sudoku_digit_field_128'
    config.model.hidden_size = 128
    config.model.num_heads = 4
    return config
