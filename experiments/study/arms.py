"""Tasks and arms of the study, as configuration.

An arm is a baseline with some settings changed; its letter is that of the technique's source in
``TECHNIQUES``. Every arm of a task trains with the same FLOPs (runs.py), from the same data, with
the same optimizer unless the optimizer is what it changes.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from pathlib import Path
from typing import Any

from data_builders import maze, pathfinding, sudoku
from hrm_jax import locks
from hrm_jax.config import ExperimentConfig
from hrm_jax.errors import ConfigError

Settings = Mapping[str, Any]

# What every run has: the size of the quickstart, that of two CPU cores.
BASE: Settings = {
    'model.hidden_size': 64, 'model.num_heads': 2, 'model.intermediate_size': 128,
    'model.H_layers': 1, 'model.L_layers': 1, 'model.puzzle_emb_ndim': 64,
    'model.pos_encodings': 'learned', 'model.forward_dtype': 'float32',
    'act.halt_max_steps': 4, 'loss.loss_type': 'stablemax_cross_entropy',
    'optimizer.lr': 1e-3, 'optimizer.lr_warmup_steps': 100, 'optimizer.puzzle_emb_lr': 1e-3,
    'optimizer.lr_min_ratio': 0.1, 'optimizer.weight_decay': 1.0, 'optimizer.ema_decay': 0.99,
    'train.global_batch_size': 32, 'train.log_every_steps': 50, 'eval.global_batch_size': 100,
    'eval.max_examples': 200, 'checkpoint.keep_latest': 1, 'checkpoint.keep_best': 0,
    'checkpoint.every_steps': 250, 'logging.tensorboard': False,
}  # fmt: skip
HRM: Settings = {'model.H_cycles': 2, 'model.L_cycles': 2}
TRM: Settings = {
    'model.levels': 'shared', 'model.gradient_window': 'last_cycle', 'model.H_cycles': 2,
    'model.L_cycles': 3, 'act.halting': 'halt_only',
}  # fmt: skip
# Tests beside those at the trained depth and at four times that: name -> settings of ``eval``.
ROLLOUTS: Mapping[str, Settings] = {
    'rollouts by noise': {
        'eval.high_step_noise': 0.2, 'eval.rollouts.breadth': 8, 'eval.rollouts.select': 'q',
    },
}  # fmt: skip
STARTS: Mapping[str, Settings] = {
    'rollouts by starts': {'eval.rollouts.breadth': 8, 'eval.rollouts.select': 'residual'},
}


@dataclasses.dataclass(frozen=True)
class Task:
    """A task of the study.

    Attributes:
      name: of its folder.
      title: for tables.
      build: makes its data set in a folder; takes ``hints``, for the arm that needs them.
      flops: of the training of each run.
      measure: metric of ``eval/all/`` that counts: the share of puzzles that are solved.
      blank: token of open cells, for looped flows.
      hints: whether hint mixing is possible.
    """

    name: str
    title: str
    build: Callable[[str, bool], Any]
    flops: float
    measure: str
    blank: int
    hints: bool = False


def _sudoku(folder: str, hints: bool) -> None:
    sudoku.build(
        folder, source='generated', size=6, min_givens=18, max_givens=24, train_count=2000,
        test_count=500, num_aug=8, hints=hints, show=False,
    )  # fmt: skip


def _maze(folder: str, hints: bool) -> None:
    del hints
    maze.build(
        folder, source='generated', size=7, min_path=4, train_count=1200, test_count=500, aug=True,
        show=False,
    )  # fmt: skip


def _paths(folder: str, hints: bool) -> None:
    del hints
    pathfinding.build(folder, board_size=5, train_count=8000, val_count=500, show=False)


SUDOKU = Task('sudoku6', '6x6 Sudoku', _sudoku, 2.4e12, 'exact_accuracy', 1, hints=True)
MAZE = Task('maze7', 'Maze-Unique 7x7', _maze, 2.4e12, 'exact_accuracy', 2)
PATHS = Task('paths5', 'path finding 5x5', _paths, 3e12, 'shortest_path', 0)
TASKS = (SUDOKU, MAZE, PATHS)


@dataclasses.dataclass(frozen=True)
class Arm:
    """One row of the study.

    Attributes:
      name: of its folder and in tables.
      technique: letter of ``TECHNIQUES``; '': a baseline, or the combination.
      base: settings of its baseline.
      changes: on top of them.
      tests: further evaluations of the trained model, name -> settings.
      deep: its score is that at four times the trained depth (a sampler that needs steps).
      hints: trains on the task's data set with hints.
      only: name of the only task that it applies to; '': any.
    """

    name: str
    technique: str
    base: Settings = dataclasses.field(default_factory=lambda: TRM)
    changes: Settings = dataclasses.field(default_factory=dict)
    tests: Mapping[str, Settings] = dataclasses.field(default_factory=dict)
    deep: bool = False
    hints: bool = False
    only: str = ''

    def applies_to(self, task: Task) -> bool:
        return self.only in ('', task.name) and (task.hints or not self.hints)

    def settings(self, task: Task) -> dict[str, Any]:
        """The settings of its runs but data, length and seed."""
        own = {**BASE, **self.base, **self.changes}
        if own.get('model.flow'):
            own['model.flow_open_token'] = task.blank
        return own


BASELINES = (Arm('hrm', '', HRM), Arm('trm', '', tests=ROLLOUTS))
_MUON: Settings = {'optimizer.name': 'muon', 'optimizer.grad_clip_norm': 1.0}
_SMOOTH: Settings = {'loss.label_smoothing': 0.2, 'loss.loss_type': 'softmax_cross_entropy'}
_GATED: Settings = {'model.gated_unit': 'sigmoid_rms'}
# In the order in which they are run: should the budget end earlier, the last ones are not run.
TECHNIQUE_ARMS = (
    Arm('random starts', 'A', changes={'model.initial_state': 'random'}, tests=STARTS),
    Arm('eqr', 'A', tests=STARTS, changes={
        'model.initial_state': 'random', 'model.update_rate': 0.95, 'model.update_noise': 0.01,
    }),
    Arm('muon', 'C', changes=_MUON),
    Arm('label smoothing', 'C', changes=_SMOOTH),
    Arm('sic', 'C', changes={**_MUON, **_SMOOTH, **_GATED, 'loss.q_weight': 0.05}),
    Arm('flows', 'E', deep=True, changes={
        'model.flow': True, 'model.flow_pseudotarget_steps': 500, 'eval.flow_noise': 1.0,
        'optimizer.grad_clip_norm': 1.0,
    }),
    Arm('wta 4', 'D', changes={
        'model.chains': 4, 'model.chain_similarity': 0.95, 'model.align_chains': True,
        'model.initial_state': 'random_low',
    }),
    Arm('cgar', 'F', changes={'train.curriculum': 'cgar', 'loss.step_decay': 0.7}),
    # Digits are interchangeable; walls and floor are not.
    Arm('symbols', 'I', only='sudoku6', changes={
        'model.block': 'token_mixing', 'model.pos_encodings': 'none', 'model.puzzle_emb_ndim': 0,
        'model.hidden_size': 48, 'model.num_heads': 1, 'model.round_mlp': False,
        'model.intermediate_size': 0, 'model.symbol_exchange': 'mean',
        'model.symbol_input': 'roles',
    }),
    # The installed 9x9 model's block: what a cell hears is said, not learned.
    Arm('symbols and groups', 'I', only='sudoku6', changes={
        'model.block': 'group_mixing', 'model.pos_encodings': 'none', 'model.puzzle_emb_ndim': 0,
        'model.hidden_size': 32, 'model.num_heads': 1, 'model.intermediate_size': 64,
        'model.symbol_exchange': 'mean', 'model.symbol_input': 'roles',
    }),
    Arm('hints', 'H', hints=True),
    Arm('running mean', 'K', changes={
        'model.running_mean': True, 'model.mean_decay': 0.9, 'model.learned_mean_decay': True,
    }),
    Arm('gated unit', 'C', changes=_GATED),
    Arm('urm', 'G', changes={'model.levels': 'single', 'model.gated_unit': 'conv_swiglu'}),
    Arm('token mixing', '', changes={'model.block': 'token_mixing', 'model.pos_encodings': 'none'}),
)  # fmt: skip
TECHNIQUES = {
    'A': 'random starts; damping and noise (EqR, arXiv 2605.21488)',
    'B': 'rollouts at test time (PTRM, arXiv 2605.19943): the rows "... rollouts ..."',
    'C': 'Muon, label smoothing, gated unit of SIC (arXiv 2601.19085), alone and together',
    'D': 'winner takes all, four chains (same paper)',
    'E': 'looped flows (arXiv 2609.11801)',
    'F': 'CGAR: curriculum over cycles, weights over steps (arXiv 2511.08653)',
    'G': 'URM: one state, convolution in the gated unit (arXiv 2512.14693)',
    'H': 'hint mixing (Augmented HRM, arXiv 2601.10679)',
    'I': 'symbol equivariance (SE-RRM, arXiv 2603.02193; digit fields)',
    'J': 'learned search (LDT, arXiv 2605.08605)',
    'K': 'states that are running means (InfiLoop, arXiv 2610.11570; our reading)',
}
# Why a technique has no arm.
WITHOUT_ARM = {'J': 'another kind of training and inference, not a setting of this core'}


def unknown_settings(arm: Arm) -> list[str]:
    """Returns the settings of an arm that this version does not have."""
    known = ExperimentConfig().to_dict()
    found = []
    for key in {**arm.base, **arm.changes}:
        values: Any = known
        for name in key.split('.'):
            values = values.get(name) if isinstance(values, Mapping) else None
        if values is None:
            found.append(key)
    return found


def experiment(settings: Settings) -> ExperimentConfig:
    """Returns the configuration of flat settings, ``'model.hidden_size': 64``.

    Raises:
      ConfigError: they contradict each other, or one is unknown.
    """
    values: dict[str, Any] = {}
    for key, value in settings.items():
        inner, (*sections, name) = values, key.split('.')
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[name] = value
    return ExperimentConfig.from_dict(values)


def combination(ranked: Sequence[Arm]) -> tuple[Arm, list[str]]:
    """Merges arms, the best one first; one that contradicts those before it is left out.

    Returns:
      The arm and the names of those in it.
    """
    changes: dict[str, Any] = {}
    tests: dict[str, Settings] = {}
    taken: list[str] = []
    deep = False
    for arm in ranked:
        clashes = any(key in changes and changes[key] != arm.changes[key] for key in arm.changes)
        merged = {**changes, **arm.changes}
        try:
            experiment({**BASE, **TRM, **merged})
        except ConfigError:
            clashes = True
        if clashes or arm.hints or arm.only:
            continue
        changes, deep = merged, deep or arm.deep
        tests |= arm.tests
        taken.append(arm.name)
    return Arm('combination', '', changes=changes, tests=tests, deep=deep), taken


def data_folder(workdir: Path, task: Task, hints: bool) -> Path:
    """Returns the folder of a data set, which is built when it is missing."""
    folder = workdir / 'data' / (task.name + ('-hints' if hints else ''))
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Not the lock of the builder, which refuses a second one instead of waiting.
    with locks.exclusive(folder.parent / f'.{folder.name}.study', 'file', wait=True):
        if not folder.exists():
            task.build(str(folder), hints)
    return folder
