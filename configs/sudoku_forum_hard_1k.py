r"""1,000 puzzles of a CSV of one's own, for example from the forum's list of hardest Sudokus.

    python -m data_builders sudoku --source PATH/TO/FOLDER --subsample-size 1000 \
        --num-aug 1000 --output-dir data/sudoku-forum-hard-1k-aug-1000
    python -m hrm_jax.main --config=configs/sudoku_forum_hard_1k.py \
        --workdir=runs/sudoku_forum_hard_1k

The folder holds train.csv and test.csv (or .csv.gz) with the columns source, question, answer,
rating. The training settings are those of ``sudoku_extreme_1k.py``. The puzzles of the forum's
list are harder than Sudoku-Extreme's, so accuracies must not be compared with published ones.
Hardware: one GPU. No published result.
"""

from hrm_jax.config import default_config_dict


def get_config():
    config = default_config_dict()
    config.name = 'sudoku_forum_hard_1k'
    config.data.path = 'data/sudoku-forum-hard-1k-aug-1000'
    config.train.global_batch_size = 768
    config.train.epochs = 20000
    config.train.eval_interval = 2000
    config.optimizer.lr = 0.0001
    config.optimizer.puzzle_emb_lr = 0.0001
    config.optimizer.weight_decay = 1.0
    config.optimizer.puzzle_emb_weight_decay = 1.0
    return config
