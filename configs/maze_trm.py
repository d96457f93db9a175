r"""Maze-Hard 30x30 from 1,000 mazes, TRM with attention: 6.83 million parameters.

    python -m data_builders maze --output-dir data/maze-30x30-hard-1k
    python -m hrm_jax.main --config=configs/maze_trm.py --workdir=runs/maze_trm

The values are those of the original's command (SamsungSAILMontreal/TinyRecursiveModels, README),
which trains on the 1,000 mazes without augmentation, although its text mentions 8 augmentations
(here: ``--aug``). Their hardware: 4 L40S, less than 24 hours. Their result: 85.3 % of the test
mazes exactly right (arXiv 2510.04871); a reimplementation reports 75 %.
"""

from configs import sudoku_trm_att


def get_config():
    config = sudoku_trm_att.get_config()
    config.name = 'maze_trm'
    config.data.path = 'data/maze-30x30-hard-1k'
    config.model.L_cycles = 4
    return config
