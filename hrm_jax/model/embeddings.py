"""Input of the core: puzzle prefix, tokens, positions, scale."""

import jax
import jax.numpy as jnp

from hrm_jax import partitioning, types
from hrm_jax.config import ModelConfig
from hrm_jax.model import gradient_sums, layers


def embed_puzzle(
    config: ModelConfig,
    tokens: layers.Embedding,
    positions: layers.Embedding | None,
    inputs_BS: jax.Array,
    puzzle_rows_BE: jax.Array | None,
    registers_RD: jax.Array | None = None,
    answer_BSD: jax.Array | None = None,
    time_BD: jax.Array | None = None,
) -> jax.Array:
    """Turns a puzzle into the vectors that are injected at every low-level update.

    Source: models/hrm/hrm_act_v1.py, _input_embeddings.

    Args:
      config: architecture.
      tokens: table of the vocabulary.
      positions: table of the positions, prefix included, or None without learned ones.
      inputs_BS: int32 token ids.
      puzzle_rows_BE: float32 rows of the puzzle table, or None without a table.
      registers_RD: learned vectors in place of the puzzle's (``register_tokens``), or None.
      answer_BSD: looped flows: the noisy answer, added to the tokens.
      time_BD: looped flows: the time, added at every position once all is scaled.

    Returns:
      [B, T, D] in the compute dtype; the prefix stands before the tokens.
    """
    dtype = jnp.dtype(config.forward_dtype)
    x = tokens(inputs_BS, dtype)
    if answer_BSD is not None:
        x = x + answer_BSD
    if registers_RD is not None:
        shape = (len(x), *registers_RD.shape)
        prefix = jnp.broadcast_to(gradient_sums.spread(registers_RD, shape, dtype), shape)
        x = jnp.concatenate([prefix, x], axis=1)
    if config.has_puzzle_table and puzzle_rows_BE is not None:
        room = config.prefix_len * config.hidden_size - puzzle_rows_BE.shape[-1]
        rows = jnp.pad(puzzle_rows_BE.astype(dtype), ((0, 0), (0, room)))
        prefix = rows.reshape(-1, config.prefix_len, config.hidden_size)
        x = jnp.concatenate([prefix, x], axis=1)
    if positions is not None:
        x = positions.added_to(x)
        if config.scale_learned_positions:
            # 1 / sqrt(2) keeps the variance of a sum of two embeddings of equal variance.
            x = layers.scale_in_float32(x, 0.707106781)
    x = layers.scale_in_float32(x, config.hidden_size**0.5)
    if time_BD is not None:
        x = x + time_BD[:, None]
    return partitioning.constrain(x, (types.BATCH, types.CELLS, types.EMBED))
