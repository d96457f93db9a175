r"""1,000 Sudokus of your own CSV file, for example from the forum's list of hardest Sudokus.

    python -m data_builders sudoku --source PATH/TO/puzzles.csv --subsample-size 1000 \
        --num-aug 1000 --output-dir data/sudoku-forum-hard-1k-aug-1000
    python -m hrm_jax.main --config=configs/sudoku_forum_hard_1k.py \
        --workdir=runs/sudoku_forum_hard_1k

The source is a CSV file, or a folder with train.csv and test.csv (or .csv.gz), with the columns
question and answer. The training settings are those of ``sudoku_extreme_1k.py``. The puzzles of
the forum's list are harder than Sudoku-Extreme's, so accuracies must not be compared with published
ones. Hardware: one GPU. No published result.
"""

from configs import sudoku_extreme_1k


def get_config():
    config = sudoku_extreme_1k.get_config()
    config.name = 'sudoku_forum_hard_1k'
    config.data.path = 'data/sudoku-forum-hard-1k-aug-1000'
    return config
