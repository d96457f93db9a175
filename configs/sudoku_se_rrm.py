r"""Sudoku-Extreme from 1,000 puzzles, SE-RRM: 1.97 million parameters.

    python -m data_builders sudoku --output-dir data/sudoku-extreme-1k-aug-1000 \
        --subsample-size 1000 --num-aug 1000
    python -m hrm_jax.main --config=configs/sudoku_se_rrm.py --workdir=runs/sudoku_se_rrm

A state for every token and cell, attention over the cells and over the tokens of a cell; all digits
share their weights (arXiv 2603.02193). The values are those of the original's command
(ml-jku/SE-RRM, README): 36,764 steps of 272 puzzles, moving average on; the paper states a learning
rate of 5e-4, the command 1e-4. Their hardware: one A100. Their result: 93.73 % of the test puzzles
exactly right, 98.22 % at 64 steps (--config.eval.halt_max_steps=64). Not retrained here. Their
attention drops weights at inference too (--config.model.dropout_at_inference=True); whether their
numbers were measured so is not stated. Compiled ahead for one H100 the train step needs 38 GB with
--config.train.micro_batches=2, for eight v6e chips 10 GB each.
"""

from hrm_jax.config import default_config_dict


def get_config():
    config = default_config_dict()
    config.name = 'sudoku_se_rrm'
    config.data.path = 'data/sudoku-extreme-1k-aug-1000'
    config.model.levels = 'single'
    config.model.gradient_window = 'last_cycle'
    config.model.H_cycles = 3
    config.model.L_cycles = 6
    config.model.L_layers = 2
    config.model.hidden_size = 256
    config.model.num_heads = 4
    config.model.pos_encodings = 'rope2d_whole'
    config.model.puzzle_emb_ndim = 0
    config.model.q_head = False
    config.model.q_confidence = True
    config.model.symbol_exchange = 'attention'
    config.model.symbol_heads = 2
    config.model.symbol_head_size = 64
    config.model.added_tokens = 4
    config.model.attention_dropout = 0.2
    config.act.halting = 'random'
    config.act.halt_exploration_prob = 0.05
    config.optimizer.lr = 0.0001
    config.optimizer.weight_decay = 1.0
    config.optimizer.ema_decay = 0.999
    config.train.global_batch_size = 272
    config.train.epochs = 10000
    config.train.eval_interval = 1000
    return config
