"""Traces: the model's answers after every ACT step, from which all pictures are drawn."""

from collections.abc import Sequence
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from hrm_jax import eval_step
from hrm_jax.config import ExperimentConfig
from hrm_jax.types import Weights


@dataclasses.dataclass(frozen=True)
class Trace:
    """The answers of a few puzzles after each of K ACT steps.

    Attributes:
      inputs: int32 [B, S], token ids of the questions.
      labels: int32 [B, S], token ids of the right answers.
      predictions: int32 [K, B, S], most probable token of every cell after every step.
      q_halt: float32 [K, B], logit of "stop now".
      q_continue: float32 [K, B], logit of "continue".
      confidence: float32 [K, B, S], probability of the predicted token, or None.
      has_q: whether the model predicts when to halt; without, the logits are 0.
    """

    inputs: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray
    q_halt: np.ndarray
    q_continue: np.ndarray
    confidence: np.ndarray | None = None
    has_q: bool = True

    @property
    def num_steps(self) -> int:
        return len(self.predictions)

    @property
    def wrong(self) -> np.ndarray:
        """Bool [K, B, S], cells that differ from the right answer; unscored ones never do."""
        return (self.predictions != self.labels) & (self.labels >= 0)

    @property
    def solved(self) -> np.ndarray:
        """Bool [K, B], boards without a wrong cell."""
        return ~np.asarray(self.wrong.any(axis=-1))


def trace(
    config: ExperimentConfig,
    weights: Weights,
    inputs_BS: np.ndarray,
    labels_BS: np.ndarray,
    ids_B: np.ndarray,
    steps: int = 0,
    key: jax.Array | None = None,
) -> Trace:
    """Answers puzzles from a fresh state and keeps what stands after every ACT step.

    Args:
      config: the experiment; its model knows the sizes of the data set.
      weights: the model.
      inputs_BS: int32 token ids.
      labels_BS: int32, only carried along; the model does not see them.
      ids_B: int32 rows of the puzzle table.
      steps: ACT steps; 0: as many as in an evaluation.
      key: of what is drawn; None: that of ``config.seed``.
    """
    config = config.with_eval_steps(steps)
    key = jax.random.key(config.seed) if key is None else key

    def read(outputs, _number):
        answer = jnp.argmax(outputs.logits, axis=-1).astype(jnp.int32)
        confidence = jax.nn.softmax(outputs.logits.astype(jnp.float32), axis=-1).max(-1)
        return answer, outputs.q_halt, outputs.q_continue, confidence

    @jax.jit
    def run(weights, inputs, ids, key):
        return eval_step.read_every_step(config, weights, inputs, ids, config.eval_steps, read, key)

    answers, *rest = jax.device_get(
        run(weights, np.asarray(inputs_BS, np.int32), np.asarray(ids_B, np.int32), key)
    )
    return Trace(
        np.asarray(inputs_BS), np.asarray(labels_BS), answers, *rest, has_q=config.model.q_head
    )


def joined(parts: Sequence[Trace]) -> Trace:
    """Returns the traces of several batches of puzzles as one."""
    first = parts[0]
    if len(parts) == 1:
        return first
    stacked = {
        name: np.concatenate([getattr(part, name) for part in parts], axis)
        for name, axis in (('inputs', 0), ('labels', 0), ('predictions', 1), ('q_halt', 1),
                           ('q_continue', 1), ('confidence', 1))
        if getattr(first, name) is not None
    }  # fmt: skip
    return dataclasses.replace(first, **stacked)


def most_instructive(seen: Trace) -> int:
    """Returns the row that is right at the end and took the most steps to get there.

    Among those, the one with the most wrong cells after the first step; without any solved
    board, the one with the fewest wrong cells at the end. Without labels, the one whose answer
    changed most.
    """
    if (seen.labels < 0).all():  # nobody knows the answers: where most cells were changed
        changed = seen.predictions[1:] != seen.predictions[:-1]
        return int(changed.sum(axis=(0, 2)).argmax())
    wrong = seen.wrong.sum(axis=-1)
    if not seen.solved[-1].any():
        return int(wrong[-1].argmin())
    first_solved = np.where(seen.solved[-1], (~seen.solved).sum(axis=0), -1)
    return int(np.lexsort((wrong[0], first_solved))[-1])
