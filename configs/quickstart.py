"""A small HRM on generated 4x4 Sudokus: learns in a minute or two on two CPU cores.

    make quickstart

does everything: builds the puzzles, trains with these settings, evaluates and draws. Step by step:

    python -m data_builders sudoku --output-dir data/sudoku-4x4-seed0 --source generated \\
        --size 4 --train-count 10000 --test-count 1000
    python -m hrm_jax.main --config=configs/quickstart.py --workdir=runs/quickstart-seed0

No solution of a test puzzle is the solution of a training puzzle. Augmentation stays off: there are
only 288 solutions, and rearranging a training puzzle often leads to one of the test solutions.
"""

from hrm_jax.config import default_config_dict


def get_config():
    config = default_config_dict()
    config.name = 'quickstart'
    config.data.path = 'data/sudoku-4x4-seed0'
    config.model.H_layers = 1
    config.model.L_layers = 1
    config.model.hidden_size = 64
    config.model.num_heads = 2
    config.model.intermediate_size = 128
    config.model.puzzle_emb_ndim = 64
    config.model.pos_encodings = 'learned'
    config.model.forward_dtype = 'float32'
    config.act.halt_max_steps = 4
    config.loss.loss_type = 'softmax_cross_entropy'
    config.train.global_batch_size = 32
    config.train.epochs = 8
    config.train.eval_interval = 1
    config.train.log_every_steps = 25
    config.eval.global_batch_size = 500
    config.optimizer.lr = 1e-3
    config.optimizer.lr_warmup_steps = 200
    config.optimizer.puzzle_emb_lr = 1e-3
    config.optimizer.lr_min_ratio = 0.1
    config.optimizer.weight_decay = 1.0
    config.optimizer.ema_decay = 0.99
    return config
