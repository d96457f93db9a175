r"""9x9 Sudokus on two CPU cores: digit fields that hear their rows, columns and boxes.

    python -m data_builders sudoku --output-dir data/sudoku9 --source generated \
        --train-count 6000 --test-count 1000 --num-aug 20 --hints
    python -m hrm_jax.main --config=configs/sudoku9_cpu.py --workdir=runs/sudoku9_cpu

A state for every digit and cell, 10,434 parameters for all of them. A cell is given the means of
its row, its column and its box, which the task names; what follows from them is learned, from
6,000 generated boards of 28 to 36 givens. The first part of the installed model; what it reached is
in hrm_jax/pretrained/sudoku9.md, and configs/sudoku9_cpu_hard.py is the second part.
"""

from hrm_jax.config import default_config_dict


def get_config():
    config = default_config_dict()
    config.name = 'sudoku9_cpu'
    config.data.path = 'data/sudoku9'
    config.data.augmentation = 'on_the_fly'
    config.model.levels = 'shared'
    config.model.gradient_window = 'last_cycle'
    config.model.H_cycles = 2
    config.model.L_cycles = 3
    config.model.L_layers = 1
    config.model.block = 'group_mixing'
    config.model.hidden_size = 32
    config.model.num_heads = 1
    config.model.intermediate_size = 64
    config.model.pos_encodings = 'none'
    config.model.puzzle_emb_ndim = 0
    config.model.symbol_exchange = 'mean'
    config.model.symbol_input = 'roles'
    config.model.initial_state = 'random_in_training'
    config.model.start_distribution = 'normal'
    config.model.forward_dtype = 'float32'
    config.act.halting = 'halt_only'
    config.act.halt_max_steps = 8
    config.loss.loss_type = 'softmax_cross_entropy'
    config.optimizer.name = 'adamw'
    config.optimizer.lr = 0.002
    config.optimizer.lr_warmup_steps = 100
    config.optimizer.lr_min_ratio = 1.0
    config.optimizer.weight_decay = 0.1
    config.optimizer.grad_clip_norm = 1.0
    config.optimizer.ema_decay = 0.995
    config.train.global_batch_size = 32
    config.train.epochs = 50
    config.train.eval_interval = 2
    config.train.log_every_steps = 50
    config.checkpoint.every_steps = 500
    config.eval.global_batch_size = 100
    config.eval.halt_max_steps = 16
    config.eval.max_examples = 100
    return config
