r"""Mazes of 30x30 from 1,000, EqR: TRM with random starts, damping and noise, very small.

    python -m data_builders maze --output-dir data/maze-30x30-hard-1k
    python -m hrm_jax.main --config=configs/maze_eqr.py --workdir=runs/maze_eqr

The values are those of the original (locuslab/EqR; arXiv 2605.21488): attention, 128 channels, one
layer, 3 x 4 cycles, 100,000 steps of 768. Their data are mazes of their own with one shortest path
of 100 to 140 cells (Maze-Unique, 1,000 for training and 1,000 for the test); ours here are those of
Maze-Hard, so the numbers cannot be compared.

Their results on Maze-Unique: 82.2 % of the test mazes at 16 ACT steps (their TRM 44.9, with random
starts alone 68.6), 88.9 at depth 64, 93.0 at depth 64 with 128 starts. Seeds, GPU and hours are not
stated.
"""

from configs import sudoku_eqr


def get_config():
    config = sudoku_eqr.get_config()
    config.name = 'maze_eqr'
    config.data.path = 'data/maze-30x30-hard-1k'
    config.model.block = 'attention'
    config.model.pos_encodings = 'rope'
    config.model.hidden_size = 128
    config.model.L_layers = 1
    config.model.L_cycles = 4
    config.train.epochs = 100000
    config.train.eval_interval = 10000
    config.train.max_steps = 100000
    return config
