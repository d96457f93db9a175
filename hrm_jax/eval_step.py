"""Evaluation of one batch: every row runs the same number of ACT steps. Pure and jitted."""

from collections.abc import Callable, Sequence
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from hrm_jax import losses, partitioning
from hrm_jax.config import ExperimentConfig
from hrm_jax.model import draws, hrm, puzzle_table, starts
from hrm_jax.types import Batch, LatentState, Leaf, Outputs, Sums, Weights


class EvalResult(struct.PyTreeNode):
    """What is known of a batch after the last ACT step.

    Attributes:
      sums: numerators of the metrics, padding rows left out; with a leading axis [devices] where a
        CPU is split (``partitioning.separate_parts``), each of its own rows.
      predictions: int32 [B, S], the most probable token of every cell.
      q_halt: float32 [B], logit.
      q_continue: float32 [B], logit.
      deeper: one ``Sums`` for each of ``eval.depth_multiples``.
      logits: [B, S, V], or None where nobody asked for them.
    """

    sums: Sums | Leaf
    predictions: Leaf
    q_halt: Leaf
    q_continue: Leaf
    deeper: tuple[Sums, ...] | Leaf = ()
    logits: Leaf | None = None


def answers(
    config: ExperimentConfig,
    weights: Weights,
    inputs_BS: jax.Array,
    ids_B: jax.Array,
    depths: Sequence[int],
    key: jax.Array | None = None,
    first: jax.Array | int = 0,
) -> list[Outputs]:
    """Runs ACT steps from a fresh state and reads the answer at some depths; sees no labels.

    Args:
      config: the experiment.
      weights: the model.
      inputs_BS: int32 token ids.
      ids_B: int32 rows of the puzzle table.
      depths: numbers of ACT steps after which to read, rising.
      key: of what is drawn: each puzzle takes the fold of its number, each step of its own. None:
        nothing is drawn.
      first: number of the first puzzle; the others follow.
    """
    latent, step = stepper(config, weights, inputs_BS, ids_B, key, first)
    found, done = [], 0
    for number in depths:
        # The step that is read stands outside the loop: no other needs its outputs.
        before = jnp.arange(done + 1, number, dtype=jnp.int32)
        latent, _ = jax.lax.scan(lambda z, n: (step(z, n)[0], None), latent, before)
        latent, outputs = step(latent, number)
        found.append(outputs)
        done = number
    return found


def read_every_step(
    config: ExperimentConfig,
    weights: Weights,
    inputs_BS: jax.Array,
    ids_B: jax.Array,
    steps: int,
    read: Callable[[Outputs, jax.Array], Any],
    key: jax.Array | None = None,
    first: jax.Array | int = 0,
) -> Any:
    """Runs ACT steps from a fresh state and keeps what ``read`` takes from each.

    Args:
      config, weights, inputs_BS, ids_B, key, first: see ``answers``.
      steps: how many.
      read: (outputs, number of the step from 1) -> pytree of arrays.

    Returns:
      The pytree, its arrays with a leading axis [steps].
    """
    latent, step = stepper(config, weights, inputs_BS, ids_B, key, first)

    def run(latent, number):
        latent, outputs = step(latent, number)
        return latent, read(outputs, number)

    return jax.lax.scan(run, latent, jnp.arange(1, steps + 1, dtype=jnp.int32))[1]


def stepper(
    config: ExperimentConfig, weights: Weights, inputs_BS, ids_B, key, first
) -> tuple[LatentState, Callable[[LatentState, Any], tuple[LatentState, Outputs]]]:
    """The state to start from and the function that runs ACT step number n on it."""
    model, rows = config.inference_model, puzzle_table.puzzle_rows(weights, ids_B)
    keys = draws.per_row(key, first + jnp.arange(inputs_BS.shape[0]))
    fresh = starts.fresh_latent(model, weights, inputs_BS.shape[0], keys)
    weights = hrm.laid_out(model, weights)

    def step(latent: LatentState, number) -> tuple[LatentState, Outputs]:
        step_keys = draws.fold(keys, number)
        return hrm.act_step(model, weights, latent, inputs_BS, rows, step_keys)

    return fresh, step


def _score(
    config: ExperimentConfig, outputs: Outputs, batch: Batch, steps: jax.Array | int
) -> Sums:
    def score(outputs, labels_BS):
        everyone = jnp.ones(labels_BS.shape[0], jnp.bool_)
        steps_B = jnp.full(labels_BS.shape[0], steps, jnp.int32)
        return losses.act_loss(outputs, labels_BS, steps_B, everyone, None, config.loss)[1]

    parts = partitioning.separate_parts()
    if parts == 1:
        return score(outputs, batch.labels)
    split = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), (outputs, batch.labels))
    return jax.vmap(score)(*split)


def eval_step(
    config: ExperimentConfig,
    weights: Weights,
    batch: Batch,
    key: jax.Array | None = None,
    first: jax.Array | int = 0,
    with_logits: bool = False,
) -> EvalResult:
    """Answers a batch and scores the answers (pretrain.py, evaluate).

    Every row runs ``config.eval_steps`` ACT steps: Q never stops a row early here, as in the
    original. Only the last step is scored, and the last one of each deeper run that
    ``eval.depth_multiples`` asks for.

    Args:
      config: the experiment.
      weights: the model.
      batch: the puzzles.
      key, first: see ``answers``.
      with_logits: keeps the logits of the last step.
    """
    depths = read_depths(config)
    found = answers(config, weights, batch.inputs, batch.puzzle_identifiers, depths, key, first)
    deeper = (_score(config, o, batch, n) for o, n in zip(found[1:], depths[1:], strict=True))
    return result_of(config, found[0], batch, depths[0], with_logits, tuple(deeper))


def read_depths(config: ExperimentConfig) -> list[int]:
    """Numbers of ACT steps after which an evaluation at full depth reads the answers."""
    steps = config.eval_steps
    return [steps, *(steps * multiple for multiple in config.eval.depth_multiples)]


def result_of(
    config: ExperimentConfig,
    outputs: Outputs,
    batch: Batch,
    steps: jax.Array | int,
    with_logits: bool = False,
    deeper: tuple[Sums, ...] = (),
) -> EvalResult:
    """Scores the outputs of a batch after ``steps`` ACT steps."""
    return EvalResult(
        sums=_score(config, outputs, batch, steps),
        predictions=jnp.argmax(outputs.logits, axis=-1).astype(jnp.int32),
        q_halt=outputs.q_halt,
        q_continue=outputs.q_continue,
        deeper=deeper,
        logits=outputs.logits if with_logits else None,
    )


def depth_sweep(
    config: ExperimentConfig,
    weights: Weights,
    batch: Batch,
    max_steps: int,
    key: jax.Array | None = None,
    first: jax.Array | int = 0,
) -> Sums:
    """Scores a batch after every ACT step from 1 to ``max_steps``.

    Returns:
      ``Sums`` whose arrays have a leading axis [max_steps].
    """

    def score(outputs, number):
        return _score(config, outputs, batch, number)

    return read_every_step(
        config, weights, batch.inputs, batch.puzzle_identifiers, max_steps, score, key, first
    )


def make_depth_sweep(config: ExperimentConfig, mesh: Mesh, max_steps: int) -> Callable[..., Sums]:
    """Jits ``depth_sweep`` for the mesh; draws come from ``config.seed``.

    Returns:
      (weights, batch, first=0) -> Sums; ``first`` is the number of the batch's first puzzle.
    """

    def sweep(weights, batch, first):
        with partitioning.activate(mesh):
            key = jax.random.key(draws.seed_of(config.seed))
            return depth_sweep(config, weights, batch, max_steps, key, first)

    jitted = jax.jit(
        sweep,
        in_shardings=(None, partitioning.batch_sharding(mesh), None),
        out_shardings=partitioning.replicated(mesh),
    )
    return lambda weights, batch, first=0: jitted(weights, batch, first)


def make_eval_step(
    config: ExperimentConfig, mesh: Mesh, with_logits: bool = False
) -> Callable[..., EvalResult]:
    """Jits ``eval_step`` for the mesh: rows sharded over it, weights wherever they are.

    Returns:
      (weights, batch, seed=0, first=0) -> EvalResult; the seed is that of what is drawn.
    """

    def step(weights, batch, seed, first):
        with partitioning.activate(mesh):
            key = jax.random.key(seed)
            return eval_step(config, weights, batch, key, first, with_logits)

    rows, sums = partitioning.batch_sharding(mesh), partitioning.sums_sharding(mesh)
    jitted = jax.jit(
        step,
        in_shardings=(None, rows, None, None),
        out_shardings=EvalResult(
            sums, rows, rows, rows, deeper=sums, logits=rows if with_logits else None
        ),
    )
    return lambda weights, batch, seed=0, first=0: jitted(
        weights, batch, draws.seed_of(seed), first
    )
