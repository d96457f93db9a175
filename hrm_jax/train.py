"""The training loop, from the data to the last checkpoint: the module to read first.

``train`` is the whole loop. A run may be interrupted anywhere: the same command resumes from the
last checkpoint and ends with the same numbers as an uninterrupted run, bit for bit on the same
number of CPU devices; GPU kernels may add in another order from run to run.
"""

import dataclasses
import functools
import math
import os
import time
from typing import Any

import jax
import jax.numpy as jnp

from hrm_jax import evaluate, partitioning, train_step
from hrm_jax.config import ExperimentConfig
from hrm_jax.data import pipeline
from hrm_jax.run import device_memory, distributed
from hrm_jax.run.session import Log, Session, open_session
from hrm_jax.types import TrainState


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
      step: train steps done, all of them in the last checkpoint.
      metrics: of the evaluation after the last step, ``eval/<set>/<metric>``; else empty.
      signal: 'SIGTERM', 'SIGINT', 'SIGHUP' or 'SIGPIPE' (a closed pipe) if one ended it,
        'time limit' if the deadline did, else ''.
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
    log: Log = functools.partial(print, flush=True),
    start_timeout: int = distributed.START_TIMEOUT,
    accept_data_change: bool = False,
    deadline: float = math.inf,
) -> Outcome:
    """Trains a model, or resumes its training.

    Args:
      config: the experiment.
      workdir: folder of the run; one process at a time.
      selector: checkpoint to begin from (run/start.py); empty: the latest of the workdir, if any.
      log: prints a message; only that of the first process is called.
      start_timeout: seconds that processes wait for each other before the first step.
      accept_data_change: resumes also where the training set is another one of the same sizes.
      deadline: of ``time.monotonic()``; the run then ends as after a stop signal.

    Raises:
      UserError: ConfigError, DatasetError, CheckpointError, WorkdirError, ClusterError; what is
        wrong and what to do.
      FloatingPointError: the loss or the weights are no longer finite.
    """
    with open_session(config, workdir, selector, log, start_timeout, accept_data_change) as run:
        run.stop.deadline = deadline
        plan, state, step = run.plan, run.start.state, run.start.step
        config, mesh = plan.config, plan.mesh
        scores = dict(run.start.meta.get('metrics', {}))
        data = pipeline.train_iterator(
            plan.train_data,
            config.train.global_batch_size,
            config.seed,
            partitioning.process_rows(mesh, config.train.global_batch_size),
            config.data.augmentation,
            visits=config.act.steps_per_batch,
            hint_prob=config.loader_hint_prob,
        )
        if run.start.data_position is not None:
            data.set_state(run.start.data_position)
        train_steps = train_step.make_train_steps(config, plan.total_steps, mesh)
        eval_step = evaluate.make_step(config, mesh)

        if step and plan.evaluates_after(step) and not scores:
            scores = _evaluate(run, eval_step, state, step)  # a stop signal had interrupted it
            if scores:
                run.add_scores(step, scores)
        try:
            ends = run.ends
            while step < plan.last_step and not ends:
                count = plan.steps_at_once(step)
                batches = tuple(partitioning.put_global(next(data), mesh) for _ in range(count))
                state, sums = run.run_steps(train_steps, state, batches, step)
                step += count
                run.log_steps(step, sums)
                ends = run.agree_to_end()
                if not (ends or plan.saves_after(step) or run.save_is_due()):
                    continue
                run.catch_up()
                _check_finite(state, step)
                scores = {}
                if not run.stop and (plan.evaluates_after(step) or run.stops_early):
                    scores = _evaluate(run, eval_step, state, step)
                    ends = run.ends
                run.save(state, step, data.get_state(), scores)
            run.finish(step, scores, lambda: run.save(state, step, data.get_state(), scores))
        except FloatingPointError as error:
            raise FloatingPointError(f'{error}. {run.advice_after_a_broken_step()}') from error
        return Outcome(step, scores, run.stop.name, state)


def _evaluate(
    run: Session, eval_step: evaluate.EvalStep, state: TrainState, step: int
) -> dict[str, float]:
    """Evaluates and logs; returns the metrics, empty when a stop signal interrupted it."""
    began = time.perf_counter()
    config, mesh = run.plan.config, run.plan.mesh
    weights = state.weights.averaged(state.ema if config.eval.use_ema else None)
    with device_memory.explained(config, 'an evaluation'):
        values = evaluate.evaluate(
            config, eval_step, weights, run.plan.eval_data, mesh, run.stop.agreed
        )
    if not values:
        return {}
    run.log_evaluation(step, values, time.perf_counter() - began)
    return values


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(x).all() for x in floats]).all()


def _check_finite(state: TrainState, step: int) -> None:
    """Raises FloatingPointError before a broken state could replace good checkpoints."""
    weights = state.weights
    if not _all_finite((weights.params, weights.puzzle_table, state.opt_state, state.carry)):
        raise FloatingPointError(f'the weights or the state after step {step} are not finite')
