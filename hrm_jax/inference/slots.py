"""What early exit keeps between two ACT steps and between two calls: slots, queue, answers."""

import dataclasses

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from hrm_jax import eval_step
from hrm_jax.config import ExperimentConfig
from hrm_jax.model import starts
from hrm_jax.types import IGNORE_LABEL_ID, Batch, LatentState, Sums


class Slots(struct.PyTreeNode):
    """Puzzles in progress.

    Attributes:
      latent: state of every slot.
      batch: the puzzle in every slot.
      number: int32 [B], its number in the whole stream; -1: the slot is idle.
      steps: int32 [B], ACT steps spent on it.
      changes: the last changes of its logits, or None where nothing is selected by them.
    """

    latent: LatentState
    batch: Batch
    number: jax.Array
    steps: jax.Array
    changes: 'Changes | None' = None


class Changes(struct.PyTreeNode):
    """How much the logits of every slot changed at its last steps.

    Attributes:
      logits: float32 [B, S, V], of the step before.
      window: float32 [B, W], the last W changes, in no order; 0 where there were fewer.
    """

    logits: jax.Array
    window: jax.Array

    def after(self, logits_BSV: jax.Array, steps_B: jax.Array) -> tuple['Changes', jax.Array]:
        """Takes in a step (EqR, evaluators/eval_fn.py: the convergence score).

        A change is the mean over cells of the norm over the vocabulary.

        Args:
          logits_BSV: of the step.
          steps_B: int32, its number from 1; the first one has nothing to be compared with.

        Returns:
          The changes with this one, and the mean over the window, float32 [B]; infinity at step 1.
        """
        logits_BSV = logits_BSV.astype(jnp.float32)
        change_B = jnp.linalg.norm(logits_BSV - self.logits, axis=-1).mean(-1)
        first_B, size = steps_B <= 1, self.window.shape[1]
        newest_BW = jnp.arange(size) == ((steps_B - 2) % size)[:, None]
        window = jnp.where(newest_BW, change_B[:, None], self.window)
        window = jnp.where(first_B[:, None], 0.0, window)
        mean_B = window.sum(1) / jnp.clip(steps_B - 1, 1, size)
        return Changes(logits_BSV, window), jnp.where(first_B, jnp.inf, mean_B)


class Finished(struct.PyTreeNode):
    """Answers in the order in which they were ready; the first ``count`` rows are real.

    Attributes:
      count: int32 [].
      number: int32 [M], number of the puzzle in the stream.
      predictions: int32 [M, S].
      q_halt, q_continue: float32 [M], logits at the last step.
      steps: int32 [M], ACT steps spent.
      change: float32 [M], mean of the last changes of the logits, or None.
    """

    count: jax.Array
    number: jax.Array
    predictions: jax.Array
    q_halt: jax.Array
    q_continue: jax.Array
    steps: jax.Array
    change: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Answers:
    """Some answers on the host, as numpy; the arrays are those of ``Finished``, NaN for None."""

    number: np.ndarray
    predictions: np.ndarray
    q_halt: np.ndarray
    q_continue: np.ndarray
    steps: np.ndarray
    change: np.ndarray


def _keeps_changes(config: ExperimentConfig) -> bool:
    return config.eval.rollouts.on and config.eval.rollouts.select == 'residual'


def read_depths(config: ExperimentConfig) -> tuple[int, ...]:
    """ACT steps at which every chain of rollouts gives an answer, rising; the last one ends it."""
    if not config.eval.rollouts.on:
        return (config.eval_steps,)
    return tuple(eval_step.read_depths(config))


def empty_slots(config: ExperimentConfig, count: int) -> Slots:
    """Returns idle slots."""
    shape = (count, config.model.seq_len)
    changes = None
    if _keeps_changes(config):
        changes = Changes(
            logits=jnp.zeros((*shape, config.model.vocab_size), jnp.float32),
            window=jnp.zeros((count, config.eval.rollouts.window), jnp.float32),
        )
    return Slots(
        latent=starts.empty_latent(config.inference_model, count),
        batch=Batch(
            inputs=jnp.zeros(shape, jnp.int32),
            labels=jnp.full(shape, IGNORE_LABEL_ID, jnp.int32),
            puzzle_identifiers=jnp.zeros(count, jnp.int32),
        ),
        number=jnp.full(count, -1, jnp.int32),
        steps=jnp.zeros(count, jnp.int32),
        changes=changes,
    )


class Work(struct.PyTreeNode):
    """A queue in progress, between two calls.

    Attributes:
      head: int32 [], rows of the queue that were taken.
      slots: puzzles in progress.
      done: what has finished since the queue was begun.
      sums: sums of the metrics over it.
    """

    head: jax.Array
    slots: Slots
    done: Finished
    sums: Sums


def begun(config: ExperimentConfig, slots: Slots, rows: int) -> Work:
    """A queue of ``rows`` rows of which nothing is done: room for N + B at each depth."""
    room = (rows + slots.number.shape[0]) * len(read_depths(config))
    done = Finished(
        count=jnp.int32(0),
        number=jnp.full(room, -1, jnp.int32),
        predictions=jnp.zeros((room, config.model.seq_len), jnp.int32),
        q_halt=jnp.zeros(room, jnp.float32),
        q_continue=jnp.zeros(room, jnp.float32),
        steps=jnp.zeros(room, jnp.int32),
        change=None if slots.changes is None else jnp.zeros(room, jnp.float32),
    )
    return Work(jnp.int32(0), slots, done, Sums.zeros())
