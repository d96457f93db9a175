r"""ARC-AGI-1's small tasks on two CPU cores: those whose grids fit 12 x 12 cells.

    python -m data_builders arc --output-dir data/arc-1-small-aug-100 --source arc1 \
        --subsets training --test-subsets training --side 12 --num-aug 100
    python -m hrm_jax.main --config=configs/arc1_cpu.py --workdir=runs/arc1_cpu

220 of the 400 training tasks, whose 234 tests are held out: a set to try ideas on, not the
benchmark. 144 tokens in place of 900, and a model of 64 channels.
"""

from configs import arc1


def get_config():
    config = arc1.get_config()
    config.name = 'arc1_cpu'
    config.data.path = 'data/arc-1-small-aug-100'
    config.model.hidden_size = 64
    config.model.num_heads = 4
    config.model.puzzle_emb_ndim = 64
    config.model.H_layers = 1
    config.model.L_layers = 1
    config.model.forward_dtype = 'float32'
    config.act.halt_max_steps = 4
    config.loss.loss_type = 'softmax_cross_entropy'
    config.optimizer.lr = 0.001
    config.optimizer.lr_warmup_steps = 100
    config.optimizer.lr_min_ratio = 0.1
    config.optimizer.ema_decay = 0.99
    config.train.global_batch_size = 16
    config.train.epochs = 66
    config.train.eval_interval = 0
    config.checkpoint.every_steps = 500
    config.eval.global_batch_size = 64
    return config
