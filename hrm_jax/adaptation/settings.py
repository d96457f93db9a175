"""Settings of an adaptation, and the experiment that it trains: an ordinary one."""

import ast
from collections.abc import Mapping, Sequence
import dataclasses
import json
import math
import typing
from typing import TYPE_CHECKING, Any, Literal

from hrm_jax.config import ExperimentConfig, MeshConfig
from hrm_jax.config.checks import check_fields, require_not_negative, require_positive
from hrm_jax.errors import ConfigError

if TYPE_CHECKING:  # numpy is imported when tasks are read, not for --help
    from hrm_jax.data.metadata import DatasetMetadata

Adapt = Literal['all', 'table']
NewRows = Literal['mean', 'zeros']
_SPACINGS = 10  # a checkpoint every tenth of the steps; the last ones vote
_WATCHED = 128  # puzzles of an evaluation while it trains
_SPARE = 4  # checkpoints beside those that vote: stop signals save some of their own


@dataclasses.dataclass(frozen=True)
class Settings:
    """How new tasks are adapted to and answered.

    Attributes:
      adapt: what is trained: all weights, or the puzzle table only.
      rows: what the rows of new tasks begin with: the mean of the old rows, or zeros.
      steps: train steps of the adaptation (and of each fold).
      minutes: cap of the whole command; 0: none.
      augmentations: augmented versions of each task that are trained on.
      views: versions of each test that vote, the task as it stands first; 0: all.
      checkpoints: last checkpoints that vote.
      folds: runs before the adaptation, each with another demonstration of every task held out;
        what they answer is what the submission is expected to score. 0: none.
      seed: of augmentations, places and training.
      changes: settings of the experiment that are given, key -> value.
    """

    adapt: Adapt = 'all'
    rows: NewRows = 'mean'
    steps: int = 1000
    minutes: float = 0.0
    augmentations: int = 100
    views: int = 0
    checkpoints: int = 3
    folds: int = 1
    seed: int = 0
    changes: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self):
        check_fields(self, '--')
        require_positive(**{'--steps': self.steps, '--checkpoints': self.checkpoints})
        require_not_negative(**{
            '--minutes': self.minutes, '--augmentations': self.augmentations,
            '--views': self.views, '--folds': self.folds, '--seed': self.seed,
        })  # fmt: skip
        ConfigError.require(
            self.checkpoints <= _SPACINGS,
            f'--checkpoints must be at most {_SPACINGS}; got {self.checkpoints}.',
        )

    @property
    def every(self) -> int:
        """Steps between two checkpoints."""
        return max(1, self.steps // _SPACINGS)

    @property
    def voting_steps(self) -> list[int]:
        """Steps of the checkpoints that vote, the last one first."""
        steps = (self.steps - k * self.every for k in range(self.checkpoints))
        return [step for step in steps if step > 0]


def read_changes(texts: Sequence[str]) -> tuple[tuple[str, Any], ...]:
    """Reads settings of the experiment: ``optimizer.lr=1e-4``.

    Raises:
      ConfigError: one is not of this form.
    """
    found = []
    for text in texts:
        key, equals, value = text.partition('=')
        ConfigError.require(
            bool(key and equals), f'--set must be KEY=VALUE, such as optimizer.lr=1e-4; got {text}.'
        )
        try:
            found.append((key.removeprefix('config.'), ast.literal_eval(value)))
        except (ValueError, SyntaxError):
            found.append((key.removeprefix('config.'), value))
    return tuple(found)


def changed(config: ExperimentConfig, changes: Sequence[tuple[str, Any]]) -> ExperimentConfig:
    """Returns an experiment with some of its settings changed.

    Raises:
      ConfigError: an unknown key, or a value that does not fit.
    """
    values: Any = config.to_dict()
    for key, value in changes:
        *sections, name = key.split('.')
        place = values
        for section in sections:
            place = place.get(section)
            ConfigError.require(
                isinstance(place, Mapping), f'--set {key}: {section} is not a section.'
            )
        place[name] = value
    return ExperimentConfig.from_dict(json.loads(json.dumps(values)))


def experiment(
    base: ExperimentConfig,
    settings: Settings,
    metadata: 'DatasetMetadata',
    data: str,
    split: str,
    warm: bool,
) -> ExperimentConfig:
    """Returns the experiment of an adaptation.

    Args:
      base: that of the checkpoint, or a configuration to train from scratch.
      settings: of the adaptation.
      metadata: of the split 'train'.
      data: folder of the set.
      split: what is watched: 'test' (held-out demonstrations), or 'train' where there is none.
      warm: the weights come from a checkpoint.

    Raises:
      ConfigError: settings that contradict each other.
    """
    changes = dict(settings.changes)
    # The learning rate stays what it is after its warm-up, so that a run that the clock ends early
    # has lost nothing.
    base = changed(
        base,
        [
            ('optimizer.lr_min_ratio', 1.0),
            ('optimizer.lr_warmup_steps', settings.steps // 20),
            ('optimizer.freeze_weights', warm and settings.adapt == 'table'),
            ('train.puzzle_table', settings.rows),
            ('train.curriculum', 'none'),
            *settings.changes,
        ],
    )
    config = dataclasses.replace(
        base,
        name=f'{base.name}-adapted' if warm else base.name,
        seed=changes.get('seed', settings.seed),
        data=dataclasses.replace(base.data, path=data, source='', source_flags='', task='',
                                 format='auto'),
        model=dataclasses.replace(base.model, num_puzzle_identifiers=0, puzzle_tasks=0),
        mesh=MeshConfig(),
        checkpoint=dataclasses.replace(
            base.checkpoint, every_steps=settings.every, keep_best=0, directory='',
            keep_latest=settings.checkpoints + _SPARE,
        ),
    )  # fmt: skip
    batch = config.train.global_batch_size
    examples = metadata.total_groups * metadata.mean_puzzle_examples
    per_epoch = examples * config.act.steps_per_batch / batch
    interval = max(1, math.ceil(settings.steps / (4 * per_epoch)) + 1)
    watched = dataclasses.replace(
        config.eval, split=split, max_examples=0, subset=f'random{_WATCHED}-seed0',
        depth_multiples=(), save_outputs=(), identifiers='own',
        global_batch_size=min(config.eval_batch_size, _WATCHED),
        rollouts=type(config.eval.rollouts)(),
    )  # fmt: skip
    train = dataclasses.replace(
        config.train, epochs=4 * interval, eval_interval=interval if split == 'test' else 0,
        max_steps=settings.steps, early_stopping=type(config.train.early_stopping)(),
    )  # fmt: skip
    return dataclasses.replace(config, eval=watched, train=train)


def choices(kind: Any) -> tuple[str, ...]:
    """Values of one of this module's literals, for flags."""
    return typing.get_args(kind)
