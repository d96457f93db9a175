r"""All training puzzles of Sudoku-Extreme, with the model of the 1,000-puzzle recipe.

    python -m data_builders sudoku --output-dir data/sudoku-extreme-full
    python -m hrm_jax.main --config=configs/sudoku_extreme_full.py \
        --workdir=runs/sudoku_extreme_full

The original builds this data set but gives no command that trains on it. Here are its default
model (rotary positions, 2 x 2 cycles, 16 ACT steps, stablemax) and the optimizer settings of its
full-size recipe (``sudoku_hard_full.py``). Hardware: made for 8 GPUs. No published result.
"""

from hrm_jax.config import default_config_dict


def get_config():
    config = default_config_dict()
    config.name = 'sudoku_extreme_full'
    config.data.path = 'data/sudoku-extreme-full'
    config.train.global_batch_size = 2304
    config.train.epochs = 100
    config.train.eval_interval = 10
    config.optimizer.lr = 0.0003
    config.optimizer.lr_min_ratio = 0.1
    config.optimizer.puzzle_emb_lr = 0.0003
    config.optimizer.weight_decay = 0.1
    config.optimizer.puzzle_emb_weight_decay = 0.1
    return config
