"""What a model would answer after every high-level update, within the ACT steps too."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hrm_jax import eval_step
from hrm_jax.config import ConfigError, ExperimentConfig
from hrm_jax.model import hrm


def frames(
    config: ExperimentConfig,
    weights: tuple[Any, Any, Any],
    inputs_BS: np.ndarray,
    ids_B: np.ndarray,
    steps: int = 0,
) -> np.ndarray:
    """Answers puzzles and keeps the answer before the first and after every high-level update.

    Args:
      config: the experiment; its model knows the sizes of the data set.
      weights: params, constants, puzzle table (or None).
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
    core = hrm.HRM(config.model)
    updates = (steps or eval_step.depth(config)) * config.model.H_cycles

    @jax.jit
    def run(weights, inputs, ids):
        params, constants, table = weights
        variables = {'params': params, 'constants': constants}
        rows = hrm.gather_puzzle_rows(table, ids)

        def read(latent):
            return jnp.argmax(core.apply(variables, latent, method='read'), -1).astype(jnp.int32)

        def step(latent, _):
            latent = core.apply(variables, latent, inputs, rows, method='cycle')
            return latent, read(latent)

        start = eval_step.fresh_latent(config, params, constants, inputs.shape[0])
        later = jax.lax.scan(step, start, length=updates)[1]
        return jnp.concatenate([read(start)[None], later])

    return np.asarray(run(weights, np.asarray(inputs_BS, np.int32), np.asarray(ids_B, np.int32)))
