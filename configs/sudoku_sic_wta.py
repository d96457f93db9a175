r"""Sudoku-Extreme from 1,000 puzzles, SIC with four chains of which the winner takes all.

    python -m data_builders sudoku --output-dir data/sudoku-extreme-1k-aug-1000 \
        --subsample-size 1000 --num-aug 1000
    python -m hrm_jax.main --config=configs/sudoku_sic_wta.py --workdir=runs/sudoku_sic_wta

The values are those of the original (jvdillon/sic, x182; arXiv 2601.19085): ``sudoku_sic.py`` with
four low states for each puzzle, drawn anew and aligned; the best chain by loss learns and gives its
high state to all; of two chains whose low states have a cosine above 0.95 the worse one is dropped.
36,000 steps of 192 puzzles. Evaluation runs the first chain; ``--config.eval.chains=4
--config.eval.halting=adaptive`` lets the first chain to halt answer.

Their results on the first 38,400 test puzzles, in the order of the seeds 42 to 45: 97.64, 96.16,
96.46, 97.16 % (mean 96.9); seed 46 collapsed. Their cost: 6.1 hours on one RTX 5090.
"""

from configs import sudoku_sic


def get_config():
    config = sudoku_sic.get_config()
    config.name = 'sudoku_sic_wta'
    config.model.chains = 4
    config.model.chain_similarity = 0.95
    config.model.align_chains = True
    config.model.initial_state = 'random_low'
    config.train.global_batch_size = 192
    config.train.epochs = 6912  # 36,000 steps of 192
    return config
