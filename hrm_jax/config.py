"""The one definition of every setting: frozen dataclasses with their cross-field checks.

People edit an ``ml_collections.ConfigDict`` (files in ``configs/``, flags such as
``--config.optimizer.lr=1e-4``). ``main`` turns it once into an ``ExperimentConfig``; the
rest of the program sees typed attributes only. The defaults below are the only list of
defaults and follow the original's ``config/cfg_pretrain.yaml`` and ``config/arch/hrm_v1.yaml``
(sapientinc/HRM).
"""

import dataclasses
import difflib
import json
import types
import typing
from typing import Any


class ConfigError(ValueError):
    """A setting is unknown, of the wrong type, or contradicts another one."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    hint = difflib.get_close_matches(str(value), choices, n=1)
    suggestion = f' Did you mean {hint[0]!r}?' if hint else ''
    _require(
        value in choices,
        f'{name} must be one of {", ".join(choices)}; got {value!r}.{suggestion}',
    )


def _require_positive(**values: float) -> None:
    for name, value in values.items():
        _require(value > 0, f'{name} must be greater than 0; got {value}.')


def _require_not_negative(**values: float) -> None:
    for name, value in values.items():
        _require(value >= 0, f'{name} must not be negative; got {value}.')


LEVELS = ('separate', 'shared')
BLOCKS = ('attention',)
GRADIENT_WINDOWS = ('one_step', 'last_cycle', 'full')
POSITIONS = ('rope', 'learned', 'none')
DTYPES = ('float32', 'bfloat16', 'float16')
INITIALIZERS = ('truncated_normal', 'normal', 'uniform')
ATTENTIONS = ('auto', 'xla', 'cudnn')
HALTINGS = ('q_learning', 'halt_only', 'fixed')
LOSSES = ('stablemax_cross_entropy', 'softmax_cross_entropy')
DATA_FORMATS = ('auto', 'records', 'npy_folder')


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Architecture of the recursive core (paper section 2; models/hrm/hrm_act_v1.py).

    ``vocab_size``, ``seq_len`` and ``num_puzzle_identifiers`` come from the data set
    (``for_dataset``); 0 means "not known yet".
    """

    vocab_size: int = 0
    seq_len: int = 0
    num_puzzle_identifiers: int = 0
    levels: str = 'separate'  # two modules (HRM), or one that plays both roles
    block: str = 'attention'
    H_cycles: int = 2
    L_cycles: int = 2
    H_layers: int = 4
    L_layers: int = 4
    gradient_window: str = 'one_step'  # last L and last H update | last H cycle | all
    hidden_size: int = 512
    num_heads: int = 8
    expansion: float = 4.0
    intermediate_size: int = 0  # inner size of the gated unit; 0: by the rule of the original
    pos_encodings: str = 'rope'
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    puzzle_emb_ndim: int = 512
    puzzle_emb_len: int = 0  # slots of the puzzle prefix; 0: ceil(ndim / hidden_size)
    forward_dtype: str = 'bfloat16'
    initializer: str = 'truncated_normal'
    attention: str = 'auto'
    remat: bool = False  # recompute the blocks in the backward pass to save memory
    unroll_cycles: bool = False  # no loops in the program: exact FLOP counts, slower compile

    def __post_init__(self):
        _require_choice('model.levels', self.levels, LEVELS)
        _require_choice('model.block', self.block, BLOCKS)
        _require_choice('model.gradient_window', self.gradient_window, GRADIENT_WINDOWS)
        _require_choice('model.pos_encodings', self.pos_encodings, POSITIONS)
        _require_choice('model.forward_dtype', self.forward_dtype, DTYPES)
        _require_choice('model.initializer', self.initializer, INITIALIZERS)
        _require_choice('model.attention', self.attention, ATTENTIONS)
        _require_positive(**{
            f'model.{name}': getattr(self, name)
            for name in ('H_cycles', 'L_cycles', 'L_layers', 'hidden_size', 'num_heads',
                         'expansion', 'rope_theta', 'rms_norm_eps')
        })  # fmt: skip
        _require_not_negative(**{
            f'model.{name}': getattr(self, name)
            for name in ('vocab_size', 'seq_len', 'num_puzzle_identifiers', 'H_layers',
                         'puzzle_emb_ndim', 'puzzle_emb_len', 'intermediate_size')
        })  # fmt: skip
        if self.levels == 'separate':
            _require_positive(**{'model.H_layers': self.H_layers})
        _require(
            self.hidden_size % self.num_heads == 0,
            f'model.hidden_size must be a multiple of model.num_heads; got '
            f'{self.hidden_size} and {self.num_heads}. Change one of them.',
        )
        _require(
            self.pos_encodings != 'rope' or self.head_dim % 2 == 0,
            f'model.pos_encodings=rope needs an even head size; hidden_size / num_heads is '
            f'{self.head_dim}. Use fewer or more heads, or learned positions.',
        )
        _require(
            self.puzzle_emb_len == 0
            or 0 < self.puzzle_emb_ndim <= self.puzzle_emb_len * self.hidden_size,
            f'model.puzzle_emb_len slots of hidden_size must hold puzzle_emb_ndim values and '
            f'need some; got {self.puzzle_emb_len} x {self.hidden_size} for '
            f'{self.puzzle_emb_ndim}. Set puzzle_emb_len=0 to fit the slots to the vector.',
        )

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def prefix_len(self) -> int:
        """Slots that the puzzle vector occupies before the tokens."""
        return self.puzzle_emb_len or -(-self.puzzle_emb_ndim // self.hidden_size)

    @property
    def total_len(self) -> int:
        return self.prefix_len + self.seq_len

    @property
    def mlp_dim(self) -> int:
        """Inner size of the gated unit, rounded up to a multiple of 256 as in the original."""
        if self.intermediate_size:
            return self.intermediate_size
        return -(-round(self.expansion * self.hidden_size * 2 / 3) // 256) * 256

    def for_dataset(
        self, *, vocab_size: int, seq_len: int, num_puzzle_identifiers: int
    ) -> 'ModelConfig':
        """Returns this architecture with the sizes of a data set filled in.

        Raises:
          ConfigError: a size is already set and differs from the data set's.
        """
        sizes = {
            'vocab_size': vocab_size,
            'seq_len': seq_len,
            'num_puzzle_identifiers': num_puzzle_identifiers,
        }
        for name, size in sizes.items():
            _require(size > 0, f'the data set must state a {name} above 0; got {size}.')
            own = getattr(self, name)
            _require(
                own in (0, size),
                f'model.{name} is {own} but the data set has {size}. Leave it at 0 to take '
                f"the data set's, or use the data set that the model was made for.",
            )
        return dataclasses.replace(self, **sizes)


@dataclasses.dataclass(frozen=True)
class ActConfig:
    """Adaptive computation time (paper section 2; spec of the halting rules in act.py)."""

    halting: str = 'q_learning'
    halt_max_steps: int = 16
    halt_exploration_prob: float = 0.1

    def __post_init__(self):
        _require_choice('act.halting', self.halting, HALTINGS)
        _require_positive(**{'act.halt_max_steps': self.halt_max_steps})
        _require(
            0 <= self.halt_exploration_prob <= 1,
            f'act.halt_exploration_prob must lie in [0, 1]; got {self.halt_exploration_prob}.',
        )


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Loss of one ACT step: token loss + ``q_weight`` * (halt loss + continue loss)."""

    loss_type: str = 'stablemax_cross_entropy'
    q_weight: float = 0.5
    # The original counts rows without any scored cell (padding of the last evaluation batch)
    # as solved puzzles in the Q losses; True gives its numbers.
    count_empty_rows: bool = False

    def __post_init__(self):
        _require_choice('loss.loss_type', self.loss_type, LOSSES)
        _require_not_negative(**{'loss.q_weight': self.q_weight})


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the puzzles lie.

    ``format`` is found from the folder's content by default: ``records`` (made by
    ``python -m data_builders``) or ``npy_folder`` (made by the original's scripts).
    """

    path: str = ''
    format: str = 'auto'

    def __post_init__(self):
        _require_choice('data.format', self.format, DATA_FORMATS)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamATan2 for the weights, row-sparse sign-SGD for the puzzle table (optim.py)."""

    lr: float = 1e-4
    lr_min_ratio: float = 1.0
    lr_warmup_steps: int = 2000
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.1
    puzzle_emb_lr: float = 1e-2
    puzzle_emb_weight_decay: float = 0.1
    grad_clip_norm: float = 0.0  # 0: off, as in the original
    ema_decay: float = 0.0  # 0: off; evaluation and export use the average when it is on

    def __post_init__(self):
        _require_positive(**{'optimizer.lr': self.lr})
        _require_not_negative(**{
            f'optimizer.{name}': getattr(self, name)
            for name in ('lr_warmup_steps', 'weight_decay', 'puzzle_emb_lr',
                         'puzzle_emb_weight_decay', 'grad_clip_norm')
        })  # fmt: skip
        for name in ('beta1', 'beta2', 'ema_decay'):
            value = getattr(self, name)
            _require(0 <= value < 1, f'optimizer.{name} must lie in [0, 1); got {value}.')
        _require(
            0 <= self.lr_min_ratio <= 1,
            f'optimizer.lr_min_ratio must lie in [0, 1]; got {self.lr_min_ratio}.',
        )


@dataclasses.dataclass(frozen=True)
class EarlyStoppingConfig:
    """Stops when ``metric`` has not improved for ``patience`` evaluations (or log lines).

    ``metric`` is a name as it stands in metrics.jsonl, e.g. ``eval/all/exact_accuracy`` or
    ``train/lm_loss``; empty: never.
    """

    metric: str = ''
    mode: str = 'max'
    patience: int = 5
    min_delta: float = 0.0

    def __post_init__(self):
        _require_choice('train.early_stopping.mode', self.mode, ('max', 'min'))
        _require_positive(**{'train.early_stopping.patience': self.patience})
        _require_not_negative(**{'train.early_stopping.min_delta': self.min_delta})


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Length of the run and what happens when.

    An epoch visits every group of puzzles once, as the original counts it. The number of
    steps is ``epochs * groups * mean examples of a puzzle / global_batch_size``.
    """

    global_batch_size: int = 768
    epochs: int = 100000
    eval_interval: int = 10000  # epochs between evaluations; 0: only at the end
    max_steps: int = 0  # stops earlier, with the schedule of the whole run; 0: off
    log_every_steps: int = 10
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()

    def __post_init__(self):
        _require_positive(**{
            f'train.{name}': getattr(self, name)
            for name in ('global_batch_size', 'epochs', 'log_every_steps')
        })  # fmt: skip
        _require_not_negative(**{
            'train.eval_interval': self.eval_interval, 'train.max_steps': self.max_steps
        })  # fmt: skip


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Evaluation: every puzzle runs ``halt_max_steps`` ACT steps, as in the original."""

    split: str = 'test'
    global_batch_size: int = 0  # 0: the training batch size
    halt_max_steps: int = 0  # 0: as trained
    max_examples: int = 0  # 0: the whole split; otherwise the first ones of each set
    use_ema: bool = True  # evaluates the moving average where the run keeps one

    def __post_init__(self):
        _require_not_negative(**{
            f'eval.{name}': getattr(self, name)
            for name in ('global_batch_size', 'halt_max_steps', 'max_examples')
        })  # fmt: skip


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Which checkpoints are written and kept."""

    every_steps: int = 0  # besides those at every evaluation and at the end; 0: only those
    keep_latest: int = 2
    keep_best: int = 1
    best_metric: str = 'eval/all/exact_accuracy'
    best_mode: str = 'max'

    def __post_init__(self):
        _require_choice('checkpoint.best_mode', self.best_mode, ('max', 'min'))
        _require_positive(**{'checkpoint.keep_latest': self.keep_latest})
        _require_not_negative(**{
            'checkpoint.every_steps': self.every_steps, 'checkpoint.keep_best': self.keep_best
        })  # fmt: skip


@dataclasses.dataclass(frozen=True)
class LoggingConfig:
    """Where metrics go besides the console and metrics.jsonl."""

    tensorboard: bool = True
    wandb: bool = False
    wandb_project: str = 'hrm_jax'


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """One experiment, whole."""

    name: str = 'experiment'
    seed: int = 0
    model: ModelConfig = ModelConfig()
    act: ActConfig = ActConfig()
    loss: LossConfig = LossConfig()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    logging: LoggingConfig = LoggingConfig()

    def __post_init__(self):
        _require_not_negative(seed=self.seed)
        _require(
            self.train.eval_interval == 0 or self.train.epochs % self.train.eval_interval == 0,
            f'train.epochs must be a multiple of train.eval_interval; got {self.train.epochs} '
            f'and {self.train.eval_interval}.',
        )

    @property
    def eval_batch_size(self) -> int:
        return self.eval.global_batch_size or self.train.global_batch_size

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls, values: typing.Mapping[str, Any]) -> 'ExperimentConfig':
        """Builds the configuration from nested mappings (a ConfigDict, or parsed JSON).

        Raises:
          ConfigError: an unknown key (the nearest known one is named), a value of another
            type than the field's, or settings that contradict each other.
        """
        return _build(cls, values, path='')

    @classmethod
    def from_json(cls, text: str) -> 'ExperimentConfig':
        return cls.from_dict(json.loads(text))


def _build(cls: type, values: typing.Mapping[str, Any], path: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    kwargs = {}
    for name, value in values.items():
        full = f'{path}{name}'
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f' Did you mean {path}{near[0]}?' if near else ''
            known = ', '.join(sorted(fields))
            raise ConfigError(f'unknown config key {full}.{hint} Known here: {known}.')
        kwargs[name] = _coerce(hints[name], value, full)
    return cls(**kwargs)


def _coerce(hint: type, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if dataclasses.is_dataclass(value):
            value = dataclasses.asdict(value)
        _require(hasattr(value, 'items'), f'config key {path} must be a section; got {value!r}.')
        return _build(hint, value, f'{path}.')
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    origin = typing.get_origin(hint)
    if origin is tuple:
        return tuple(value)
    allowed = typing.get_args(hint) if origin in (types.UnionType, typing.Union) else (hint,)
    same = type(value) in allowed  # bool is an int, but no one means lr=True
    _require(
        same,
        f'config key {path} must be {" or ".join(t.__name__ for t in allowed)}; got '
        f'{value!r} ({type(value).__name__}).',
    )
    return value


def default_config_dict():
    """Returns the defaults as a locked ``ml_collections.ConfigDict``, for files in configs/."""
    from ml_collections import config_dict  # human side only: the core runs without it

    return config_dict.ConfigDict(ExperimentConfig().to_dict())
