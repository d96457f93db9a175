"""What a run needs, and how long it takes: nothing of it is written."""

from collections.abc import Callable
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp

from hrm_jax import curriculum, partitioning, train_state, train_step
from hrm_jax.config import ExperimentConfig
from hrm_jax.data import pipeline
from hrm_jax.run import summary
from hrm_jax.run.plan import Plan, make_plan
from hrm_jax.run.progress import duration
from hrm_jax.run.step_log import duration_note

_DEFAULT_STEPS = 3
# Up to so many FLOPs steps are timed without being asked for: seconds on two CPU cores, and on an
# accelerator.
_QUICK = {'cpu': 1e11, 'gpu': 1e14, 'tpu': 1e14}
_ENOUGH = 20.0  # seconds, after which no further step is timed
_MEASURE, _MOST_PRODUCTS = 0.3, 100  # seconds and products for the speed of a matrix product


def dry_run(
    config: ExperimentConfig,
    log: Callable[[str], None] = print,
    time_steps: int | None = None,
) -> None:
    """Prints what a run would need: parameters, memory, steps, size of a checkpoint, time.

    Compiles the train step for the devices at hand; touches no workdir.

    Args:
      config: the experiment.
      log: prints a message.
      time_steps: train steps to run and time; 0: makes no array. None: a few, where they are quick.
    """
    plan = make_plan(config)
    step = train_step.make_train_step(plan.config, plan.total_steps, plan.mesh)
    abstract = train_state.abstract(plan.config, plan.mesh)
    timed = functools.partial(describe, plan, count=time_steps)
    log(summary.dry_run(plan, abstract, step, timed))


def describe(plan: Plan, compiled: Callable[..., Any], count: int | None = None) -> str:
    """Returns how long the run of a plan takes on this machine.

    Args:
      plan: of the run.
      compiled: the compiled train step; takes the state over.
      count: train steps to time; 0: none; None: a few, where they are quick.
    """
    work = _flops_of_a_step(plan)
    if count is None:
        if not _is_quick(work) or jax.process_count() > 1:
            return _bound(plan)
        count = _DEFAULT_STEPS
    if not count:
        return ''
    seconds = _seconds_of_a_step(plan, compiled, count)
    whole = seconds * plan.last_step
    text = (
        f'time: {duration(whole)} for {plan.last_step:,} steps at {1 / seconds:.3g} steps/s, '
        f'measured here; evaluations and saves come on top'
    )
    note = duration_note(whole, 1 / seconds)
    return f'{text}\n{note}' if note else text


def warning(plan: Plan) -> str:
    """A sentence where a run takes longer than anybody waits, known before its first step."""
    if _is_quick(_flops_of_a_step(plan)):
        return ''
    seconds = _flops_of_a_step(plan) / _flops_per_second(plan) * plan.last_step
    return duration_note(seconds, plan.last_step / seconds, 'at best ')


def _bound(plan: Plan) -> str:
    """Text on the time of a run if nothing but its matrix products took time."""
    work, rate = _flops_of_a_step(plan), _flops_per_second(plan)
    seconds = work / rate * plan.last_step
    text = (
        f'time: {duration(seconds)} at best for {plan.last_step:,} steps of {work / 1e9:,.0f} '
        f'GFLOP, as this machine multiplies matrices with {rate / 1e9:,.0f} GFLOP/s now; '
        f'--time-steps={_DEFAULT_STEPS} runs and times a few steps'
    )
    note = duration_note(seconds, plan.last_step / seconds, 'at best ')
    return f'{text}\n{note}' if note else text


def _flops_of_a_step(plan: Plan) -> int:
    return round(curriculum.flops_of_a_step(plan.config))


def _is_quick(work: int) -> bool:
    return work <= _QUICK.get(jax.default_backend(), 0)


@functools.cache
def _measured(size: int, dtype: str) -> float:
    """FLOP/s of a matrix product on one device."""
    one = jnp.ones((size, size), dtype)
    multiply = jax.jit(jnp.matmul)
    multiply(one, one).block_until_ready()
    began, times = time.perf_counter(), 0
    while time.perf_counter() - began < _MEASURE and times < _MOST_PRODUCTS:
        multiply(one, one).block_until_ready()
        times += 1
    return 2.0 * size**3 * times / (time.perf_counter() - began)


def _flops_per_second(plan: Plan) -> float:
    """FLOP/s of matrix products on all devices of the run."""
    on_cpu = jax.default_backend() == 'cpu'
    rate = _measured(1024 if on_cpu else 4096, plan.config.model.forward_dtype)
    # The devices that XLA makes of a CPU for tests share its cores.
    return rate * (1 if on_cpu else plan.mesh.devices.size)


def _seconds_of_a_step(plan: Plan, compiled: Callable[..., Any], count: int) -> float:
    config, mesh = plan.config, plan.mesh
    rows = config.train.global_batch_size
    data = pipeline.train_iterator(
        plan.train_data, rows, config.seed, partitioning.process_rows(mesh, rows),
        config.data.augmentation, visits=config.act.steps_per_batch,
        hint_prob=config.loader_hint_prob,
    )  # fmt: skip
    state = train_state.create(config, mesh)
    times: list[float] = []
    for _ in range(count + 1):  # the first one warms up
        batch = partitioning.put_global(next(data), mesh)
        began = time.perf_counter()
        state, sums = compiled(state, batch)
        jax.block_until_ready(sums)
        times.append(time.perf_counter() - began)
        if sum(times) > _ENOUGH:
            break
    return min(times[1:] or times)
