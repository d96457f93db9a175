r"""Generated 9x9 Sudokus on two CPU cores: digit fields with token mixing, 74 thousand parameters.

    python -m data_builders sudoku --output-dir data/sudoku-9x9-generated --source generated \
        --train-count 20000 --test-count 1000
    python -m hrm_jax.main --config=configs/sudoku9_cpu.py --workdir=runs/sudoku9_cpu

A form that a CPU computes well: a gated unit over the cells in place of attention with its many
small products, and the mean over the other digits as the exchange. The symmetries of the board are
drawn anew at every visit; those of the digits are in the model. Not trained to the end yet.
"""

from hrm_jax.config import default_config_dict


def get_config():
    config = default_config_dict()
    config.name = 'sudoku9_cpu'
    config.data.path = 'data/sudoku-9x9-generated'
    config.data.augmentation = 'on_the_fly'
    config.model.levels = 'shared'
    config.model.gradient_window = 'last_cycle'
    config.model.H_cycles = 2
    config.model.L_cycles = 3
    config.model.L_layers = 1
    config.model.block = 'token_mixing'
    config.model.hidden_size = 48
    config.model.num_heads = 1
    config.model.round_mlp = False
    config.model.pos_encodings = 'none'
    config.model.puzzle_emb_ndim = 0
    config.model.symbol_exchange = 'mean'
    config.model.symbol_input = 'roles'
    config.model.forward_dtype = 'float32'
    config.act.halting = 'halt_only'
    config.act.halt_max_steps = 8
    config.loss.loss_type = 'softmax_cross_entropy'
    config.optimizer.name = 'adamw'
    config.optimizer.lr = 0.002
    config.optimizer.lr_warmup_steps = 100
    config.optimizer.lr_min_ratio = 0.1
    config.optimizer.weight_decay = 0.1
    config.optimizer.grad_clip_norm = 1.0
    config.optimizer.ema_decay = 0.99
    config.train.global_batch_size = 32
    config.train.epochs = 40
    config.train.eval_interval = 2
    config.train.log_every_steps = 50
    config.checkpoint.every_steps = 500
    config.eval.global_batch_size = 100
    config.eval.halt_max_steps = 16
    config.eval.max_examples = 200
    return config
