r"""Sudoku-Extreme from 1,000 puzzles, two stacks of four SRU++ layers: 2.40 million parameters.

    python -m data_builders sudoku --output-dir data/sudoku-extreme-1k-aug-1000 \
        --subsample-size 1000 --num-aug 1000
    python -m hrm_jax.main --config=configs/sudoku_srupp.py --workdir=runs/sudoku_srupp

The model, its type (float16) and the optimizer are those of NewJerseyStyle/HRM-rnn-base; it gives
no command of its own for it, so batch, learning rate and epochs are those of its laptop command,
as in ``sudoku_sru.py``. Its author's hardware: one RTX 2060. Its README's result: 40 % of the
test puzzles exactly right, beside 55 % for the HRM with attention.
"""

from configs import sudoku_sru


def get_config():
    config = sudoku_sru.get_config()
    config.name = 'sudoku_srupp'
    config.model.block = 'srupp'
    config.model.forward_dtype = 'float16'
    config.model.dropout = 0.1
    config.model.attention_dropout = 0.1
    return config
