"""Evaluation of one batch: every row runs the same number of ACT steps. Pure and jitted."""

from collections.abc import Callable, Sequence
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
      deeper: one ``Sums`` for each of ``eval.depth_multiples``.
      logits: [B, S, V], or None where nobody asked for them.
    """

    sums: Sums
    predictions: jax.Array
    q_halt: jax.Array
    q_continue: jax.Array
    deeper: tuple[Sums, ...] = ()
    logits: jax.Array | None = None


def fresh_latent(config: ExperimentConfig, params: Any, constants: Any, rows: int) -> LatentState:
    """State of ``rows`` puzzles that were just begun."""
    start = hrm.initial_latent(constants, params)
    empty = hrm.empty_latent(config.model, rows)
    return jax.tree.map(
        lambda init, like: jnp.broadcast_to(init.astype(like.dtype), like.shape), start, empty
    )


def depth(config: ExperimentConfig) -> int:
    """ACT steps of an evaluation."""
    return config.eval.halt_max_steps or config.act.halt_max_steps


def _stepper(
    config: ExperimentConfig, params, constants, puzzle_table, inputs_BS, ids_B
) -> tuple[LatentState, Callable[[LatentState], tuple[LatentState, Outputs]]]:
    """The state to start from and the function that makes one ACT step of it."""
    core = hrm.HRM(config.model)
    rows = hrm.gather_puzzle_rows(puzzle_table, ids_B)

    def step(latent: LatentState) -> tuple[LatentState, Outputs]:
        variables = {'params': params, 'constants': constants}
        return core.apply(variables, latent, inputs_BS, rows)

    return fresh_latent(config, params, constants, inputs_BS.shape[0]), step


def answers(
    config: ExperimentConfig,
    params: Any,
    constants: Any,
    puzzle_table: jax.Array | None,
    inputs_BS: jax.Array,
    ids_B: jax.Array,
    depths: Sequence[int],
) -> list[Outputs]:
    """Runs ACT steps from a fresh state and reads the answer at some depths; sees no labels.

    Args:
      config: the experiment.
      params, constants, puzzle_table: the model.
      inputs_BS: int32 token ids.
      ids_B: int32 rows of the puzzle table.
      depths: numbers of ACT steps after which to read, rising.
    """
    latent, step = _stepper(config, params, constants, puzzle_table, inputs_BS, ids_B)
    found, done = [], 0
    for number in depths:
        # The step that is read stands outside the loop: no other needs its outputs.
        more = number - 1 - done
        latent, _ = jax.lax.scan(lambda z, _: (step(z)[0], None), latent, length=more)
        latent, outputs = step(latent)
        found.append(outputs)
        done = number
    return found


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
    model = (params, constants, puzzle_table)
    return answers(config, *model, inputs_BS, ids_B, [depth(config)])[0]


def _score(config: ExperimentConfig, outputs: Outputs, batch: Batch, steps: jax.Array) -> Sums:
    rows = batch.inputs.shape[0]
    everyone = jnp.ones(rows, jnp.bool_)
    steps_B = jnp.full(rows, steps, jnp.int32)
    return losses.act_loss(outputs, batch.labels, steps_B, everyone, None, config.loss)[1]


def eval_step(
    config: ExperimentConfig,
    params: Any,
    constants: Any,
    puzzle_table: jax.Array | None,
    batch: Batch,
    with_logits: bool = False,
) -> EvalResult:
    """Answers a batch and scores the answers (pretrain.py, evaluate).

    Every row runs ``eval.halt_max_steps`` ACT steps (or ``act.halt_max_steps``): Q never
    stops a row early here, as in the original. Only the last step is scored, and the last one
    of each deeper run that ``eval.depth_multiples`` asks for.
    """
    steps = depth(config)
    depths = [steps, *(steps * multiple for multiple in config.eval.depth_multiples)]
    model = (params, constants, puzzle_table)
    found = answers(config, *model, batch.inputs, batch.puzzle_identifiers, depths)
    outputs = found[0]
    sums, *deeper = (_score(config, o, batch, n) for o, n in zip(found, depths, strict=True))
    return EvalResult(
        sums=sums,
        predictions=jnp.argmax(outputs.logits, axis=-1).astype(jnp.int32),
        q_halt=outputs.q_halt,
        q_continue=outputs.q_continue,
        deeper=tuple(deeper),
        logits=outputs.logits if with_logits else None,
    )


def depth_sweep(
    config: ExperimentConfig,
    params: Any,
    constants: Any,
    puzzle_table: jax.Array | None,
    batch: Batch,
    max_steps: int,
) -> Sums:
    """Scores a batch after every ACT step from 1 to ``max_steps``.

    Returns:
      ``Sums`` whose arrays have a leading axis [max_steps].
    """
    model = (params, constants, puzzle_table)
    latent, step = _stepper(config, *model, batch.inputs, batch.puzzle_identifiers)

    def scored(latent, number):
        latent, outputs = step(latent)
        return latent, _score(config, outputs, batch, number)

    return jax.lax.scan(scored, latent, jnp.arange(1, max_steps + 1, dtype=jnp.int32))[1]


def make_depth_sweep(
    config: ExperimentConfig, mesh: Mesh, max_steps: int
) -> Callable[[Any, Any, jax.Array | None, Batch], Sums]:
    """Jits ``depth_sweep`` for the mesh."""

    def sweep(params, constants, puzzle_table, batch):
        with partitioning.activate(mesh):
            return depth_sweep(config, params, constants, puzzle_table, batch, max_steps)

    return jax.jit(
        sweep,
        in_shardings=(None, None, None, partitioning.batch_sharding(mesh)),
        out_shardings=partitioning.replicated(mesh),
    )


def make_eval_step(
    config: ExperimentConfig, mesh: Mesh, with_logits: bool = False
) -> Callable[[Any, Any, jax.Array | None, Batch], EvalResult]:
    """Jits ``eval_step`` for the mesh: rows spread over it, weights wherever they are."""

    def step(params, constants, puzzle_table, batch):
        with partitioning.activate(mesh):
            return eval_step(config, params, constants, puzzle_table, batch, with_logits)

    rows, whole = partitioning.batch_sharding(mesh), partitioning.replicated(mesh)
    return jax.jit(
        step,
        in_shardings=(None, None, None, rows),
        out_shardings=EvalResult(
            whole, rows, rows, rows, deeper=whole, logits=rows if with_logits else None
        ),
    )
