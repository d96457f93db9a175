r"""Paths on 20x20 boards, two modules: 6.29 million parameters.

    python -m data_builders pathfinding --output-dir data/pathfinding-20 \
        --board-size 20 --train-count 2000
    python -m hrm_jax.main --config=configs/pathfinding_hl.py --workdir=runs/pathfinding_hl

The values are those of the study of krychu/hrm (its project page; the repository's own defaults
are 4,000 boards of 10x10 and 30 epochs). No hardware is stated. Their results (best board
accuracy, average of several runs): 0.438, acc4x 0.416, with 2 training segments and 2x2 cycles;
0.452 and 0.566 with 4 segments; 0.566 and 0.588 with 4 segments and 4x4 cycles.
``exact_accuracy`` is its board accuracy, ``accuracy`` its cell accuracy, and ``acc4x`` the board
accuracy with four times the segments.
"""

from configs import pathfinding


def get_config():
    config = pathfinding.get_config()
    config.name = 'pathfinding_hl'
    config.data.path = 'data/pathfinding-20'
    config.train.epochs = 40
    return config
