r"""Maze-Hard 30x30 from 1,000 mazes, TRM with attention: 6.83 million parameters.

    python -m data_builders maze --output-dir data/maze-30x30-hard-1k
    python -m hrm_jax.main --config=configs/maze_trm.py --workdir=runs/maze_trm

The values are those of the original's command (SamsungSAILMontreal/TinyRecursiveModels, README),
which trains on the 1,000 mazes as they are although its text speaks of 8 augmentations (here:
``--aug``). Their hardware: 4 L40S, less than 24 hours. Their result: 85.3 % of the test mazes
exactly right (arXiv 2510.04871); a reimplementation reports 75 %.
"""

from hrm_jax.config import default_config_dict


def get_config():
    config = default_config_dict()
    config.name = 'maze_trm'
    config.data.path = 'data/maze-30x30-hard-1k'
    config.model.levels = 'shared'
    config.model.gradient_window = 'last_cycle'
    config.model.H_cycles = 3
    config.model.L_cycles = 4
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
