r"""Maze-Hard 30x30 from 1,000 mazes, lattice deduction transformer: 1.78 million parameters.

    python -m data_builders maze --output-dir data/maze-30x30-hard-1k
    python -m hrm_jax.main --config=configs/maze_ldt.py --workdir=runs/maze_ldt

An open cell begins as floor or path; the other cells are given. The values are those of the
original (santolucito/lattice-deduction-transformers; arXiv 2605.08605): 20,000 steps of 192 mazes,
rotary positions by row and column, candidates of a probability below 0.5 are eliminated, one chain
at inference. Their result: 99.9 % with 512 chains (--config.eval.rollouts.breadth=512), any
shortest path counting as right (the metric shortest_path). Not retrained here.

What differs: each maze has one path as its solution (theirs: several shortest ones), start and goal
are not exchanged, and the pool has as many rows as a batch (theirs: twice as many, of which a
random half learns). Products of float32 are not rounded to TF32.
"""

from configs import sudoku_ldt


def get_config():
    config = sudoku_ldt.get_config()
    config.name = 'maze_ldt'
    config.data.path = 'data/maze-30x30-hard-1k'
    config.data.augmentation = 'stored'
    config.data.hint_prob = 0.0
    config.data.wrong_hint_prob = 0.0
    config.model.lattice.open_token = 2
    config.model.lattice.open_candidates = (2, 5)
    config.model.lattice.eliminate_below = 0.5
    config.model.lattice.views = 'board'
    config.model.first_symbol = 1
    config.model.hidden_size = 192
    config.model.pos_encodings = 'rope2d_pairs'
    config.model.initializer = 'uniform'
    config.optimizer.lr_warmup_steps = 2000
    config.train.global_batch_size = 192
    config.train.epochs = 3840
    config.train.eval_interval = 3840
    config.eval.subset = ''
    config.eval.dropout = 0.0
    config.eval.conflict_above = 0.53
    config.eval.rollouts.breadth = 1
    config.eval.rollouts.halt_together = False
    return config
