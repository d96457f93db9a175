"""A small HRM that colours graphs of ten vertices, on two CPU cores.

    python -m data_builders colouring --output-dir data/colouring-10 --train-count 10000 \\
        --test-count 1000
    python -m hrm_jax.main --config=configs/colouring.py --workdir=runs/colouring

A graph is its adjacency matrix; its diagonal has the colours. No published model has these sizes.
No test graph is a training graph under another numbering of its vertices.
"""

from configs import quickstart


def get_config():
    config = quickstart.get_config()
    config.name = 'colouring'
    config.data.path = 'data/colouring-10'
    config.train.epochs = 40
    config.train.eval_interval = 5
    return config
