r"""Sudoku-Extreme from 1,000 puzzles, HRM with 27 million parameters.

    python -m data_builders sudoku --output-dir data/sudoku-extreme-1k-aug-1000 \
        --subsample-size 1000 --num-aug 1000
    python -m hrm_jax.main --config=configs/sudoku_extreme_1k.py --workdir=runs/sudoku_extreme_1k

The values are those of the original's eight-GPU command (sapientinc/HRM, README): 26,041 steps
of 768 puzzles. Their hardware: 8 GPUs, about 10 minutes. Their result: 55.0 % of the test
puzzles exactly right (arXiv 2506.21734), which varies by about 2 points from run to run. They
advise stopping early when the training accuracy comes close to 100 %, for example with
``--config.train.early_stopping.metric=eval/all/exact_accuracy``.
"""

from hrm_jax.config import default_config_dict


def get_config():
    config = default_config_dict()
    config.name = 'sudoku_extreme_1k'
    config.data.path = 'data/sudoku-extreme-1k-aug-1000'
    config.train.global_batch_size = 768
    config.train.epochs = 20000
    config.train.eval_interval = 2000
    config.optimizer.lr = 0.0001
    config.optimizer.puzzle_emb_lr = 0.0001
    config.optimizer.weight_decay = 1.0
    config.optimizer.puzzle_emb_weight_decay = 1.0
    return config
