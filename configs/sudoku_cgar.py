r"""Sudoku-Extreme from 1,000 puzzles, CGAR: TRM with a curriculum over cycles.

    python -m data_builders sudoku --output-dir data/sudoku-extreme-1k-aug-1000 \
        --subsample-size 1000 --num-aug 1000
    python -m hrm_jax.main --config=configs/sudoku_cgar.py --workdir=runs/sudoku_cgar

The values are those of the paper and model file (arXiv 2511.08653) on TRM's recipe: cycles 1 x 2
until 30 % of the steps, 2 x 4 until 60 %, then 3 x 6; the token loss of ACT step n weighs
0.7^(n - 1). Evaluation always runs 3 x 6. Their file of losses could not be read: that the halting
loss keeps its weight is our reading.

Their results on 423,168 test puzzles: 86.02 % (their TRM 86.65 %) in 6.38 hours on one A100 (TRM
10.93 hours); the seeds are not stated. Of the curriculum alone abstract and README give different
numbers (85.47 % and 85.30 %).
"""

from configs import sudoku_trm_mlp


def get_config():
    config = sudoku_trm_mlp.get_config()
    config.name = 'sudoku_cgar'
    config.train.curriculum = 'cgar'
    config.loss.step_decay = 0.7
    return config
