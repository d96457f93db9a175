r"""ARC-AGI-2, HRM with 27 million parameters beside the puzzle table.

    python -m data_builders arc --output-dir data/arc-2-aug-1000 --source arc2
    python -m hrm_jax.main --config=configs/arc2.py --workdir=runs/arc2

The settings are those of ``arc1.py``, as in the original (sapientinc/HRM, README). Its builder
command for ARC-2 adds ARC-1 without saying so, whose evaluation puzzles then stand in training;
this one does not, so scores on ARC-1 must not be expected from it. Their hardware: 8 GPUs, about
24 hours. Their result: 5.0 % of the evaluation puzzles with two guesses (arXiv 2506.21734).
"""

from hrm_jax.config import default_config_dict


def get_config():
    config = default_config_dict()
    config.name = 'arc2'
    config.data.path = 'data/arc-2-aug-1000'
    config.train.global_batch_size = 768
    config.train.epochs = 100000
    config.train.eval_interval = 10000
    config.optimizer.lr = 0.0001
    config.optimizer.puzzle_emb_lr = 0.01
    config.optimizer.weight_decay = 0.1
    config.optimizer.puzzle_emb_weight_decay = 0.1
    return config
