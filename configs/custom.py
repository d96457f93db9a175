r"""A task of one's own, with a small HRM that trains on a laptop: 0.5 million parameters.

    python -m data_builders custom --source FOLDER_OR_FILE --output-dir data/custom
    python -m hrm_jax.main --config=configs/custom.py --workdir=runs/custom

``python -m data_builders custom --help`` describes the CSV and JSON-lines forms. Larger puzzles
want a larger model: ``--config.model.hidden_size=256``, ``--config.model.H_layers=2`` and so on,
up to the values of ``sudoku_extreme_1k.py``. Hardware: 2 CPU cores suffice for small grids. No
published result.
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
