"""Training, from the data to the last checkpoint: the page to read first.

``train`` is the whole story. A run may die anywhere: the same command goes on from the last
checkpoint and ends with the same numbers as if nothing had happened, bit for bit on the same
number of CPU devices; GPU kernels may add in another order from run to run.
"""

from collections.abc import Callable
import contextlib
import dataclasses
import functools
import importlib.metadata
import os
from pathlib import Path
import time
from typing import Any

import jax
import jax.numpy as jnp

from hrm_jax import begin as begin_lib
from hrm_jax import (
    checkpoint,
    distributed,
    partitioning,
    summary,
    train_state,
    train_step,
    train_steps,
)
from hrm_jax import plan as plan_lib
from hrm_jax import workdir as workdir_lib
from hrm_jax.config import ExperimentConfig
from hrm_jax.data import pipeline, segments
from hrm_jax.early_stopping import EarlyStopping
from hrm_jax.evaluate import describe, evaluate, make_step, weights_of
from hrm_jax.saver import Saver
from hrm_jax.step_log import StepLog
from hrm_jax.types import TrainState
from hrm_jax.writers import NoWriters, Progress, Writers

Say = Callable[[str], None]
_SLOW_SAVE = 30.0  # seconds that training waits for the storage before it says so


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
      step: train steps done, all of them in the last checkpoint.
      metrics: of the evaluation after the last step, ``eval/<set>/<metric>``; else empty.
      signal: 'SIGTERM' or 'SIGINT' if one ended it, else ''.
      state: the state after the last step.
    """

    step: int
    metrics: dict[str, float]
    signal: str
    state: TrainState


def train(
    config: ExperimentConfig,
    workdir: str | os.PathLike,
    selector: str = '',
    say: Say = functools.partial(print, flush=True),
    start_timeout: int = distributed.START_TIMEOUT,
) -> Outcome:
    """Trains a model, or goes on training it.

    Args:
      config: the experiment.
      workdir: folder of the run; one process at a time.
      selector: checkpoint to begin from (begin.py); empty: the latest of the workdir, if any.
      say: prints a message; only that of the first process is asked.
      start_timeout: seconds that processes wait for each other before the first step.

    Raises:
      ConfigError, DatasetError, CheckpointError, WorkdirError, ClusterError: what is wrong and
        what to do.
      FloatingPointError: the loss or the weights are no longer finite.
    """
    first = distributed.is_first()
    say = say if first else lambda _message: None
    with contextlib.ExitStack() as resources:
        with distributed.arrival(start_timeout) as facts:
            plan = plan_lib.make_plan(config)
            config, mesh = plan.config, plan.mesh
            workdir = workdir_lib.prepare(workdir)
            if first:
                resources.enter_context(workdir_lib.lock(workdir))
            facts |= plan_lib.facts(plan)
        stop = resources.enter_context(distributed.stop_request())
        start = begin_lib.begin(plan, workdir, selector, say)
        plan, state, step = start.plan, start.state, start.step
        scores = start.meta.get('metrics', {})
        data = pipeline.train_iterator(
            plan.train_data,
            config.train.global_batch_size,
            config.seed,
            partitioning.process_rows(mesh, config.train.global_batch_size),
            config.data.augmentation,
        )
        data = segments.hold(data, config.act.steps_per_batch)
        if start.data_position is not None:
            data.set_state(start.data_position)
        run_train_steps = train_steps.make_train_steps(config, plan.total_steps, mesh)
        run_eval_step = make_step(config, mesh)

        saver = resources.enter_context(Saver(workdir, config.checkpoint))
        writers = NoWriters()
        if first:
            workdir_lib.write_atomically(workdir / 'config.json', config.to_json() + '\n')
            writers = Writers(workdir, config, step, start.meta.get('record'), say)
        resources.callback(writers.close)
        early = EarlyStopping(config.train.early_stopping)
        log = StepLog(config, plan.total_steps, writers, early)
        if start.meta:
            early.set_state(start.meta['early_stopping'])
            log.set_state(start.meta['log'])
        _announce(plan, state, step, say)

        def evaluate_now() -> dict[str, float]:
            """Evaluates and logs; empty when a stop signal cut it off."""
            began = time.perf_counter()
            weights = weights_of(
                config, state.params, state.ema, state.constants, state.puzzle_table
            )
            values = evaluate(config, run_eval_step, weights, plan.eval_data, mesh, stop.agreed)
            if not values:
                return {}
            log.note_evaluation(step, values, time.perf_counter() - began)
            return values

        def description() -> dict[str, Any]:
            """What a checkpoint says about itself; all that the arrays do not hold."""
            return {
                'step': step,
                'total_steps': plan.total_steps,
                'config': config.to_dict(),
                'dataset': dataclasses.asdict(plan.train_data.metadata),
                'metrics': scores,
                'record': writers.log.held,
                'log': log.get_state(),
                'early_stopping': early.get_state(),
                'versions': _versions(),
            }

        if step and plan.evaluates_after(step) and not scores:
            scores = evaluate_now()  # the one that a stop signal had cut off
            if scores and first:
                checkpoint.add_evaluation(start.path, description())
        try:
            ends = bool(stop) or early.should_stop
            while step < plan.last_step and not ends:
                count = plan.steps_at_once(step)
                batches = tuple(partitioning.put_global(next(data), mesh) for _ in range(count))
                if log.progress is None:
                    state, sums = _first_step(run_train_steps, state, batches, say)
                    bar = Progress('train', plan.last_step, step)
                    log.start(resources.enter_context(bar))
                else:
                    state, sums = run_train_steps(state, batches)
                step += count
                log.note(step, *sums)
                ends = stop.agreed() or early.should_stop
                if not ends and not plan.saves_after(step):
                    saver.check()
                    continue
                log.catch_up()
                _check_finite(state, step)
                scores = {}
                if not stop and (plan.evaluates_after(step) or early.should_stop):
                    scores = evaluate_now()
                    ends = bool(stop) or early.should_stop
                writers.flush()
                began = time.perf_counter()
                saver.save(state, data.get_state(), description())
                _note_a_slow_save(writers, step, time.perf_counter() - began, say)
                log.restart_clock()
            log.close()
            saver.wait()
        except FloatingPointError as error:
            raise FloatingPointError(f'{error}. {saver.advice_after_a_broken_step()}') from error
        say(_farewell(plan, step, scores, stop, early, workdir))
        return Outcome(step, scores, stop.name, state)


def dry_run(config: ExperimentConfig, say: Say = print) -> None:
    """Says what a run would need: parameters, memory, steps, size of a checkpoint.

    Compiles the train step for the devices at hand; makes no array and touches no workdir.
    """
    plan = plan_lib.make_plan(config)
    step = train_step.make_train_step(plan.config, plan.total_steps, plan.mesh)
    abstract = train_state.abstract(plan.config, plan.mesh)
    say(
        summary.dry_run(
            plan.config, abstract, step, plan.last_step, plan.number_of_evaluations, plan.mesh
        )
    )


def _announce(plan: plan_lib.Plan, state: TrainState, step: int, say: Say) -> None:
    data = plan.train_data
    say(f'{plan.config.name}: {partitioning.describe(plan.mesh)}, jax {jax.__version__}')
    say(f'data: {data.path}, {data.metadata.total_groups:,} groups of puzzles')
    say(f'parameters:\n{summary.parameters(state)}')
    say(
        f'steps: {plan.last_step:,}, {step:,} of them done; '
        f'{plan.config.train.global_batch_size:,} examples each'
    )


def _note_a_slow_save(writers: Writers | NoWriters, step: int, seconds: float, say: Say) -> None:
    """Training goes on while a save is written, but waits for the one before."""
    writers.timing(step, save_seconds=seconds)
    if seconds > _SLOW_SAVE:
        say(
            f'note: training waited {seconds:.0f} s for the save before step {step}. Raise '
            f'checkpoint.every_steps, or use faster storage.'
        )


def _first_step(run_train_steps, state: TrainState, batches: tuple[Any, ...], say: Say):
    """Runs the step that compiles the program, and says how long that took."""
    say('compiling the train step ...')
    began = time.perf_counter()
    state, sums = run_train_steps(state, batches)
    jax.block_until_ready(sums)
    say(f'compiled, and ran the first step, in {time.perf_counter() - began:.1f} s')
    return state, sums


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(x).all() for x in floats]).all()


def _check_finite(state: TrainState, step: int) -> None:
    """Raises FloatingPointError before a broken state could replace good checkpoints."""
    if not _all_finite((state.params, state.puzzle_table, state.opt_state, state.carry)):
        raise FloatingPointError(f'the weights or the state after step {step} are not finite')


def _versions() -> dict[str, str]:
    names = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
    return {name: importlib.metadata.version(name) for name in names}


def _farewell(
    plan: plan_lib.Plan,
    step: int,
    scores: dict[str, float],
    stop: workdir_lib.StopRequest,
    early: EarlyStopping,
    workdir: Path,
) -> str:
    lines = [describe(scores)] if scores else []
    where = f'checkpoint: {checkpoint.root(workdir) / checkpoint.FOLDER / str(step)}'
    if stop:
        lines.append(f'{stop.name}: stopped after step {step} of {plan.last_step}; {where}')
        lines.append('The same command goes on from there.')
    elif early.should_stop:
        lines.append(f'stopped early after step {step}: {early.reason}; {where}')
    else:
        lines.append(f'done: {step} steps; {where}')
    return '\n'.join(lines)
