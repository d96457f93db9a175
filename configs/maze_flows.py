r"""Maze-Hard 30x30 from 1,000 mazes, Looped Flows: TRM as a denoiser of answers.

    python -m data_builders maze --output-dir data/maze-30x30-hard-1k
    python -m hrm_jax.main --config=configs/maze_flows.py --workdir=runs/maze_flows

The values are those of the paper (arXiv 2609.11801) on TRM's recipe; no original code is public,
and hrm_jax/model/flows.py states what is our reading. Sorted times, all cells but the empty ones
fixed, no pseudotargets; a constant rate, norm of the gradient at most 1; evaluation with 32 steps
and g = 1. The length of their training is not stated: here it is TRM's.

Their results over 3 seeds: 86.7 +-1.1 % of the test mazes exactly, 86.9 +-1.5 with the best q of 5
trajectories. Their cost: 1 to 5 hours on GPUs from A10 to H100.
"""

from configs import maze_trm


def get_config():
    config = maze_trm.get_config()
    config.name = 'maze_flows'
    config.model.flow = True
    config.model.flow_times = 'sorted'
    config.model.flow_open_token = 2
    config.eval.halt_max_steps = 32
    config.eval.flow_noise = 1.0
    config.optimizer.grad_clip_norm = 1.0
    return config
