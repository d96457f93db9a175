r"""Sudoku-Extreme from 1,000 puzzles, TRM with attention: 6.83 million parameters.

    python -m data_builders sudoku --output-dir data/sudoku-extreme-1k-aug-1000 \
        --subsample-size 1000 --num-aug 1000
    python -m hrm_jax.main --config=configs/sudoku_trm_att.py --workdir=runs/sudoku_trm_att

The values are those of the original's command (SamsungSAILMontreal/TinyRecursiveModels, README):
65,104 steps of 768 puzzles, moving average on. Their hardware: one L40S, less than 36 hours.
Their README gives no accuracy of this variant.
"""

from hrm_jax.config import default_config_dict


def get_config():
    config = default_config_dict()
    config.name = 'sudoku_trm_att'
    config.data.path = 'data/sudoku-extreme-1k-aug-1000'
    config.model.levels = 'shared'
    config.model.gradient_window = 'last_cycle'
    config.model.H_cycles = 3
    config.model.L_cycles = 6
    config.model.L_layers = 2
    config.model.puzzle_emb_len = 16
    config.act.halting = 'halt_only'
    config.optimizer.ema_decay = 0.999
    config.train.global_batch_size = 768
    config.train.epochs = 50000
    config.train.eval_interval = 5000
    config.optimizer.lr = 0.0001
    config.optimizer.puzzle_emb_lr = 0.0001
    config.optimizer.weight_decay = 1.0
    config.optimizer.puzzle_emb_weight_decay = 1.0
    return config
