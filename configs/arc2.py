r"""ARC-AGI-2, HRM with 27 million parameters beside the puzzle table.

    python -m data_builders arc --output-dir data/arc-2-aug-1000 --source arc2
    python -m hrm_jax.main --config=configs/arc2.py --workdir=runs/arc2

The settings are those of ``arc1.py``, as in the original (sapientinc/HRM, README). Its builder
command for ARC-2 silently adds ARC-1, whose evaluation puzzles are then among the training
puzzles; this one does not, so do not evaluate it on ARC-1. Their hardware: 8 GPUs, about
24 hours. Their result: 5.0 % of the evaluation puzzles with two guesses (arXiv 2506.21734).
"""

from configs import arc1


def get_config():
    config = arc1.get_config()
    config.name = 'arc2'
    config.data.path = 'data/arc-2-aug-1000'
    return config
