"""Evaluation of one batch: every row runs the same number of ACT steps. Pure and jitted."""

from collections.abc import Callable
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from hrm_jax import losses, partitioning
from hrm_jax.config import ExperimentConfig
from hrm_jax.model import hrm
from hrm_jax.types import Batch, LatentState, Outputs, Sums


class EvalResult(struct.PyTreeNode):
    """What is known of a batch after the last ACT step.

    Attributes:
      sums: numerators of the metrics, padding rows left out.
      predictions: int32 [B, S], the most probable token of every cell.
      q_halt: float32 [B], logit.
      q_continue: float32 [B], logit.
    """

    sums: Sums
    predictions: jax.Array
    q_halt: jax.Array
    q_continue: jax.Array


def fresh_latent(config: ExperimentConfig, params: Any, constants: Any, rows: int) -> LatentState:
    """State of ``rows`` puzzles that were just begun."""
    start = hrm.initial_latent(constants, params)
    empty = hrm.empty_latent(config.model, rows)
    return jax.tree.map(
        lambda init, like: jnp.broadcast_to(init.astype(like.dtype), like.shape), start, empty
    )


def answer(
    config: ExperimentConfig,
    params: Any,
    constants: Any,
    puzzle_table: jax.Array | None,
    inputs_BS: jax.Array,
    ids_B: jax.Array,
) -> Outputs:
    """Runs all ACT steps from a fresh state; sees no labels.

    Returns:
      The predictions of the last step.
    """
    core = hrm.HRM(config.model)
    rows = hrm.gather_puzzle_rows(puzzle_table, ids_B)
    latent = fresh_latent(config, params, constants, inputs_BS.shape[0])

    def step(latent: LatentState) -> tuple[LatentState, Outputs]:
        variables = {'params': params, 'constants': constants}
        return core.apply(variables, latent, inputs_BS, rows)

    # The last step stands outside the loop: its outputs are the only ones that are needed.
    steps = config.eval.halt_max_steps or config.act.halt_max_steps
    latent, _ = jax.lax.scan(lambda z, _: (step(z)[0], None), latent, length=steps - 1)
    return step(latent)[1]


def eval_step(
    config: ExperimentConfig,
    params: Any,
    constants: Any,
    puzzle_table: jax.Array | None,
    batch: Batch,
) -> EvalResult:
    """Answers a batch and scores the answers (pretrain.py, evaluate).

    Every row runs ``eval.halt_max_steps`` ACT steps (or ``act.halt_max_steps``): Q never
    stops a row early here, as in the original. Only the last step is scored.
    """
    outputs = answer(
        config, params, constants, puzzle_table, batch.inputs, batch.puzzle_identifiers
    )
    steps = config.eval.halt_max_steps or config.act.halt_max_steps
    rows = batch.inputs.shape[0]
    _, sums = losses.act_loss(
        outputs,
        batch.labels,
        jnp.full(rows, steps, jnp.int32),
        jnp.ones(rows, jnp.bool_),
        None,
        config.loss,
    )
    return EvalResult(
        sums=sums,
        predictions=jnp.argmax(outputs.logits, axis=-1).astype(jnp.int32),
        q_halt=outputs.q_halt,
        q_continue=outputs.q_continue,
    )


def make_eval_step(
    config: ExperimentConfig, mesh: Mesh
) -> Callable[[Any, Any, jax.Array | None, Batch], EvalResult]:
    """Jits ``eval_step`` for the mesh: rows spread over it, weights wherever they are."""

    def step(params, constants, puzzle_table, batch):
        with partitioning.activate(mesh):
            return eval_step(config, params, constants, puzzle_table, batch)

    rows = partitioning.batch_sharding(mesh)
    return jax.jit(
        step,
        in_shardings=(None, None, None, rows),
        out_shardings=EvalResult(partitioning.replicated(mesh), rows, rows, rows),
    )
