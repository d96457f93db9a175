r"""A new task of one size: a small TRM with token mixing and the training of SIC.

    python -m data_builders custom --source puzzles.csv --output-dir data/custom
    python -m hrm_jax.main --config=configs/mixing.py --workdir=runs/mixing

or both in one: ``--config.data.source=puzzles.csv``; the forms of data are in configs/custom.py,
whose model is HRM's. This one won the study of techniques at a small size (`python -m
experiments.study`, experiments/results/study.md): token mixing, through which every cell hears
every other one by learned weights in place of attention, Muon, label smoothing and the gated unit
of SIC. The weights fix the number of cells; smaller questions are padded. Larger tasks need more:
``--config.model.hidden_size=128``, ``--config.model.L_layers=2``,
``--config.act.halt_max_steps=8``. Sources: TinyRecursiveModels (arXiv 2510.04871), SIC (arXiv
2601.19085). No published result.
"""

from configs import custom


def get_config():
    config = custom.get_config()
    config.name = 'mixing'
    config.model.levels = 'shared'
    config.model.gradient_window = 'last_cycle'
    config.model.H_cycles = 2
    config.model.L_cycles = 3
    config.model.block = 'token_mixing'
    config.model.pos_encodings = 'none'
    config.model.gated_unit = 'sigmoid_rms'
    config.model.hidden_size = 64
    config.model.num_heads = 2
    config.model.intermediate_size = 128
    config.model.puzzle_emb_ndim = 64
    config.act.halting = 'halt_only'
    config.act.halt_max_steps = 4
    config.loss.label_smoothing = 0.2
    config.loss.q_weight = 0.05
    config.optimizer.name = 'muon'
    config.optimizer.lr = 0.001
    config.optimizer.lr_warmup_steps = 100
    config.optimizer.lr_min_ratio = 0.1
    config.optimizer.weight_decay = 1.0
    config.optimizer.grad_clip_norm = 1.0
    config.optimizer.puzzle_emb_lr = 0.001
    config.optimizer.ema_decay = 0.99
    config.train.global_batch_size = 32
    return config
