r"""Paths on 20x20 boards, two modules: 6.29 million parameters.

    python -m data_builders pathfinding --output-dir data/pathfinding-20 \
        --board-size 20 --train-count 2000
    python -m hrm_jax.main --config=configs/pathfinding_hl.py --workdir=runs/pathfinding_hl

The values are those of the study of krychu/hrm (its project page; the repository's own defaults
are 4,000 boards of 10x10 and 30 epochs). No hardware is stated. Their results (best board
accuracy, average of several runs): 0.438, acc4x 0.416, with 2 training segments and 2x2 cycles;
0.452 and 0.566 with 4 segments; 0.566 and 0.588 with 4 segments and 4x4 cycles.
``exact_accuracy`` is its board accuracy, ``accuracy`` its cell accuracy, and ``acc4x`` the board
accuracy with four times the segments.
"""

from hrm_jax.config import default_config_dict


def get_config():
    config = default_config_dict()
    config.name = 'pathfinding_hl'
    config.data.path = 'data/pathfinding-20'
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
    config.train.epochs = 40
    config.train.eval_interval = 1
    config.eval.halt_max_steps = 2  # segments at test time
    config.eval.depth_multiples = (4,)  # the metric acc4x
    config.checkpoint.best_metric = 'eval/all/lm_loss'
    config.checkpoint.best_mode = 'min'
    return config
