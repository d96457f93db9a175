r"""Sudoku-Extreme from 1,000 puzzles, TRM's baseline: eight plain blocks, once in each ACT step.

    python -m data_builders sudoku --output-dir data/sudoku-extreme-1k-aug-1000 \
        --subsample-size 1000 --num-aug 1000
    python -m hrm_jax.main --config=configs/sudoku_transformer.py --workdir=runs/sudoku_transformer

27.3 million parameters. The architecture is that of the original's transformers_baseline.yaml
(SamsungSAILMontreal/TinyRecursiveModels), except for its 12 heads: 512 channels are not divisible
by 12, and it leaves 8 of them out; here there are 8 heads. Its halting compares with a q_continue
that is not trained. The rest is that of its Sudoku command; it gives no command for this variant,
nor a result. Hardware: as ``sudoku_trm_att.py``.
"""

from configs import sudoku_trm_att


def get_config():
    config = sudoku_trm_att.get_config()
    config.name = 'sudoku_transformer'
    config.model.levels = 'single'
    config.model.gradient_window = 'full'
    config.model.H_cycles = 1
    config.model.L_cycles = 1
    config.model.L_layers = 8
    config.model.puzzle_emb_len = 0
    config.act.halting = 'q_learning'
    config.act.train_q_continue = False
    return config
