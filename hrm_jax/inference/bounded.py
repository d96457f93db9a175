"""Evaluation of a batch in several calls of about a second, so that a stop signal is answered.

One process does not even wait for a call: what it computes is not needed after a stop.
The ACT steps and their numbers are those of ``eval_step``, which runs all of them in one call.
"""

from collections.abc import Callable
from concurrent import futures

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from hrm_jax import eval_step, partitioning
from hrm_jax.config import ExperimentConfig
from hrm_jax.model import draws, flops
from hrm_jax.types import Batch, Weights

_POLL = 0.1  # seconds between questions whether to stop
_WAITING = futures.ThreadPoolExecutor(1, thread_name_prefix='bounded')


def steps_per_call(config: ExperimentConfig, rows: int, mesh: Mesh) -> int:
    """ACT steps of ``rows`` rows at inference that take about a second."""
    return partitioning.steps_per_call(flops.act_step(config.inference_model), rows, mesh)


def stopped_before(value: jax.Array, should_stop: Callable[[], bool]) -> bool:
    """Waits for a value of a call, or for the wish to stop, and returns whether there is one.

    A single ACT step of a large model can take seconds. Several processes ask once, after the call,
    because all of them must ask equally often.
    """
    if jax.process_count() == 1:
        waits = _WAITING.submit(jax.block_until_ready, value)
        while not futures.wait((waits,), _POLL).done:
            if should_stop():
                return True
        waits.result()  # raises what the call raised
    jax.block_until_ready(value)  # calls in a queue could not be taken back
    return should_stop()


class BoundedEvalStep:
    """``eval_step`` in calls of a few ACT steps.

    Args:
      config: the experiment.
      mesh: rows are sharded over it.
      steps: ACT steps of a call, at most.
      with_logits: keeps the logits of the last step.
    """

    def __init__(self, config: ExperimentConfig, mesh: Mesh, steps: int, with_logits: bool = False):
        self._depths, self._steps = eval_step.read_depths(config), steps
        rows, whole = partitioning.batch_sharding(mesh), partitioning.replicated(mesh)

        def stepper(weights, batch, seed, first):
            key = jax.random.key(seed)
            ids = batch.puzzle_identifiers
            return eval_step.stepper(config, weights, batch.inputs, ids, key, first)

        def begin(*given):
            with partitioning.activate(mesh):
                return stepper(*given)[0]

        def advance(latent, number, end, *given):
            with partitioning.activate(mesh):
                step = stepper(*given)[1]
                return jax.lax.fori_loop(number, end, lambda n, z: step(z, n)[0], latent), end

        def read(latent, number, weights, batch, seed, first):
            with partitioning.activate(mesh):
                latent, outputs = stepper(weights, batch, seed, first)[1](latent, number)
                return latent, eval_step.result_of(config, outputs, batch, number, with_logits)

        given, logits = (None, rows, None, None), rows if with_logits else None
        sums = partitioning.sums_sharding(mesh)
        result = eval_step.EvalResult(sums, rows, rows, rows, logits=logits)
        self._begin = jax.jit(begin, in_shardings=given, out_shardings=rows)
        self._advance = jax.jit(
            advance,
            donate_argnums=0,
            in_shardings=(rows, None, None, *given),
            out_shardings=(rows, whole),
        )
        self._read = jax.jit(
            read,
            donate_argnums=0,
            in_shardings=(rows, None, *given),
            out_shardings=(rows, result),
        )

    def __call__(
        self,
        weights: Weights,
        batch: Batch,
        seed: int = 0,
        first: int = 0,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> eval_step.EvalResult | None:
        """Answers and scores a batch; None where ``should_stop`` ended it."""
        given = (weights, batch, draws.seed_of(seed), jnp.int32(first))
        latent, number, found = self._begin(*given), 1, []
        for depth in self._depths:
            while number < depth:
                end = min(depth, number + self._steps)
                latent, done = self._advance(latent, jnp.int32(number), jnp.int32(end), *given)
                number = end
                if stopped_before(done, should_stop):
                    return None
            latent, result = self._read(latent, jnp.int32(depth), *given)
            if stopped_before(result.q_halt, should_stop):
                return None
            found.append(result)
            number = depth + 1
        return found[0].replace(deeper=tuple(one.sums for one in found[1:]))
