r"""Sudoku-Extreme from 1,000 puzzles, two stacks of four SRU layers: 6.32 million parameters.

    python -m data_builders sudoku --output-dir data/sudoku-extreme-1k-aug-1000 \
        --subsample-size 1000 --num-aug 1000
    python -m hrm_jax.main --config=configs/sudoku_sru.py --workdir=runs/sudoku_sru

The model, its type (float32) and the optimizer are those of NewJerseyStyle/HRM-rnn-base; it gives
no command of its own for it, so batch, learning rate and epochs are those of its laptop command
(``sudoku_extreme_1k_laptop.py``). Its author's hardware: one RTX 2060. Its README's result: 43 %
of the test puzzles exactly right, beside 55 % for the HRM with attention.
"""

from configs import sudoku_extreme_1k_laptop


def get_config():
    config = sudoku_extreme_1k_laptop.get_config()
    config.name = 'sudoku_sru'
    config.model.block = 'sru'
    config.model.H_cycles = 1
    config.model.L_cycles = 1
    config.model.gradient_window = 'full'
    config.model.pos_encodings = 'none'
    config.model.forward_dtype = 'float32'
    config.optimizer.name = 'adam_atan2_pytorch'
    return config
