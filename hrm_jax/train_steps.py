"""Several train steps in one call of the device, so that the host is asked less often."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from hrm_jax import partitioning, types
from hrm_jax.config import ExperimentConfig
from hrm_jax.train_step import jit_on, train_step
from hrm_jax.types import Batch, Sums, TrainState


def make_train_steps(
    config: ExperimentConfig, total_steps: int, mesh: Mesh
) -> Callable[[TrainState, tuple[Batch, ...]], tuple[TrainState, tuple[Sums, ...]]]:
    """Jits ``train_step`` for one batch after another; the state passed in is donated.

    Each number of batches is a program of its own, compiled when it is first called.

    Args:
      config: the experiment.
      total_steps: length of the learning-rate schedule.
      mesh: where the state lies.

    Returns:
      (state, batches) -> (state after the last of them, the sums of every step).
    """

    def step(state, batch):
        return train_step(config, total_steps, state, batch)

    def rows(x):
        return partitioning.constrain(x, (None, types.BATCH, *[None] * (x.ndim - 2)))

    def steps(state, batches):
        if len(batches) == 1:
            state, sums = step(state, batches[0])
            return state, (sums,)
        stacked = jax.tree.map(lambda *x: rows(jnp.stack(x)), *batches)
        state, sums = jax.lax.scan(step, state, stacked)
        return state, tuple(jax.tree.map(lambda x, i=i: x[i], sums) for i in range(len(batches)))

    return jit_on(mesh, config, steps)
