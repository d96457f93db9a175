r"""Sudoku-Extreme from 1,000 puzzles, two stacks of four SRU++ layers: 2.40 million parameters.

    python -m data_builders sudoku --output-dir data/sudoku-extreme-1k-aug-1000 \
        --subsample-size 1000 --num-aug 1000
    python -m hrm_jax.main --config=configs/sudoku_srupp.py --workdir=runs/sudoku_srupp

The model, its type (float16) and the optimizer are those of NewJerseyStyle/HRM-rnn-base; it
gives no command of its own for it, so batch, learning rate and epochs are those of its laptop
command. Its author's hardware: one RTX 2060. Its README's result: 40 % of the test puzzles
exactly right, beside 55 % for the HRM with attention.
"""

from hrm_jax.config import default_config_dict


def get_config():
    config = default_config_dict()
    config.name = 'sudoku_srupp'
    config.data.path = 'data/sudoku-extreme-1k-aug-1000'
    config.model.block = 'srupp'
    config.model.H_cycles = 1
    config.model.L_cycles = 1
    config.model.gradient_window = 'full'
    config.model.pos_encodings = 'none'
    config.model.forward_dtype = 'float16'
    config.model.dropout = 0.1
    config.model.attention_dropout = 0.1
    config.train.global_batch_size = 384
    config.train.epochs = 20000
    config.train.eval_interval = 2000
    config.optimizer.name = 'adam_atan2_pytorch'
    config.optimizer.lr = 0.00007
    config.optimizer.puzzle_emb_lr = 0.00007
    config.optimizer.weight_decay = 1.0
    config.optimizer.puzzle_emb_weight_decay = 1.0
    return config
