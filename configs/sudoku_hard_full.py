r"""The original's full-size Sudoku recipe: more L cycles, learned positions, softmax.

    python -m data_builders sudoku --output-dir data/sudoku-hard-full
    python -m hrm_jax.main --config=configs/sudoku_hard_full.py --workdir=runs/sudoku_hard_full

The values are those of the command under "Full Sudoku-Hard" (sapientinc/HRM, README); the
optimizer's are in ``sudoku_extreme_full.py``. Their folder of that name is the whole of
Sudoku-Extreme, without augmentation. Their hardware: 8 GPUs, about 2 hours. They state no
accuracy beside the command.
"""

from configs import sudoku_extreme_full


def get_config():
    config = sudoku_extreme_full.get_config()
    config.name = 'sudoku_hard_full'
    config.data.path = 'data/sudoku-hard-full'
    config.model.L_cycles = 8
    config.model.pos_encodings = 'learned'
    config.act.halt_max_steps = 8
    config.loss.loss_type = 'softmax_cross_entropy'
    return config
