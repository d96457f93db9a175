r"""A custom task, with a small HRM that trains on a laptop: 0.5 million parameters.

    python -m hrm_jax.main --config=configs/custom.py --workdir=runs/custom \
        --config.data.source=puzzles.csv

builds the set into runs/custom/dataset, holds a tenth of it out for testing, and trains. More
flags of the builder: ``--config.data.source_flags='--rows=/ --test-fraction 0.2'``. Every
character is a symbol, and line breaks within a cell separate the rows of a grid; ``--rows=/`` names
another sign. The help of ``data_builders custom`` describes the CSV and JSON-lines forms. A set
that several runs share is built first:

    python -m data_builders custom --source puzzles.csv --output-dir data/custom
    python -m hrm_jax.main --config=configs/custom.py --workdir=runs/custom

Larger puzzles need a larger model: ``--config.model.hidden_size=256``,
``--config.model.H_layers=2`` and so on, up to the values of ``sudoku_extreme_1k.py``. Hardware: 2
CPU cores are enough for small grids. No published result.
"""

from hrm_jax.config import default_config_dict


def get_config():
    config = default_config_dict()
    config.name = 'custom'
    config.data.path = 'data/custom'
    config.model.hidden_size = 128
    config.model.num_heads = 4
    config.model.H_layers = 1
    config.model.L_layers = 1
    config.model.puzzle_emb_ndim = 128
    config.model.forward_dtype = 'float32'
    config.act.halt_max_steps = 8
    config.loss.loss_type = 'softmax_cross_entropy'
    config.optimizer.lr = 0.0005
    config.optimizer.lr_warmup_steps = 200
    config.train.global_batch_size = 64
    config.train.epochs = 200
    config.train.eval_interval = 20
    return config
