r"""Sudoku-Extreme from 1,000 puzzles, TRM with token mixing: 5.03 million parameters.

    python -m data_builders sudoku --output-dir data/sudoku-extreme-1k-aug-1000 \
        --subsample-size 1000 --num-aug 1000
    python -m hrm_jax.main --config=configs/sudoku_trm_mlp.py --workdir=runs/sudoku_trm_mlp

The values are those of the original's command (SamsungSAILMontreal/TinyRecursiveModels, README):
65,104 steps of 768 puzzles, moving average on. Their hardware: one L40S, less than 36 hours.
Their result: 87.4 % of the test puzzles exactly right (arXiv 2510.04871); independent
reproductions report 84.1 to 84.8 %.
"""

from configs import sudoku_trm_att


def get_config():
    config = sudoku_trm_att.get_config()
    config.name = 'sudoku_trm_mlp'
    config.model.block = 'token_mixing'
    config.model.pos_encodings = 'none'
    return config
