r"""Sudoku-Extreme from 1,000 puzzles, digit fields of width 256: 1.97 million parameters.

    python -m data_builders sudoku --output-dir data/sudoku-extreme-1k-aug-1000 \
        --subsample-size 1000 --num-aug 1000
    python -m hrm_jax.main --config=configs/sudoku_digit_field_256.py \
        --workdir=runs/sudoku_digit_field_256

The model of configs/sudoku_digit_field.py in another size (SA256). Their result: 97.93 %
of the test puzzles exactly right at 16 steps, 99.62 % at 64 steps. Not retrained here. Compiled
ahead for one H100 the train step needs 30 GB with --config.train.micro_batches=8, for eight v6e
chips 20 GB each with --config.train.micro_batches=2.
"""

from configs import sudoku_digit_field


def get_config():
    config = sudoku_digit_field.get_config()
    config.name = 'sudoku_digit_field_256'
    config.model.hidden_size = 256
    config.model.num_heads = 8
    return config
