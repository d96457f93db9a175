r"""ARC-AGI-1 with ConceptARC, TRM with attention: 6.83 million parameters beside the puzzle table.

    python -m data_builders arc --output-dir data/arc-1-concept-aug-1000 \
        --source arc1 ConceptARC.tar.gz
    python -m hrm_jax.main --config=configs/arc1_trm.py --workdir=runs/arc1_trm

The values are those of the original's command (SamsungSAILMontreal/TinyRecursiveModels, README):
batches of 768, 100,000 epochs, moving average on. Their hardware: 4 H100, about 3 days. Their
result: 45 % on ARC-AGI-1 (README; 44.6 % in arXiv 2510.04871), with two guesses a puzzle. Do not
train on ARC-AGI-1 and ARC-AGI-2 together: tests of one are among the training puzzles of the
other.
"""

from configs import sudoku_trm_att


def get_config():
    config = sudoku_trm_att.get_config()
    config.name = 'arc1_trm'
    config.data.path = 'data/arc-1-concept-aug-1000'
    config.model.L_cycles = 4
    config.train.epochs = 100000
    config.train.eval_interval = 10000
    config.optimizer.puzzle_emb_lr = 0.01
    config.optimizer.weight_decay = 0.1
    config.optimizer.puzzle_emb_weight_decay = 0.1
    return config
