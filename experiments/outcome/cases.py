"""The comparisons: which original, on which puzzles, at which size."""

from collections.abc import Callable
import dataclasses
import functools
from pathlib import Path

from hrm_jax.config import ExperimentConfig, default_config_dict


@dataclasses.dataclass(frozen=True)
class Case:
    """One original and ours on the same puzzles.

    Attributes:
      name: key of originals.ORIGINALS.
      title: for tables and plots.
      metrics: of every evaluation, the first decides.
      train, test: numbers of puzzles; train is a multiple of the batch size, because the originals
        drop an incomplete batch at every evaluation.
      configure: makes the configuration.
    """

    name: str
    title: str
    metrics: tuple[str, ...]
    train: int
    test: int
    configure: Callable[[], ExperimentConfig]

    def config(self, seed: int, data: Path | str) -> ExperimentConfig:
        """The experiment of one run, on both sides."""
        config = self.configure()
        return dataclasses.replace(
            config, seed=seed, data=dataclasses.replace(config.data, path=str(data))
        )

    def build(self, folder: Path) -> Path:
        """Makes the puzzles in the originals' format, once; both sides read this folder."""
        from data_builders import folder_format, pathfinding, sudoku

        if folder.exists():
            return folder
        records = folder.with_name(f'{folder.name}-records')
        if self.name == 'paths':
            pathfinding.build(
                str(records), board_size=BOARD, train_count=self.train, val_count=self.test,
                show=False, overwrite=True,
            )  # fmt: skip
        else:
            sudoku.build(
                str(records), source=sudoku.GENERATED, size=4, train_count=self.train,
                test_count=self.test, show=False, overwrite=True,
            )  # fmt: skip
        form = 'trm' if self.name == 'trm' else 'hrm'
        folder_format.export_folder(str(records), str(folder), form=form, show=False)
        return folder


BOARD = 5  # rows of a path finding board


def _plain(config):
    config.model.forward_dtype = 'float32'
    config.train.log_every_steps = 50
    config.checkpoint.keep_best = 0
    config.checkpoint.keep_latest = 1
    config.logging.tensorboard = False
    return config


def _sudoku(epochs: int):
    config = _plain(default_config_dict())
    config.model.hidden_size = config.model.puzzle_emb_ndim = 64
    config.model.num_heads = 2
    config.act.halt_max_steps = 4
    config.train.global_batch_size = 32
    config.train.epochs, config.train.eval_interval = epochs, 1
    config.eval.global_batch_size = 500
    config.optimizer.lr = config.optimizer.puzzle_emb_lr = 1e-3
    config.optimizer.lr_warmup_steps = 100
    config.optimizer.lr_min_ratio = 0.1
    config.optimizer.weight_decay = 1.0
    return config


def _hrm(epochs: int) -> ExperimentConfig:
    """Attention, two modules, Q-learning, stablemax."""
    config = _sudoku(epochs)
    config.name = 'outcome-hrm'
    config.model.H_layers = config.model.L_layers = 1
    config.model.pos_encodings = 'learned'
    return ExperimentConfig.from_dict(config)


def _trm(epochs: int) -> ExperimentConfig:
    """Token mixing, one module, halting without Q-learning, moving average."""
    config = _sudoku(epochs)
    config.name = 'outcome-trm'
    config.model.levels = 'shared'
    config.model.gradient_window = 'last_cycle'
    config.model.block = 'token_mixing'
    config.model.pos_encodings = 'none'
    config.model.H_cycles, config.model.L_cycles, config.model.L_layers = 2, 2, 1
    config.model.puzzle_emb_len = 4
    config.act.halting = 'halt_only'
    config.optimizer.ema_decay = 0.98
    return ExperimentConfig.from_dict(config)


def _paths(epochs: int) -> ExperimentConfig:
    """Two modules with dropout, an update for every segment, AdamW, softmax."""
    from configs import pathfinding

    config = _plain(pathfinding.get_config())
    config.name = 'outcome-paths'
    config.model.hidden_size = 64
    config.model.num_heads = 2
    config.model.H_layers = config.model.L_layers = 1
    config.model.pos_encodings = 'rope+learned'
    config.model.dropout = config.model.attention_dropout = 0.05
    config.optimizer.lr = 1e-3
    config.train.global_batch_size = 32
    config.train.epochs, config.train.eval_interval = epochs, 1
    config.eval.global_batch_size = 500
    return ExperimentConfig.from_dict(config)


_PUZZLES = ('exact_accuracy', 'accuracy', 'lm_loss')
_BOARDS = ('exact_accuracy', 'accuracy', 'acc4x')


def cases(small: bool = False) -> dict[str, Case]:
    """All comparisons by name; small: as short as they can be and still run on both sides."""
    # The mixer learns 4x4 Sudoku so fast that its curve would be flat with as many puzzles as HRM.
    made = (
        ('hrm', 'HRM, attention, 4x4 Sudoku', _PUZZLES, 4800, 10, _hrm),
        ('trm', 'TRM, token mixing, 4x4 Sudoku', _PUZZLES, 1600, 10, _trm),
        ('paths', f'Path finding, {BOARD}x{BOARD} boards', _BOARDS, 3200, 8, _paths),
    )
    found = {}
    for name, title, metrics, count, epochs, configure in made:
        count, epochs = (640, 2) if small else (count, epochs)
        configured = functools.partial(configure, epochs)
        found[name] = Case(name, title, metrics, count, 1000, configured)
    return found
