r"""Sudoku-Extreme from 1,000 puzzles, TRM with six low states: 5.03 million parameters.

    python -m data_builders sudoku --output-dir data/sudoku-extreme-1k-aug-1000 \
        --subsample-size 1000 --num-aug 1000
    python -m hrm_jax.main --config=configs/sudoku_trm_sixz.py --workdir=runs/sudoku_trm_sixz

An ablation of ``sudoku_trm_mlp.py``: every low update of a cycle writes a state of its own. The
architecture is that of the original's trm_hier6.yaml (SamsungSAILMontreal/TinyRecursiveModels), the
rest that of its Sudoku command; it gives no command for this variant. Their result: see the
ablations of arXiv 2510.04871. Hardware: as ``sudoku_trm_mlp.py``.
"""

from configs import sudoku_trm_mlp


def get_config():
    config = sudoku_trm_mlp.get_config()
    config.name = 'sudoku_trm_sixz'
    config.model.low_states = 6
    return config
