"""Adaptive computation time: refill of rows, halting, and targets of Q.

Source: arXiv 2506.21734, section 2 "Adaptive computational time"; sapientinc/HRM
models/hrm/hrm_act_v1.py, HierarchicalReasoningModel_ACTV1. Everything is a ``jnp.where``
over rows, so that one compiled program serves every mix of fresh and running rows.
"""

from typing import Any

import jax
import jax.numpy as jnp

from hrm_jax.config import ActConfig
from hrm_jax.types import Batch, Carry, LatentState, Outputs


def initial_carry(latent: LatentState, batch: Batch) -> Carry:
    """Carry in which every row is halted, so that the first step replaces all of it.

    Args:
      latent: state of the right shapes [B, T, D]; its values are never read.
      batch: puzzles of the right shapes; never read either.
    """
    rows = batch.inputs.shape[0]
    return Carry(
        latent=latent,
        steps=jnp.zeros(rows, jnp.int32),
        halted=jnp.ones(rows, jnp.bool_),
        batch=batch,
    )


def _where_rows(mask_B: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    new = new.astype(old.dtype)  # trained initial states are float32, the state may not be
    return jnp.where(mask_B.reshape(-1, *[1] * (old.ndim - 1)), new, old)


def refill(carry: Carry, batch: Batch, initial: LatentState) -> Carry:
    """Gives halted rows a new puzzle, step 0 and the initial state; others keep theirs.

    The incoming puzzle of a row that continues is dropped, as in the original.

    Args:
      carry: state after the previous step.
      batch: incoming puzzles.
      initial: state to start from, broadcast against the carry's.
    """

    def replace(new, old):
        return jax.tree.map(lambda n, o: _where_rows(carry.halted, n, o), new, old)

    return Carry(
        latent=replace(initial, carry.latent),
        steps=jnp.where(carry.halted, 0, carry.steps),
        halted=carry.halted,
        batch=replace(batch, carry.batch),
    )


def exploration_min_steps(key: jax.Array, rows: int, config: ActConfig) -> jax.Array:
    """Draws int32 [rows]: with the exploration probability a minimum from 2..max, else 0.

    Under ``random`` halting that is the probability to stop now: such rows get 0, all others the
    last step.
    """
    explore_key, steps_key = jax.random.split(key)
    explore = jax.random.uniform(explore_key, (rows,)) < config.halt_exploration_prob
    if config.halting == 'random':
        return jnp.where(explore, 0, config.halt_max_steps).astype(jnp.int32)
    # With one step at most there is nothing to explore, and the range would be empty.
    highest = max(config.halt_max_steps, 2)
    minimum = jax.random.randint(steps_key, (rows,), 2, highest + 1, jnp.int32)
    return jnp.where(explore, minimum, 0)


def halt(
    outputs: Outputs, steps_B: jax.Array, min_steps_B: jax.Array, config: ActConfig
) -> jax.Array:
    """Decides while training which rows stop after this step, bool [B].

    Args:
      outputs: predictions of this step.
      steps_B: ACT steps spent, this one included.
      min_steps_B: halting earlier than this is ignored; never holds back the last step.
      config: ``q_learning`` stops when q_halt > q_continue, ``halt_only`` when q_halt > 0,
        ``random`` when the minimum has been reached (SE-RRM), ``solved`` when every cell has one
        candidate and no conflict is seen (LDT), ``fixed`` at the last step only.
    """
    is_last = steps_B >= config.halt_max_steps
    wants = wants_to_halt(outputs.q_halt, outputs.q_continue, config)
    if config.halting == 'fixed' or config.halt_max_steps == 1:
        return is_last
    return (is_last | wants) & (steps_B >= min_steps_B)


def wants_to_halt(q_halt_B: Any, q_continue_B: Any, config: ActConfig) -> Any:
    """What the halting rule makes of the Q values, whatever the number of the step; bool [B].

    Args:
      q_halt_B, q_continue_B: logits, of JAX or numpy.
      config: see ``halt``; ``fixed`` never wants to.
    """
    match config.halting:
        case 'q_learning' | 'solved':
            return q_halt_B > q_continue_B
        case 'halt_only':
            return q_halt_B > 0.0
        case 'random':
            return jnp.ones(q_halt_B.shape, jnp.bool_)
        case 'fixed':
            return jnp.zeros(q_halt_B.shape, jnp.bool_)
    raise ValueError(f'no halting rule called {config.halting!r}')


def inference_min_steps(steps_B: jax.Array, config: ActConfig) -> jax.Array:
    """``min_steps_B`` at inference: none, but a rule that draws lots goes to the last step."""
    least = config.halt_max_steps if config.halting == 'random' else 0
    return jnp.full_like(steps_B, least)


def has_continue_target(config: ActConfig) -> bool:
    """Whether training bootstraps q_continue from one more step."""
    return config.halting == 'q_learning' and config.train_q_continue and config.halt_max_steps > 1


def continue_target(
    next_q_halt_B: jax.Array, next_q_continue_B: jax.Array, steps_B: jax.Array, config: ActConfig
) -> jax.Array:
    """Target of q_continue: the value of the best action one step later, float32 [B] in (0, 1).

    Args:
      next_q_halt_B, next_q_continue_B: logits of one more step from the new state.
      steps_B: ACT steps spent before that step.
      config: at the last step stopping is the only action left.
    """
    best = jnp.maximum(next_q_halt_B, next_q_continue_B)
    is_last = steps_B >= config.halt_max_steps
    return jax.nn.sigmoid(jnp.where(is_last, next_q_halt_B, best))
