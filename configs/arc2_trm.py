r"""ARC-AGI-2 with ConceptARC, TRM with attention: 6.83 million parameters beside the puzzle table.

    python -m data_builders arc --output-dir data/arc-2-concept-aug-1000 \
        --source arc2 ConceptARC.tar.gz
    python -m hrm_jax.main --config=configs/arc2_trm.py --workdir=runs/arc2_trm

The values are those of the original's command (SamsungSAILMontreal/TinyRecursiveModels, README):
batches of 768, 100,000 epochs, moving average on. Their hardware: 4 H100, about 3 days. Their
result: 8 % on ARC-AGI-2 (README; 7.8 % in arXiv 2510.04871), with two guesses a puzzle. Do not
train on ARC-AGI-1 and ARC-AGI-2 together: tests of one are among the training puzzles of the
other.
"""

from hrm_jax.config import default_config_dict


def get_config():
    config = default_config_dict()
    config.name = 'arc2_trm'
    config.data.path = 'data/arc-2-concept-aug-1000'
    config.model.levels = 'shared'
    config.model.gradient_window = 'last_cycle'
    config.model.H_cycles = 3
    config.model.L_cycles = 4
    config.model.L_layers = 2
    config.model.puzzle_emb_len = 16
    config.act.halting = 'halt_only'
    config.optimizer.ema_decay = 0.999
    config.train.global_batch_size = 768
    config.train.epochs = 100000
    config.train.eval_interval = 10000
    config.optimizer.lr = 0.0001
    config.optimizer.puzzle_emb_lr = 0.01
    config.optimizer.weight_decay = 0.1
    config.optimizer.puzzle_emb_weight_decay = 0.1
    return config
