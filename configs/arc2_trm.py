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

from configs import arc1_trm


def get_config():
    config = arc1_trm.get_config()
    config.name = 'arc2_trm'
    config.data.path = 'data/arc-2-concept-aug-1000'
    return config
