r"""Sudoku-Extreme from 1,000 puzzles, TRM with one state: 5.03 million parameters.

    python -m data_builders sudoku --output-dir data/sudoku-extreme-1k-aug-1000 \
        --subsample-size 1000 --num-aug 1000
    python -m hrm_jax.main --config=configs/sudoku_trm_singlez.py --workdir=runs/sudoku_trm_singlez

An ablation of ``sudoku_trm_mlp.py``: answer and reasoning share a state. Six updates that see the
puzzle are followed by one that does not. The architecture is that of the original's
trm_singlez.yaml (SamsungSAILMontreal/TinyRecursiveModels), the rest that of its Sudoku command; it
gives no command for this variant. Their result: see the ablations of arXiv 2510.04871. Hardware: as
``sudoku_trm_mlp.py``.
"""

from configs import sudoku_trm_mlp


def get_config():
    config = sudoku_trm_mlp.get_config()
    config.name = 'sudoku_trm_singlez'
    config.model.levels = 'single'
    config.model.closing_update = True
    return config
