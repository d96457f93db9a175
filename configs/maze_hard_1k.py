r"""Maze-Hard, 30x30, 1,000 mazes, HRM with 27 million parameters.

    python -m data_builders maze --output-dir data/maze-30x30-hard-1k
    python -m hrm_jax.main --config=configs/maze_hard_1k.py --workdir=runs/maze_hard_1k

The values are those of the original's command (sapientinc/HRM, README): no augmentation, 20,000
epochs, 26,041 steps of 768 mazes. A folder that the original's builder made trains as it is.
Their hardware: 8 GPUs, about 1 hour. Their result: 74.5 % of the test mazes exactly right
(arXiv 2506.21734).
"""

from hrm_jax.config import default_config_dict


def get_config():
    config = default_config_dict()
    config.name = 'maze_hard_1k'
    config.data.path = 'data/maze-30x30-hard-1k'
    config.train.global_batch_size = 768
    config.train.epochs = 20000
    config.train.eval_interval = 2000
    config.optimizer.lr = 0.0001
    config.optimizer.puzzle_emb_lr = 0.0001
    config.optimizer.weight_decay = 1.0
    config.optimizer.puzzle_emb_weight_decay = 1.0
    return config
