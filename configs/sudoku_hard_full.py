r"""The original's full-size Sudoku recipe: more L cycles, learned positions, softmax.

    python -m data_builders sudoku --output-dir data/sudoku-hard-full
    python -m hrm_jax.main --config=configs/sudoku_hard_full.py --workdir=runs/sudoku_hard_full

The values are those of the command under "Full Sudoku-Hard" (sapientinc/HRM, README). Their
folder of that name is the whole of Sudoku-Extreme, without augmentation. Their hardware: 8 GPUs,
about 2 hours. They state no accuracy beside the command.
"""

from hrm_jax.config import default_config_dict


def get_config():
    config = default_config_dict()
    config.name = 'sudoku_hard_full'
    config.data.path = 'data/sudoku-hard-full'
    config.train.global_batch_size = 2304
    config.train.epochs = 100
    config.train.eval_interval = 10
    config.optimizer.lr = 0.0003
    config.optimizer.lr_min_ratio = 0.1
    config.optimizer.puzzle_emb_lr = 0.0003
    config.optimizer.weight_decay = 0.1
    config.optimizer.puzzle_emb_weight_decay = 0.1
    config.model.L_cycles = 8
    config.model.pos_encodings = 'learned'
    config.act.halt_max_steps = 8
    config.loss.loss_type = 'softmax_cross_entropy'
    return config
