r"""Sudoku-Extreme from 1,000 puzzles, HRM with token mixing instead of attention.

    python -m data_builders sudoku --output-dir data/sudoku-extreme-1k-aug-1000 \
        --subsample-size 1000 --num-aug 1000
    python -m hrm_jax.main --config=configs/sudoku_hrm_mlp.py --workdir=runs/sudoku_hrm_mlp

19.4 million parameters. The architecture is that of hrm.yaml with mlp_t in
SamsungSAILMontreal/TinyRecursiveModels, the rest that of ``sudoku_extreme_1k.py``. They give no
command for this variant, nor a result. Hardware: as ``sudoku_extreme_1k.py``.
"""

from configs import sudoku_extreme_1k


def get_config():
    config = sudoku_extreme_1k.get_config()
    config.name = 'sudoku_hrm_mlp'
    config.model.block = 'token_mixing'
    config.model.pos_encodings = 'none'
    return config
