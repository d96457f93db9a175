"""The recursive core: one ACT step from (state, puzzle) to (state, predictions).

It knows no batch size, loss, halting rule or random policy: those are act.py's, losses.py's
and the train step's. HRM and its relatives are configurations of this module.
"""

from typing import Any

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp

from hrm_jax import types
from hrm_jax.config import ModelConfig
from hrm_jax.model import blocks, embeddings, layers, recursion
from hrm_jax.types import LatentState, Outputs


class HRM(nn.Module):
    """Hierarchical Reasoning Model, one ACT step ("segment").

    Source: arXiv 2506.21734, section 2; sapientinc/HRM models/hrm/hrm_act_v1.py.

    Collections: ``params`` (float32, trained) and ``constants`` (initial states ``H_init``
    and ``L_init`` [D] in the compute dtype, drawn once and never trained).
    """

    config: ModelConfig

    def setup(self):
        config = self.config
        self.embed_tokens = layers.Embedding(
            config.vocab_size, config.hidden_size, (types.VOCAB, types.EMBED)
        )
        if config.pos_encodings == 'learned':
            self.embed_pos = layers.Embedding(
                config.total_len, config.hidden_size, (types.CELLS, types.EMBED)
            )
        self.L_level = blocks.Level(config, config.L_layers)
        if config.levels == 'separate':
            self.H_level = blocks.Level(config, config.H_layers)
        self.lm_head = layers.Projection(
            (config.vocab_size,),
            (types.EMBED,),
            (types.VOCAB,),
            layers.kernel_initializer(config, config.hidden_size),
        )
        # Q starts near "never halt, never gain": zero weights and bias -5 (paper, section 2).
        self.q_head = layers.Projection(
            (2,),
            (types.EMBED,),
            ('q',),
            nn.initializers.zeros_init(),
            use_bias=True,
            bias_init=nn.initializers.constant(-5.0),
        )
        dtype = jnp.dtype(config.forward_dtype)
        for name in ('H_init', 'L_init'):
            self.variable(
                'constants',
                name,
                lambda: layers.truncated_normal(1.0)(
                    self.make_rng('params'), (config.hidden_size,), dtype
                ),
            )

    def __call__(
        self, latent: LatentState, inputs_BS: jax.Array, puzzle_rows_BE: jax.Array | None
    ) -> tuple[LatentState, Outputs]:
        """Runs one ACT step.

        Args:
          latent: state, [B, T, D] in the compute dtype.
          inputs_BS: int32 token ids.
          puzzle_rows_BE: float32 rows of the puzzle table, or None without a prefix.

        Returns:
          The new state, through which gradients flow as far as ``gradient_window`` says,
          and the predictions.
        """
        config = self.config
        x_BTD = self.embed(inputs_BS, puzzle_rows_BE)
        chex.assert_equal_shape([x_BTD, latent.high, latent.low])
        latent = self._reason(latent, x_BTD)
        logits_BSV = self.lm_head(latent.high[:, config.prefix_len :])
        q_B2 = self.q_head(latent.high[:, 0]).astype(jnp.float32)
        return latent, Outputs(logits=logits_BSV, q_halt=q_B2[:, 0], q_continue=q_B2[:, 1])

    def embed(self, inputs_BS: jax.Array, puzzle_rows_BE: jax.Array | None) -> jax.Array:
        """Embeds a puzzle, [B, T, D]: what is injected at every low-level update."""
        positions = self.embed_pos if self.config.pos_encodings == 'learned' else None
        return embeddings.embed_puzzle(
            self.config, self.embed_tokens, positions, inputs_BS, puzzle_rows_BE
        )

    def _reason(self, latent: LatentState, x_BTD: jax.Array) -> LatentState:
        config = self.config
        low_level = self.L_level
        high_level = self.L_level if config.levels == 'shared' else self.H_level
        if self.is_initializing():
            # Every parameter is made by one application; tracing the loops would only cost time.
            low = low_level(latent.low, latent.high + x_BTD)
            return LatentState(high=high_level(latent.high, low), low=low)

        # Linen modules can not be called inside jax.lax.scan: apply unbound copies instead.
        def rule(level: blocks.Level):
            unbound = level.clone(parent=None)
            return lambda params, state, inject: unbound.apply({'params': params}, state, inject)

        low_params = low_level.variables['params']
        shared = high_level is low_level
        return recursion.unroll_cycles(
            rule(low_level),
            rule(high_level),
            (low_params, low_params if shared else high_level.variables['params']),
            latent,
            x_BTD,
            H_cycles=config.H_cycles,
            L_cycles=config.L_cycles,
            gradient_window=config.gradient_window,
            unroll=config.unroll_cycles,
        )


def initial_latent(constants: Any) -> LatentState:
    """State of a puzzle that was just begun, [D] each: broadcast over rows and positions."""
    return LatentState(high=constants['H_init'], low=constants['L_init'])


def empty_latent(config: ModelConfig, rows: int) -> LatentState:
    """Zeros [rows, T, D] in the compute dtype, for rows that take a puzzle at their first step."""
    shape = (rows, config.total_len, config.hidden_size)
    dtype = jnp.dtype(config.forward_dtype)
    return LatentState(high=jnp.zeros(shape, dtype), low=jnp.zeros(shape, dtype))


def gather_puzzle_rows(puzzle_table: jax.Array | None, ids_B: jax.Array) -> jax.Array | None:
    """Rows [B, E] of the puzzle table for int32 ids, or None without a table."""
    return None if puzzle_table is None else jnp.take(puzzle_table, ids_B, axis=0)
