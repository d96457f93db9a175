r"""Maze-Unique: mazes of 30x30 cells with a single path of 100 to 140 moves, EqR.

    python -m data_builders maze --output-dir data/maze-unique --source generated --size 30 \
        --min-path 100 --max-path 140 --train-count 1000 --test-count 1000
    python -m hrm_jax.main --config=configs/maze_unique.py --workdir=runs/maze_unique

Every maze is a spanning tree, so that exact match asks for the one path that there is; mazes of
Maze-Hard have many (experiments/results/maze_metrics.md). The values are those of ``maze_eqr.py``;
our mazes are our own (a depth-first walk over every other cell), as the original's generator is
not at hand, so accuracies of the two sets are not the same measurement.

Results of the authors on their set (arXiv 2605.21488): 82.2 % exactly right, with more compute at
test time 93.0; TRM 44.9.
"""

from configs import maze_eqr


def get_config():
    config = maze_eqr.get_config()
    config.name = 'maze_unique'
    config.data.path = 'data/maze-unique'
    return config
