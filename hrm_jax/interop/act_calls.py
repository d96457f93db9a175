"""The compiled functions behind ``HrmModel``: one ACT step, and steps until the rows halt."""

import dataclasses
import functools

from flax import struct
import jax
import jax.numpy as jnp

from hrm_jax import act, losses, train_step
from hrm_jax.config import ExperimentConfig
from hrm_jax.model import draws, hrm, puzzle_table, starts
from hrm_jax.types import Batch, Carry, Weights


class HrmOutput(struct.PyTreeNode):
    """What one ACT step gives.

    Attributes:
      logits: [B, S, V] in the compute dtype.
      q_halt_logits, q_continue_logits: float32 [B].
      carry: state for the next call; rows that halted take a new puzzle there.
      loss: float32 [], or None without labels.
      hidden_states: (embeddings, z_H, z_L), each [B, S, D] without the puzzle prefix (for
        blocks of other kinds as ``starts.empty_latent`` has them), or None when not asked for.
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
    weights: Weights,
    carry: Carry,
    batch: Batch,
    key: jax.Array | None,
) -> HrmOutput:
    """Refills halted rows and runs one ACT step; compiled once per kind of call.

    Args:
      config: the experiment.
      flags: (halts and explores as in training, computes the loss, returns hidden states).
      weights: the model, to differentiate with respect to.
      carry: state before.
      batch: incoming puzzles.
      key: of what is drawn; None: that of ``config.seed``. At inference each row has a key of its
        own and each of its steps another one, as in evaluation.
    """
    train, with_loss, with_states = flags
    rows = batch.inputs.shape[0]
    config = dataclasses.replace(
        config, train=dataclasses.replace(config.train, global_batch_size=rows)
    )
    model = config.model if train else config.inference_model
    if not train:
        key = _row_keys(config, key, rows)
    initial = starts.initial_latent(model, weights, rows, key)
    carry = act.refill(carry, batch, initial)
    puzzle_rows = puzzle_table.puzzle_rows(weights, carry.batch.puzzle_identifiers)
    loss, hidden_states = None, None
    if train:
        assert key is not None  # HrmForCausalLM asks for one
        explore_key, model_key = jax.random.split(key)
        min_steps = act.exploration_min_steps(explore_key, rows, config.act)
        loss, (carry, outputs, _, _) = train_step.step_loss(
            config, weights, puzzle_rows, carry, min_steps, model_key
        )
        loss = loss if with_loss else None
    else:
        steps = carry.steps + 1
        latent, outputs = hrm.act_step(
            model, weights, carry.latent, carry.batch.inputs, puzzle_rows, draws.fold(key, steps)
        )
        halted = steps >= config.act.halt_max_steps
        if with_loss:
            total, _ = losses.act_loss(
                outputs, carry.batch.labels, steps, halted, None, config.loss
            )
            loss = total / rows
        latent = jax.lax.stop_gradient(latent)
        carry = dataclasses.replace(carry, latent=latent, steps=steps, halted=halted)
    if with_states:
        embedded = hrm.embed(config.model, weights, carry.batch.inputs, puzzle_rows)
        hidden_states = _without_prefix(config, (embedded, carry.latent.high, carry.latent.low))
    return HrmOutput(
        logits=outputs.logits,
        q_halt_logits=outputs.q_halt,
        q_continue_logits=outputs.q_continue,
        carry=carry,
        loss=loss,
        hidden_states=hidden_states,
    )


def _row_keys(config: ExperimentConfig, key: jax.Array | None, rows: int) -> jax.Array | None:
    key = jax.random.key(draws.seed_of(config.seed)) if key is None else key
    return draws.per_row(key, jnp.arange(rows))


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
    weights: Weights,
    batch: Batch,
    key: jax.Array | None = None,
) -> HrmGeneration:
    """Runs ACT steps until every row has halted, at most ``max_steps``."""
    rows = batch.inputs.shape[0]
    key = _row_keys(config, key, rows)
    act_config = dataclasses.replace(config.act, halt_max_steps=max_steps)
    puzzle_rows = puzzle_table.puzzle_rows(weights, batch.puzzle_identifiers)
    latent = starts.fresh_latent(config.inference_model, weights, rows, key)
    empty = HrmGeneration(
        sequences=jnp.zeros(batch.inputs.shape, jnp.int32),
        steps=jnp.zeros(rows, jnp.int32),
        q_halt_logits=jnp.zeros(rows, jnp.float32),
    )

    def step(loop):
        number, latent, running, result = loop
        latent, outputs = hrm.act_step(
            config.inference_model,
            weights,
            latent,
            batch.inputs,
            puzzle_rows,
            draws.fold(key, number),
        )
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
        stops = act.halt(
            outputs, new.steps, act.inference_min_steps(new.steps, act_config), act_config
        )
        return number + 1, latent, running & ~stops, result

    loop = (jnp.int32(1), latent, jnp.ones(rows, jnp.bool_), empty)
    return jax.lax.while_loop(lambda loop: loop[2].any(), step, loop)[3]
