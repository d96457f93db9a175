"""A small HRM that completes boards of ten queens, on two CPU cores.

    python -m data_builders nqueens --output-dir data/nqueens-10
    python -m hrm_jax.main --config=configs/nqueens.py --workdir=runs/nqueens

No published model has these sizes. Training puzzles are turned and mirrored as they are drawn; no
test answer is a map of a training answer.
"""

from configs import quickstart


def get_config():
    config = quickstart.get_config()
    config.name = 'nqueens'
    config.data.path = 'data/nqueens-10'
    config.data.augmentation = 'on_the_fly'
    config.train.epochs = 80
    config.train.eval_interval = 10
    return config
