r"""Augmented HRM: HRM with hint mixing, relabelled views and votes over checkpoints.

    python -m data_builders sudoku --output-dir data/sudoku-extreme-1k-aug-1000-hints \
        --subsample-size 1000 --num-aug 1000 --hints
    python -m hrm_jax.main --config=sudoku_augmented_hrm --workdir=runs/sudoku_augmented_hrm
    python -m hrm_jax.main --mode=eval --workdir=runs/sudoku_augmented_hrm \
        --config=configs/sudoku_augmented_hrm.py --config.eval.rollouts.breadth=9 \
        --config.eval.rollouts.views=relabel --config.eval.rollouts.select=halted_vote \
        --config.eval.rollouts.checkpoints="('STEP','STEP')"

The third command votes over nine relabellings of the latest checkpoint and of those whose steps
are named (`hrm-jax checkpoints list` prints them); their ensemble has the last ten, 31 to 40 times
1,302 steps. Values of the original (renrua52/hrm-mechanistic-analysis): those of HRM on eight
GPUs, 40,000 epochs, a checkpoint every 1,000. Their results (arXiv 2601.10679): 96.9 % of 422,786
test puzzles, where HRM has 55 %, at a cost of about 500 GPU hours for all of it. Their count
compares with the labels: a puzzle counts when the halted passes of any one checkpoint are mostly
right. Here labels never take part: the answer is the most frequent one of the halted passes of all
checkpoints.
"""

from configs import sudoku_extreme_1k


def get_config():
    config = sudoku_extreme_1k.get_config()
    config.name = 'sudoku_augmented_hrm'
    config.data.path = 'data/sudoku-extreme-1k-aug-1000-hints'
    config.train.epochs = 40000
    config.train.eval_interval = 1000
    config.checkpoint.keep_latest = 10
    return config
