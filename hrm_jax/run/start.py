"""The first state of a run: fresh, resumed, rewound, or warm (another run's weights)."""

from collections.abc import Callable, Mapping
import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hrm_jax import train_state
from hrm_jax.checkpoint import compatible, layout, store
from hrm_jax.errors import CheckpointError, DamagedCheckpoint
from hrm_jax.run import distributed
from hrm_jax.run.plan import Plan
from hrm_jax.types import TrainState

Log = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Start:
    """Where a run begins.

    Attributes:
      plan: the plan, with the length that the run has had from its beginning.
      state: the state of all arrays.
      step: train steps done.
      data_position: of the data iterator, or None at its beginning.
      meta: metadata of the checkpoint (log, early stopping, metrics); empty without one.
      path: of the checkpoint, or None.
    """

    plan: Plan
    state: TrainState
    step: int = 0
    data_position: Any = None
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    path: Path | None = None


def begin(plan: Plan, workdir: Path, selector: str, log: Log) -> Start:
    """Makes a new state, or restores one.

    Without ``selector`` the run resumes from the latest checkpoint of the workdir. A step,
    ``best``, ``latest`` or a folder inside the workdir rewinds to that checkpoint. A checkpoint
    from elsewhere gives a *new* workdir its weights, nothing else; when the workdir has
    checkpoints of its own the run resumes from those, so that a restarted job may keep the flag.

    Raises:
      CheckpointError: no such checkpoint, a damaged one, or one of another experiment.
    """
    layout.record_location(workdir, plan.config.checkpoint.directory)
    known = layout.steps(workdir)
    path = layout.resolve(selector, workdir) if selector else None
    if path is not None and not _is_inside(path, workdir):
        if not known:
            return warm(plan, path, log)
        log(f'--checkpoint={selector} was for the start only; {workdir} has its own.')
        path = None
    if path is None and not known:
        return fresh(plan, workdir, log)
    start = rewound(plan, path) if path is not None else resumed(plan, workdir, known, log)
    _set_aside_later(start.step, workdir, log)
    log(f'resumed from step {start.step} of {start.path}')
    return start


def fresh(plan: Plan, workdir: Path, log: Log) -> Start:
    """A new run, from ``config.seed``."""
    log(f'new run in {workdir}')
    return Start(plan, train_state.create(plan.config, plan.mesh))


def resumed(plan: Plan, workdir: Path, known: list[int], log: Log) -> Start:
    """The newest checkpoint that can be read; damaged ones are named in a warning."""
    for step in sorted(known, reverse=True):
        path = layout.root(workdir) / layout.FOLDER / str(step)
        try:
            if distributed.is_joined():
                # One process looks for all: no process can restore what another cannot read.
                _all_can_read(path)
            return _restored(plan, path)
        except DamagedCheckpoint as error:
            if step == min(known):
                raise
            log(f'warning: {error.what}. Resuming from the one before.')
    raise AssertionError('known is not empty')


def rewound(plan: Plan, path: Path) -> Start:
    """An earlier checkpoint of this run.

    Raises:
      CheckpointError: it was set aside, and the log went with it.
    """
    if path.parent.name == layout.SET_ASIDE:
        raise CheckpointError(
            f'{path} was set aside when the run took another course, and its log went with it, '
            f'so the run cannot be resumed from there. It can be evaluated (--mode=eval), and a '
            f'new run can begin with its weights: another --workdir and --checkpoint={path}'
        )
    return _restored(plan, path)


def warm(plan: Plan, path: Path, log: Log) -> Start:
    """A new run with the weights (and moving average) of another run's checkpoint."""
    config, state = plan.config, train_state.create(plan.config, plan.mesh)
    saved = store.read_model(path)
    compatible.check_same_model(saved.meta, config, path, free=('num_puzzle_identifiers',))

    def place(new, like):
        return jax.tree.map(lambda n, old: jax.device_put(n, old.sharding), new, like)

    weights = saved.weights
    if state.weights.puzzle_table is not None:
        old, choice = weights.puzzle_table, config.train.puzzle_table
        if old is None:
            raise layout.damaged(path, FileNotFoundError('puzzle_table is missing'))
        rows, padded = config.model.num_puzzle_identifiers, config.model.table_rows
        table = compatible.resize_table(old, rows, choice)
        weights = weights.replace(puzzle_table=np.pad(table, ((0, padded - rows), (0, 0))))
        if len(old) != rows:
            log(f'the puzzle table has {rows} rows instead of {len(old)}: {choice}')
    ema = state.ema
    if ema is not None:
        ema = place(weights.params if saved.ema is None else saved.ema, ema)
    log(f'new run with the weights of step {saved.step} of {path}')
    return Start(plan, state.replace(weights=place(weights, state.weights), ema=ema))


def _is_inside(path: Path, workdir: Path) -> bool:
    """Whether a checkpoint is one of this workdir's."""
    one, other = path.parent.parent, layout.root(workdir)
    return layout.absolute(one) == layout.absolute(other) or (
        isinstance(one, Path) and one.resolve() == other.resolve()
    )


def _set_aside_later(step: int, workdir: Path, log: Log) -> None:
    """Moves checkpoints later than ``step`` out of the way."""
    aside = layout.set_aside_after(step, workdir) if distributed.is_first() else []
    distributed.wait_for_all('checkpoints set aside')
    if aside:
        log(f'moved the checkpoints of steps {aside} to {layout.root(workdir) / layout.SET_ASIDE}')


def _all_can_read(path: Path) -> None:
    """Raises DamagedCheckpoint on every process if the first one cannot read it."""
    problem = None
    if distributed.is_first():
        try:
            store.read_arrays(path)
        except DamagedCheckpoint as error:
            problem = error
    if distributed.from_first(int(problem is not None)):
        raise problem or DamagedCheckpoint(f'process 0 cannot read {path}')


def _restored(plan: Plan, path: Path) -> Start:
    """Restores a checkpoint of this experiment."""
    config, mesh = plan.config, plan.mesh
    meta = layout.read_meta(path)
    if not (path / 'opt_state').exists():
        raise CheckpointError(
            f'{path} holds weights only (it was converted), so no run can be resumed from it. '
            f'Begin a new one with its weights: another --workdir and --checkpoint={path}'
        )
    metadata = dataclasses.asdict(plan.train_data.metadata)
    compatible.check_same_experiment(meta, config, metadata, path)
    abstract, total = train_state.abstract(config, mesh), meta.get('total_steps', plan.total_steps)
    before, now = meta['config']['train']['global_batch_size'], config.train.global_batch_size
    if before == now:
        state, position = store.restore(path, abstract)
    else:  # train.change_batch_size: what is left of the examples, in batches of the new size
        state, position = store.restore(path, abstract, without=('carry',))
        state = state.replace(carry=train_state.create_carry(config, mesh))
        position = position | ({'given': 0} if 'given' in position else {})
        total = meta['step'] + -(-(total - meta['step']) * before // now)
    return Start(plan.lasting(total), state, meta['step'], position, meta, path)
