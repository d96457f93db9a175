r"""Paths on 20x20 boards, one module, gradient through all its updates: 6.23 million parameters.

    python -m data_builders pathfinding --output-dir data/pathfinding-20 \
        --board-size 20 --train-count 2000
    python -m hrm_jax.main --config=configs/pathfinding_h_only_bptt.py \
        --workdir=runs/pathfinding_h_only_bptt

The values are those of the study of krychu/hrm (its project page; the repository's own defaults
are 4,000 boards of 10x10 and 30 epochs). No hardware is stated. Their results (best board
accuracy, average of several runs): 0.274, acc4x 0.336, with 2 training segments and 4 updates;
0.616 and 0.676 with 4 segments. The original's code of this variant was never published: that the
input is added before every update, and which updates are detached, follows our reading of its
description. ``exact_accuracy`` is its board accuracy, ``accuracy`` its cell accuracy, and
``acc4x`` the board accuracy with four times the segments.
"""

from configs import pathfinding_hl


def get_config():
    config = pathfinding_hl.get_config()
    config.name = 'pathfinding_h_only_bptt'
    config.model.levels = 'single'
    config.model.gradient_window = 'full'
    config.model.hidden_size = 360
    return config
