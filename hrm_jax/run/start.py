"""The first state of a run: fresh, resumed, rewound, or warm (another run's weights)."""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import importlib.metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

import hrm_jax
from hrm_jax import train_state
from hrm_jax.checkpoint import compatible, layout, store
from hrm_jax.config.model import FACTOR_ROWS
from hrm_jax.errors import CheckpointError, DamagedCheckpoint
from hrm_jax.interop import formats
from hrm_jax.model import puzzle_table
from hrm_jax.run import branches, distributed
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


def begin(
    plan: Plan, workdir: Path, selector: str, log: Log, accept_data_change: bool = False
) -> Start:
    """Makes a new state, or restores one.

    Without ``selector`` the run resumes from the latest checkpoint of the workdir. A step,
    ``best``, ``latest`` or a folder inside the workdir rewinds to that checkpoint; with another
    learning rate or the like it is a branch (branches.py). A checkpoint
    from elsewhere gives a *new* workdir its weights, nothing else; when the workdir has
    checkpoints of its own the run resumes from those, so that a restarted job may keep the flag.

    Args:
      plan: of the run.
      workdir: its folder.
      selector: see above.
      log: prints a message.
      accept_data_change: resumes also where the training set is another one of the same sizes.

    Raises:
      CheckpointError: no such checkpoint, a damaged one, or one of another experiment.
    """
    layout.record_location(workdir, plan.config.checkpoint.directory)
    known = layout.steps(workdir)
    path = _own(selector, workdir) if selector else None
    if selector and path is None:
        if not known:
            return warm(plan, *formats.open_model(selector, workdir), log)
        log(f'--checkpoint={selector} was for the start only; {workdir} has its own.')
    if path is None and not known:
        return fresh(plan, workdir, log)
    restore = functools.partial(
        _restored, plan, accept=accept_data_change, log=log, workdir=workdir,
        rewinds=path is not None,
    )  # fmt: skip
    start = rewound(path, restore) if path is not None else resumed(workdir, known, restore, log)
    _record_branch(start, workdir)  # before anything is moved: a kill in between repeats it
    _set_aside_later(start.step, workdir, log)
    _note_versions(start.meta, log)
    log(f'resumed from step {start.step} of {start.path}')
    return start


def fresh(plan: Plan, workdir: Path, log: Log) -> Start:
    """A new run, from ``config.seed``."""
    log(f'new run in {workdir}')
    return Start(plan, _new_state(plan))


def _new_state(plan: Plan) -> TrainState:
    state = train_state.create(plan.config, plan.mesh)
    return state if plan.factors is None else train_state.with_factors(state, plan.factors)


def resumed(workdir: Path, known: list[int], restore: Callable[[Path], Start], log: Log) -> Start:
    """The newest checkpoint that can be read; damaged ones are named in a warning."""
    for step in sorted(known, reverse=True):
        path = layout.root(workdir) / layout.FOLDER / str(step)
        try:
            if distributed.is_joined():
                # One process looks for all: no process can restore what another cannot read.
                _all_can_read(path)
            return restore(path)
        except DamagedCheckpoint as error:
            if step == min(known):
                raise
            log(f'warning: {error.what}. Resuming from the one before.')
    raise AssertionError('known is not empty')


def rewound(path: Path, restore: Callable[[Path], Start]) -> Start:
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
    return restore(path)


def warm(plan: Plan, saved: store.SavedModel, path: Path, log: Log) -> Start:
    """A new run with the weights (and moving average) of another checkpoint, of any format."""
    config, state = plan.config, _new_state(plan)
    meta = saved.meta | {'config': saved.config.to_dict()}
    compatible.check_same_model(meta, config, path, free=('num_puzzle_identifiers', 'puzzle_tasks'))

    def place(new, like):
        return jax.tree.map(lambda n, old: jax.device_put(n, old.sharding), new, like)

    weights = saved.weights
    if state.weights.puzzle_table is not None:
        old, choice = weights.puzzle_table, config.train.puzzle_table
        if old is None:
            raise layout.damaged(path, FileNotFoundError('puzzle_table is missing'))
        rows, padded = config.model.embedding_rows, config.model.table_rows
        same = compatible.check_table(saved.meta, plan.data_facts, choice, path)
        kept = FACTOR_ROWS if plan.factors is not None else 0
        table = compatible.resize_table(old, rows, choice, same, kept)
        weights = weights.replace(puzzle_table=np.pad(table, ((0, padded - rows), (0, 0))))
        if plan.factors is not None:
            weights = weights.replace(
                constants={**weights.constants, puzzle_table.FACTORS: plan.factors}
            )
        if len(old) != rows or not same:
            log(f'the puzzle table has {rows} rows for new puzzles, {len(old)} before: {choice}')
    ema = state.ema
    if ema is not None:
        ema = place(weights.params if saved.ema is None else saved.ema, ema)
    log(f'new run with the weights of step {saved.step} of {path}')
    return Start(plan, state.replace(weights=place(weights, state.weights), ema=ema))


def _own(selector: str, workdir: Path) -> Path | None:
    """The checkpoint of this workdir that a selector names, or None: it is from elsewhere."""
    try:
        path = layout.resolve(selector, workdir)
    except CheckpointError:
        if selector in ('latest', 'best') or selector.isdecimal():
            raise
        return None
    return path if _is_inside(path, workdir) else None


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


def _branched(
    meta: Mapping[str, Any], plan: Plan, path: Path, workdir: Path, rewinds: bool, log: Log
) -> Mapping[str, Any]:
    """The metadata as a branch sees them; as they are where the run takes no other course."""
    found = branches.changes(meta, plan.config)
    known = found and (rewinds or branches.is_recorded(workdir, meta['step'], found))
    if not known:
        return meta
    log(f'branch at step {meta["step"]} of {path}: {branches.described(found)}')
    return branches.without(meta, found)


def _record_branch(start: Start, workdir: Path) -> None:
    if start.path is not None and distributed.is_first():
        found = branches.changes(layout.read_meta(start.path), start.plan.config)
        if found:
            branches.record(workdir, start.step, found)


def _note_versions(meta: Mapping[str, Any], log: Log) -> None:
    """Logs which packages changed since a checkpoint was written; numbers may differ in bits."""
    before, now = meta.get('versions') or {}, versions()
    changed = [
        f'{name} {before[name]} -> {now[name]}'
        for name in now
        if name in before and before[name] != now[name]
    ]
    if changed:
        log(f'note: other versions than when the checkpoint was written: {", ".join(changed)}')


def versions() -> dict[str, str]:
    """Versions of the packages that the numbers depend on."""
    names = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
    own = {'hrm_jax': hrm_jax.__version__}
    return {name: importlib.metadata.version(name) for name in names} | own


def _restored(
    plan: Plan, path: Path, accept: bool, log: Log, workdir: Path, rewinds: bool
) -> Start:
    """Restores a checkpoint of this experiment."""
    config, mesh = plan.config, plan.mesh
    meta = _branched(layout.read_meta(path), plan, path, workdir, rewinds, log)
    has_state = any((path / item).exists() for item in layout.TRAINING_ITEMS)
    if not layout.is_resumable(meta) or not (has_state or meta.get('has_digests')):
        raise CheckpointError(
            f'{path} has weights only (it was converted), so no run can be resumed from it. '
            f'Begin a new one with its weights: another --workdir and --checkpoint={path}'
        )
    metadata = dataclasses.asdict(plan.train_data.metadata)
    compatible.check_same_experiment(meta, config, metadata, path)
    compatible.check_same_content(meta, plan.data_facts['digest'], path, accept, log)
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
