r"""Sudoku-Extreme from 1,000 puzzles, Looped Flows: TRM as a denoiser of answers, 5.30 million.

    python -m data_builders sudoku --output-dir data/sudoku-extreme-1k-aug-1000 \
        --subsample-size 1000 --num-aug 1000
    python -m hrm_jax.main --config=configs/sudoku_flows.py --workdir=runs/sudoku_flows

The values are those of the paper (arXiv 2609.11801) on TRM's recipe with token mixing; no original
code is public, and hrm_jax/model/flows.py states what is our reading. Sorted times, given cells
fixed, pseudotargets with a probability that rises over 20,000 steps; weight decay 2.0, cosine to a
tenth, norm of the gradient at most 1; evaluation with 128 steps and g = 5. The length of their
training is not stated: here it is TRM's.

Their results over 3 seeds: 97.9 +-.4 % of the test puzzles, 99.3 +-.2 with the best q of 5
trajectories; 74.5 at 8 steps. Their cost: 1 to 5 hours on GPUs from A10 to H100. The size of their
test set is not stated.
"""

from configs import sudoku_trm_mlp


def get_config():
    config = sudoku_trm_mlp.get_config()
    config.name = 'sudoku_flows'
    config.model.flow = True
    config.model.flow_times = 'sorted'
    config.model.flow_open_token = 1
    config.model.flow_pseudotarget_steps = 20000
    config.eval.halt_max_steps = 128
    config.eval.flow_noise = 5.0
    config.optimizer.lr_min_ratio = 0.1
    config.optimizer.weight_decay = 2.0
    config.optimizer.grad_clip_norm = 1.0
    return config
