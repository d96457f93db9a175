"""The first state of a run: new, continued, rewound, or new with another run's weights."""

from collections.abc import Callable, Mapping
import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hrm_jax import checkpoint, compatibility, distributed, puzzle_table, train_state
from hrm_jax.checkpoint import DamagedCheckpoint
from hrm_jax.compatibility import CheckpointError
from hrm_jax.config import ExperimentConfig
from hrm_jax.plan import Plan
from hrm_jax.types import TrainState


@dataclasses.dataclass(frozen=True)
class Start:
    """Where a run begins: its state and what a checkpoint knew about the log and the data.

    The plan is the one given, with the length that the run has had from its beginning.
    """

    plan: Plan
    state: TrainState
    step: int = 0
    data_position: Any = None
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    path: Path | None = None


def begin(plan: Plan, workdir: Path, selector: str, say: Callable[[str], None]) -> Start:
    """Makes a new state, or restores one.

    Without ``selector`` the latest checkpoint of the workdir goes on; where its files are
    damaged, the one before, and the damaged one is set aside. A step, ``best``,
    ``latest`` or a folder inside the workdir rewinds to that checkpoint; later ones are set
    aside. A checkpoint from elsewhere gives a *new* workdir its weights, nothing else; when
    the workdir has checkpoints of its own those go on, so that a restarted job may keep the
    flag.

    Raises:
      CheckpointError: no such checkpoint, a damaged one, or one of another experiment.
    """
    config, mesh = plan.config, plan.mesh
    checkpoint.settle(workdir, config.checkpoint.directory)
    known = checkpoint.steps(workdir)
    path = None
    if selector:
        path = checkpoint.resolve(selector, workdir)
        elsewhere = not _same(path.parent.parent, checkpoint.root(workdir))
        if not elsewhere and path.parent.name == checkpoint.SET_ASIDE:
            raise CheckpointError(
                f'{path} was set aside when the run took another course, and its log went with it, '
                f'so the run cannot go on from there. It can be evaluated (--mode=eval), and a new '
                f'run can begin with its weights: another --workdir and --checkpoint={path}'
            )
        if elsewhere and not known:
            state = train_state.create(config, mesh)
            return Start(plan, _with_weights_of(path, state, config, say))
        if elsewhere:
            say(f'--checkpoint={selector} was for the start only; {workdir} has its own.')
            path = None
    if path is not None:
        start = _restored(plan, path)
    elif known:
        start = _newest(plan, workdir, known, say)
    else:
        say(f'new run in {workdir}')
        return Start(plan, train_state.create(config, mesh))
    aside = checkpoint.set_aside_after(start.step, workdir) if distributed.is_first() else []
    distributed.wait_for_all('checkpoints set aside')
    if aside:
        where = checkpoint.root(workdir) / checkpoint.SET_ASIDE
        say(f'moved the checkpoints of steps {aside} to {where}')
    say(f'resumed from step {start.step} of {start.path}')
    return start


def _same(one: Path, other: Path) -> bool:
    return checkpoint.absolute(one) == checkpoint.absolute(other) or (
        isinstance(one, Path) and one.resolve() == other.resolve()
    )


def _newest(plan: Plan, workdir: Path, known: list[int], say: Callable[[str], None]) -> Start:
    """Goes on from the newest checkpoint that can be read; says which ones can not."""
    for step in sorted(known, reverse=True):
        path = checkpoint.root(workdir) / checkpoint.FOLDER / str(step)
        try:
            if distributed.is_joined():
                # One process looks for all: they can not read together what some can not read.
                _all_can_read(path)
            return _restored(plan, path)
        except DamagedCheckpoint as error:
            if step == min(known):
                raise
            say(f'warning: {error.what}. Going on from the one before.')
    raise AssertionError('known is not empty')


def _all_can_read(path: Path) -> None:
    """Raises DamagedCheckpoint on every process if the first one can not read it."""
    problem = None
    if distributed.is_first():
        try:
            checkpoint.read_arrays(path)
        except DamagedCheckpoint as error:
            problem = error
    if distributed.from_first(int(problem is not None)):
        raise problem or DamagedCheckpoint(f'process 0 can not read {path}')


def _restored(plan: Plan, path: Path) -> Start:
    """Restores a checkpoint of this experiment."""
    config, mesh = plan.config, plan.mesh
    meta = checkpoint.read_meta(path)
    if not (path / 'opt_state').exists():
        raise CheckpointError(
            f'{path} holds weights only (it was converted), so no run can go on from it. Begin a '
            f'new one with its weights: another --workdir and --checkpoint={path}'
        )
    metadata = dataclasses.asdict(plan.train_data.metadata)
    compatibility.check_same_experiment(meta, config, metadata, path)
    abstract, total = train_state.abstract(config, mesh), meta.get('total_steps', plan.total_steps)
    before, now = meta['config']['train']['global_batch_size'], config.train.global_batch_size
    if before == now:
        state, position = checkpoint.restore(path, abstract)
    else:  # train.change_batch_size: what is left of the examples, in batches of the new size
        state, position = checkpoint.restore(path, abstract, without=('carry',))
        state = dataclasses.replace(state, carry=train_state.create_carry(config, mesh))
        position = position | ({'given': 0} if 'given' in position else {})
        total = meta['step'] + -(-(total - meta['step']) * before // now)
    return Start(plan.lasting(total), state, meta['step'], position, meta, path)


def _with_weights_of(
    path: Path, state: TrainState, config: ExperimentConfig, say: Callable[[str], None]
) -> TrainState:
    """Replaces the weights of a new state by those of another run's checkpoint."""
    weights = checkpoint.restore_weights(path)
    compatibility.check_same_model(weights.meta, config, path, free=('num_puzzle_identifiers',))

    def place(new, like):
        return jax.tree.map(lambda n, old: jax.device_put(n, old.sharding), new, like)

    table = state.puzzle_table
    if table is not None:
        old, choice = weights.puzzle_table, config.train.puzzle_table
        rows = config.model.num_puzzle_identifiers
        new = puzzle_table.resize(old, rows, choice)
        if len(table) > rows:
            new = np.pad(new, ((0, len(table) - rows), (0, 0)))
        table = place(new, table)
        if len(old) != rows:
            say(f'the puzzle table has {rows} rows instead of {len(old)}: {choice}')
    params = place(weights.params, state.params)
    ema = state.ema
    if ema is not None:
        ema = place(weights.params if weights.ema is None else weights.ema, ema)
    say(f'new run with the weights of step {weights.step} of {path}')
    constants = place(weights.constants, state.constants)
    return dataclasses.replace(
        state, params=params, constants=constants, puzzle_table=table, ema=ema
    )
