r"""ARC-AGI-1 with ConceptARC, URM: one state, a convolution in the gated unit.

    python -m data_builders arc --output-dir data/arc-1-concept-aug-1000 \
        --source arc1 ConceptARC.tar.gz
    python -m hrm_jax.main --config=configs/arc1_urm.py --workdir=runs/arc1_urm

The values are those of the original's script (UbiquantAI/URM; arXiv 2512.14693): the model of
configs/sudoku_urm.py, 200,000 epochs, weight decay 0.1, rate of the puzzle table 0.01. Their
hardware: 8 GPUs.

Their result: 53.8 % of the evaluation puzzles with one guess, 61.8 % with two; seeds and hours are
not stated.
"""

from configs import sudoku_urm


def get_config():
    config = sudoku_urm.get_config()
    config.name = 'arc1_urm'
    config.data.path = 'data/arc-1-concept-aug-1000'
    config.train.global_batch_size = 768
    config.train.epochs = 200000
    config.train.eval_interval = 2000
    config.optimizer.puzzle_emb_lr = 0.01
    config.optimizer.weight_decay = 0.1
    config.optimizer.puzzle_emb_weight_decay = 0.1
    return config
