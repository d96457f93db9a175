"""What a model would answer after every high-level update, within the ACT steps too."""

import jax
import jax.numpy as jnp
import numpy as np

from hrm_jax.config import ExperimentConfig
from hrm_jax.errors import ConfigError
from hrm_jax.model import hrm, puzzle_table, starts
from hrm_jax.types import Weights


def frames(
    config: ExperimentConfig,
    weights: Weights,
    inputs_BS: np.ndarray,
    ids_B: np.ndarray,
    steps: int = 0,
) -> np.ndarray:
    """Answers puzzles and keeps the answer before the first and after every high-level update.

    Args:
      config: the experiment; its model knows the sizes of the data set.
      weights: the model.
      inputs_BS: int32 token ids.
      ids_B: int32 rows of the puzzle table.
      steps: ACT steps; 0: as many as in an evaluation.

    Returns:
      int32 [steps * H_cycles + 1, B, S].

    Raises:
      ConfigError: recurrent blocks, whose state between two steps stands for no answer.
    """
    if config.model.is_recurrent:
        raise ConfigError(
            f'model.block must keep a state per cell to be read after every update; it is '
            f'{config.model.block}. Look at the ACT steps instead (visualize/trace.py).'
        )
    if config.model.flow or config.eval.chains > 1:
        raise ConfigError(
            'updates within an ACT step can be looked at where a state stands for one answer: not '
            'with model.flow, whose noisy answer moves between steps, nor with eval.chains above '
            '1. Look at the ACT steps instead (visualize/trace.py).'
        )
    model = config.inference_model
    updates = config.with_eval_steps(steps).eval_steps * model.H_cycles

    @jax.jit
    def run(weights, inputs, ids):
        rows = puzzle_table.puzzle_rows(weights, ids)

        def read(latent):
            return jnp.argmax(hrm.read_logits(model, weights, latent), -1).astype(jnp.int32)

        def step(latent, number):
            key = jax.random.fold_in(jax.random.key(config.seed), number)
            latent = hrm.run_cycle(model, weights, latent, inputs, rows, key)
            return latent, read(latent)

        start = starts.fresh_latent(model, weights, inputs.shape[0], jax.random.key(config.seed))
        later = jax.lax.scan(step, start, jnp.arange(1, updates + 1))[1]
        return jnp.concatenate([read(start)[None], later])

    return np.asarray(run(weights, np.asarray(inputs_BS, np.int32), np.asarray(ids_B, np.int32)))
