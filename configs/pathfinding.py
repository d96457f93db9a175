r"""Paths on 10x10 boards, two modules: 6.29 million parameters.

    python -m data_builders pathfinding --output-dir data/pathfinding-10
    python -m hrm_jax.main --config=configs/pathfinding.py --workdir=runs/pathfinding

The values are the defaults of krychu/hrm's programs: 4,000 boards, 500 more for evaluation, walls
on 30 % of the cells, 30 epochs. ``pathfinding_hl.py`` has those of its study on 20x20 boards.
Hardware: one GPU; none is stated there, nor a result for these settings.
"""

from hrm_jax.config import default_config_dict


def get_config():
    config = default_config_dict()
    config.name = 'pathfinding'
    config.data.path = 'data/pathfinding-10'
    config.model.hidden_size = 256
    config.model.num_heads = 4
    config.model.H_layers = 4
    config.model.L_layers = 4
    config.model.H_cycles = 2
    config.model.L_cycles = 2
    config.model.round_mlp = False
    config.model.norm_scale = True
    config.model.rms_norm_eps = 1.1920928955078125e-07
    config.model.scale_learned_positions = False
    config.model.dropout = 0.1
    config.model.attention_dropout = 0.1
    config.model.initializer = 'uniform'
    config.model.puzzle_emb_ndim = 0
    config.model.q_head = False
    config.model.forward_dtype = 'float32'
    config.act.halting = 'fixed'
    config.act.halt_max_steps = 2  # segments per batch, each with its own update
    config.loss.loss_type = 'softmax_cross_entropy'
    config.loss.q_weight = 0.0
    config.optimizer.name = 'adamw'
    config.optimizer.lr = 0.0003
    config.optimizer.lr_warmup_steps = 0
    config.optimizer.beta2 = 0.999
    config.optimizer.weight_decay = 0.01
    config.train.global_batch_size = 64
    config.train.epochs = 30
    config.train.eval_interval = 1
    config.eval.halt_max_steps = 2  # segments at test time
    config.eval.depth_multiples = (4,)  # the metric acc4x
    config.checkpoint.best_metric = 'eval/all/lm_loss'
    config.checkpoint.best_mode = 'min'
    return config
