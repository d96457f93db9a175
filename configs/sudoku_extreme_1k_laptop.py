r"""Sudoku-Extreme from 1,000 puzzles on one small GPU: batch 384 and a lower learning rate.

    python -m data_builders sudoku --output-dir data/sudoku-extreme-1k-aug-1000 \
        --subsample-size 1000 --num-aug 1000
    python -m hrm_jax.main --config=configs/sudoku_extreme_1k_laptop.py \
        --workdir=runs/sudoku_extreme_1k_laptop

The values are those of the original's quick demo (sapientinc/HRM, README): 52,083 steps. Their
hardware: one laptop GPU (RTX 4070), about 10 hours. They state no accuracy for this command
alone; the paper's figure for the data set is 55.0 %, with about 2 points of variance.
"""

from hrm_jax.config import default_config_dict


def get_config():
    config = default_config_dict()
    config.name = 'sudoku_extreme_1k_laptop'
    config.data.path = 'data/sudoku-extreme-1k-aug-1000'
    config.train.global_batch_size = 384
    config.train.epochs = 20000
    config.train.eval_interval = 2000
    config.optimizer.lr = 7e-05
    config.optimizer.puzzle_emb_lr = 7e-05
    config.optimizer.weight_decay = 1.0
    config.optimizer.puzzle_emb_weight_decay = 1.0
    return config
