r"""Sudoku-Extreme from 1,000 puzzles on one small GPU: batch 384 and a lower learning rate.

    python -m data_builders sudoku --output-dir data/sudoku-extreme-1k-aug-1000 \
        --subsample-size 1000 --num-aug 1000
    python -m hrm_jax.main --config=configs/sudoku_extreme_1k_laptop.py \
        --workdir=runs/sudoku_extreme_1k_laptop

The values are those of the original's quick demo (sapientinc/HRM, README): 52,083 steps. Their
hardware: one laptop GPU (RTX 4070), about 10 hours. They state no accuracy for this command
alone; the paper's figure for the data set is 55.0 %, with about 2 points of variance.
"""

from configs import sudoku_extreme_1k


def get_config():
    config = sudoku_extreme_1k.get_config()
    config.name = 'sudoku_extreme_1k_laptop'
    config.train.global_batch_size = 384
    config.optimizer.lr = 7e-05
    config.optimizer.puzzle_emb_lr = 7e-05
    return config
