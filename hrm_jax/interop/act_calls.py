"""The compiled functions behind ``HrmModel``: one ACT step, and steps until the rows halt."""

import dataclasses
import functools
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from hrm_jax import act, eval_step, losses, train_step
from hrm_jax.config import ExperimentConfig
from hrm_jax.model import hrm
from hrm_jax.types import Batch, Carry


class HrmOutput(struct.PyTreeNode):
    """What one ACT step gives.

    Attributes:
      logits: [B, S, V] in the compute dtype.
      q_halt_logits, q_continue_logits: float32 [B].
      carry: state for the next call; rows that halted take a new puzzle there.
      loss: float32 [], or None without labels.
      hidden_states: (embeddings, z_H, z_L), each [B, S, D] without the puzzle prefix (for
        blocks of other kinds as ``hrm.empty_latent`` has them), or None when not asked for.
    """

    logits: jax.Array
    q_halt_logits: jax.Array
    q_continue_logits: jax.Array
    carry: Carry
    loss: jax.Array | None = None
    hidden_states: tuple[jax.Array, ...] | None = None


class HrmGeneration(struct.PyTreeNode):
    """Boards that ``generate`` filled.

    Attributes:
      sequences: int32 [B, S], the answer for every cell, at the step where the row halted.
      steps: int32 [B], ACT steps that the row took.
      q_halt_logits: float32 [B], at that step.
    """

    sequences: jax.Array
    steps: jax.Array
    q_halt_logits: jax.Array


@functools.partial(jax.jit, static_argnums=(0, 1))
def act_step(
    config: ExperimentConfig,
    flags: tuple[bool, bool, bool],
    params: Any,
    constants: Any,
    puzzle_table: jax.Array | None,
    carry: Carry,
    batch: Batch,
    rng: jax.Array | None,
) -> HrmOutput:
    """Refills halted rows and runs one ACT step; compiled once per kind of call.

    Args:
      config: the experiment.
      flags: (halts and explores as in training, computes the loss, returns hidden states).
      params: trained parameters, to differentiate with respect to.
      constants: fixed initial states.
      puzzle_table: float32 [num_puzzle_identifiers, E], or None.
      carry: state before.
      batch: incoming puzzles.
      rng: key of exploration and dropout; used in training only.
    """
    train, with_loss, with_states = flags
    rows = batch.inputs.shape[0]
    config = dataclasses.replace(
        config, train=dataclasses.replace(config.train, global_batch_size=rows)
    )
    carry = act.refill(carry, batch, hrm.initial_latent(constants, params))
    puzzle_rows = hrm.gather_puzzle_rows(puzzle_table, carry.batch.puzzle_identifiers)
    loss, hidden_states = None, None
    if train:
        explore_key, dropout_key = jax.random.split(rng)
        min_steps = act.exploration_min_steps(explore_key, rows, config.act)
        drops = max(config.model.dropout, config.model.attention_dropout) > 0
        loss, (carry, outputs, _, _) = train_step.act_step(
            config, params, constants, puzzle_rows, carry, min_steps,
            dropout_key if drops else None,
        )  # fmt: skip
        loss = loss if with_loss else None
    else:
        variables = {'params': params, 'constants': constants}
        latent, outputs = hrm.HRM(config.model).apply(
            variables, carry.latent, carry.batch.inputs, puzzle_rows
        )
        steps = carry.steps + 1
        halted = steps >= config.act.halt_max_steps
        if with_loss:
            total, _ = losses.act_loss(
                outputs, carry.batch.labels, steps, halted, None, config.loss
            )
            loss = total / rows
        latent = jax.lax.stop_gradient(latent)
        carry = dataclasses.replace(carry, latent=latent, steps=steps, halted=halted)
    if with_states:
        embedded = hrm.HRM(config.model).apply(
            {'params': params, 'constants': constants},
            carry.batch.inputs,
            puzzle_rows,
            method=hrm.HRM.embed,
        )
        hidden_states = _without_prefix(config, (embedded, carry.latent.high, carry.latent.low))
    return HrmOutput(
        logits=outputs.logits,
        q_halt_logits=outputs.q_halt,
        q_continue_logits=outputs.q_continue,
        carry=carry,
        loss=loss,
        hidden_states=hidden_states,
    )


def _without_prefix(config, states) -> tuple[jax.Array, ...]:
    # The states of recurrent blocks are cells, which have no positions; some models have one.
    start = 0 if config.model.is_recurrent else config.model.prefix_len
    embedded, *states = states
    cut = [state[..., start:, :] for state in states if state is not None]
    return (embedded[:, config.model.prefix_len :], *cut)


@functools.partial(jax.jit, static_argnums=(0, 1))
def generate(
    config: ExperimentConfig,
    max_steps: int,
    params: Any,
    constants: Any,
    puzzle_table: jax.Array | None,
    batch: Batch,
) -> HrmGeneration:
    """Runs ACT steps until every row has halted, at most ``max_steps``."""
    rows = batch.inputs.shape[0]
    act_config = dataclasses.replace(config.act, halt_max_steps=max_steps)
    puzzle_rows = hrm.gather_puzzle_rows(puzzle_table, batch.puzzle_identifiers)
    latent = eval_step.fresh_latent(config, params, constants, rows)
    empty = HrmGeneration(
        sequences=jnp.zeros(batch.inputs.shape, jnp.int32),
        steps=jnp.zeros(rows, jnp.int32),
        q_halt_logits=jnp.zeros(rows, jnp.float32),
    )

    def step(loop):
        latent, running, result = loop
        variables = {'params': params, 'constants': constants}
        latent, outputs = hrm.HRM(config.model).apply(variables, latent, batch.inputs, puzzle_rows)
        new = HrmGeneration(
            sequences=jnp.argmax(outputs.logits, axis=-1).astype(jnp.int32),
            steps=result.steps + 1,
            q_halt_logits=outputs.q_halt,
        )
        result = HrmGeneration(
            sequences=jnp.where(running[:, None], new.sequences, result.sequences),
            steps=jnp.where(running, new.steps, result.steps),
            q_halt_logits=jnp.where(running, new.q_halt_logits, result.q_halt_logits),
        )
        stops = act.halt(outputs, new.steps, jnp.zeros(rows, jnp.int32), act_config)
        return latent, running & ~stops, result

    loop = (latent, jnp.ones(rows, jnp.bool_), empty)
    return jax.lax.while_loop(lambda loop: loop[1].any(), step, loop)[2]
