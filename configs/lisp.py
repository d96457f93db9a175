r"""Simplification of Lisp expressions, HRM with 27 million parameters.

    python -m data_builders lisp --output-dir data/lisp-simplification
    python -m hrm_jax.main --config=configs/lisp.py --workdir=runs/lisp

The values are those of adminiavs/HRM-Lisp (config/cfg_pretrain_lisp.yaml) as they were meant: the
program ignores its 4x4 cycles because of their place in the file, so its own runs had 2x2; its
``eval_*`` options are not read by the program and have no counterpart here. Training stops when
the token accuracy has not risen for five evaluations. Hardware: one GPU. No published result.
"""

from hrm_jax.config import default_config_dict


def get_config():
    config = default_config_dict()
    config.name = 'lisp'
    config.data.path = 'data/lisp-simplification'
    config.model.H_cycles = 4
    config.model.L_cycles = 4
    config.train.global_batch_size = 256
    config.train.epochs = 15000
    config.train.eval_interval = 1000
    config.train.early_stopping.metric = 'eval/all/accuracy'
    config.train.early_stopping.mode = 'max'
    config.train.early_stopping.patience = 5
    config.optimizer.lr = 0.0001
    config.optimizer.lr_min_ratio = 0.1
    config.optimizer.lr_warmup_steps = 1000
    config.optimizer.puzzle_emb_lr = 0.01
    config.optimizer.weight_decay = 0.1
    config.optimizer.puzzle_emb_weight_decay = 0.1
    return config
