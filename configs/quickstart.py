"""A small HRM on generated 4x4 Sudokus: learns in minutes on two CPU cores.

    make quickstart

does everything: builds the puzzles, trains with these settings, evaluates, draws. By hand, after
it has built them:

    python -m hrm_jax.main --config=configs/quickstart.py --workdir=runs/mine
"""

from hrm_jax.config import default_config_dict


def get_config():
    config = default_config_dict()
    config.name = 'quickstart'
    config.data.path = 'data/sudoku-4x4'
    return config
