r"""ARC-AGI-1 with ConceptARC on one card of 16 GB: a smaller HRM with composed puzzle embeddings.

    python -m data_builders arc --output-dir data/arc-1-concept-aug-1000 \
        --source arc1 ConceptARC.tar.gz
    python -m hrm_jax.main --config=configs/arc1_small.py --workdir=runs/arc1_small

In place of a table of 876,412 rows a puzzle's vector is a sum of rows for its task, its dihedral
element and its colours: 273,664 values beside 6.8 million parameters. Batches of 256 are computed
in 8 parts whose blocks are computed again in the backward pass (``remat``).

Memory, counted on the traced step: weights and both moments 83 MB, what identifiers are made of 42
MB, the carry of 256 rows 238 MB (and as much again for its successor); for the backward pass of a
part JAX keeps 141 MB, 8.8 GB without ``remat`` (5.0 GB of them attention scores, where XLA computes
the attention). XLA's plan for one H100 (experiments/results/aot_compile.md): 1.9 GB in all, 9.0 GB
without ``remat``. No published result.
"""

from configs import arc1


def get_config():
    config = arc1.get_config()
    config.name = 'arc1_small'
    config.model.hidden_size = 256
    config.model.num_heads = 4
    config.model.puzzle_emb_ndim = 256
    config.model.puzzle_embedding = 'composed'
    config.model.remat = True
    config.train.global_batch_size = 256
    config.train.micro_batches = 8
    config.train.epochs = 30000
    config.train.eval_interval = 3000
    config.eval.global_batch_size = 64
    return config
