r"""Sudoku-Extreme from 1,000 puzzles, URM: one state, a convolution in the gated unit.

    python -m data_builders sudoku --output-dir data/sudoku-extreme-1k-aug-1000 \
        --subsample-size 1000 --num-aug 1000
    python -m hrm_jax.main --config=configs/sudoku_urm.py --workdir=runs/sudoku_urm

The values are those of the original's script scripts/URM_sudoku.sh and of the files that it builds
on (UbiquantAI/URM; arXiv 2512.14693): 4 layers of attention, 2 x 6 applications with the input
added before each, the last 6 with gradient, 16 ACT steps, one slot of the puzzle prefix, batches of
128. The convolution and what follows it is bfloat16 there, whatever the rest is.

Their result: 77.6 % of the test puzzles; seeds and hours are not stated.
"""

from configs import sudoku_trm_att


def get_config():
    config = sudoku_trm_att.get_config()
    config.name = 'sudoku_urm'
    config.model.levels = 'single'
    config.model.L_layers = 4
    config.model.H_cycles = 2
    config.model.L_cycles = 6
    config.model.puzzle_emb_len = 0  # one slot, as the puzzle vector fits into it
    config.model.gated_unit = 'conv_swiglu'
    config.model.conv_dtype = 'bfloat16'
    config.train.global_batch_size = 128
    config.train.eval_interval = 2000
    return config
