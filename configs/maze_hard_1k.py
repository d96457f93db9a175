r"""Maze-Hard, 30x30, 1,000 mazes, HRM with 27 million parameters.

    python -m data_builders maze --output-dir data/maze-30x30-hard-1k
    python -m hrm_jax.main --config=configs/maze_hard_1k.py --workdir=runs/maze_hard_1k

The values are those of the original's command (sapientinc/HRM, README), which are the same as in
its command for Sudoku-Extreme: 20,000 epochs, 26,041 steps of 768 mazes, without augmentation. A
folder made by the original's builder can be used as it is. Their hardware: 8 GPUs, about 1 hour.
Their result: 74.5 % of the test mazes exactly right (arXiv 2506.21734).
"""

from configs import sudoku_extreme_1k


def get_config():
    config = sudoku_extreme_1k.get_config()
    config.name = 'maze_hard_1k'
    config.data.path = 'data/maze-30x30-hard-1k'
    return config
