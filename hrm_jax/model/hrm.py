"""The recursive core: one ACT step from (state, puzzle) to (state, predictions).

It knows no batch size, loss, halting rule or random policy: those are act.py's, losses.py's
and the train step's. HRM and its relatives are configurations of this module. The functions at the
end are the only callers of ``HRM.apply``: training, evaluation, early exit, pictures and the
transformers-style classes all run ``act_step``.
"""

import contextlib
import dataclasses
from typing import Any

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp

from hrm_jax import types
from hrm_jax.config.model import ModelConfig
from hrm_jax.model import blocks, embeddings, layers, recursion, sru
from hrm_jax.types import LatentState, Outputs, Weights


class HRM(nn.Module):
    """Hierarchical Reasoning Model, one ACT step ("segment").

    Source: arXiv 2506.21734, section 2; sapientinc/HRM models/hrm/hrm_act_v1.py.

    Collections: ``params`` (float32, trained) and ``constants`` (initial states ``H_init`` and
    ``L_init`` in the compute dtype and frozen weights, drawn once and never trained).
    """

    config: ModelConfig

    def setup(self):
        config = self.config
        dim = config.hidden_size
        table_init = layers.embedding_initializer(config, dim)
        self.embed_tokens = layers.Embedding(
            config.vocab_size, dim, (types.VOCAB, types.EMBED), table_init
        )
        if config.uses_learned_positions:
            self.embed_pos = layers.Embedding(
                config.total_len, dim, (types.CELLS, types.EMBED), table_init
            )
        level = sru.SruLevel if config.is_recurrent else blocks.Level
        self.L_level = level(config, config.L_layers)
        if config.levels == 'separate':
            self.H_level = level(config, config.H_layers)
        self.lm_head = layers.Projection(
            (config.vocab_size,),
            (types.EMBED,),
            (types.VOCAB,),
            layers.kernel_initializer(config, dim),
            use_bias=config.head_bias,
            bias_init=layers.bias_initializer(config, dim),
        )
        if config.q_head:
            # Q starts near "never halt, never gain": zero weights and bias -5 (paper, section 2).
            self.q_head = layers.Projection(
                (2,),
                (types.EMBED,),
                ('q',),
                nn.initializers.zeros_init(),
                use_bias=True,
                bias_init=nn.initializers.constant(-5.0),
            )
        for name, shape in initial_shapes(config).items():
            self._make_initial(name, shape)

    def _make_initial(self, name: str, shape: tuple[int, ...]) -> None:
        config = self.config
        init = layers.state_initializer(config)
        if config.initial_state == 'learned':
            layers.param(self, name, init, shape, (None,) * len(shape))
        else:
            dtype = jnp.dtype(config.forward_dtype)
            self.variable('constants', name, lambda: init(self.make_rng('params'), shape, dtype))

    def __call__(
        self, latent: LatentState, inputs_BS: jax.Array, puzzle_rows_BE: jax.Array | None
    ) -> tuple[LatentState, Outputs]:
        """Runs one ACT step. Dropout is on where a ``dropout`` key is given.

        Args:
          latent: state, [B, T, D] in the compute dtype (``empty_latent`` for other kinds).
          inputs_BS: int32 token ids.
          puzzle_rows_BE: float32 rows of the puzzle table, or None without a prefix.

        Returns:
          The new state, through which gradients flow as far as ``gradient_window`` reaches,
          and the predictions.
        """
        with _full_precision(self.config):
            return self._act_step(latent, inputs_BS, puzzle_rows_BE)

    def _act_step(
        self, latent: LatentState, inputs_BS: jax.Array, puzzle_rows_BE: jax.Array | None
    ) -> tuple[LatentState, Outputs]:
        config = self.config
        x_BTD = self.embed(inputs_BS, puzzle_rows_BE)
        if config.is_recurrent:
            assert latent.low is not None  # both levels have cells
            middle_BTD, low = self.L_level(x_BTD, latent.low)
            read_BTD, high = self.H_level(middle_BTD, latent.high)
            latent = LatentState(high=high, low=low)
        else:
            chex.assert_equal_shape([x_BTD, latent.high])
            latent = self._reason(latent, x_BTD, self._schedule())
            read_BTD = latent.high
        logits_BSV = self.lm_head(read_BTD[:, config.prefix_len :])
        q_halt_B, q_continue_B = self._read_q(read_BTD)
        return latent, Outputs(logits=logits_BSV, q_halt=q_halt_B, q_continue=q_continue_B)

    def _read_q(self, read_BTD: jax.Array) -> tuple[jax.Array, jax.Array]:
        if not self.config.q_head:
            no_q_B = jnp.zeros(read_BTD.shape[0], jnp.float32)
            return no_q_B, no_q_B
        q_B2 = self.q_head(read_BTD[:, 0]).astype(jnp.float32)
        return q_B2[:, 0], q_B2[:, 1]

    def q_values(
        self, latent: LatentState, inputs_BS: jax.Array, puzzle_rows_BE: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """The ``q_halt`` and ``q_continue`` that one ACT step would give, float32 [B] each.

        The numbers are those of ``__call__``, from less work: Q is read at position 0, so no more
        than that is computed of the last high-level block, and of SRU whose recurrence only runs
        forward no other position at all. Not for gradients. With dropout the whole step is run,
        for its masks.
        """
        config = self.config
        with _full_precision(config):
            if self.has_rng('dropout'):
                outputs = self._act_step(latent, inputs_BS, puzzle_rows_BE)[1]
                return outputs.q_halt, outputs.q_continue
            x_BTD = self.embed(inputs_BS, puzzle_rows_BE)
            if config.is_recurrent:
                if config.block == 'sru' and not config.sru_bidirectional:
                    x_BTD = x_BTD[:, :1]
                assert latent.low is not None  # both levels have cells
                middle_BTD, _ = self.L_level(x_BTD, latent.low)
                return self._read_q(self.H_level(middle_BTD, latent.high)[0])
            schedule = dataclasses.replace(self._schedule(), gradient_window='full')
            return self._read_q(self._reason(latent, x_BTD, schedule, first_only=True).high)

    def embed(self, inputs_BS: jax.Array, puzzle_rows_BE: jax.Array | None) -> jax.Array:
        """Embeds a puzzle, [B, T, D]: what is injected at every low-level update."""
        positions = self.embed_pos if self.config.uses_learned_positions else None
        return embeddings.embed_puzzle(
            self.config, self.embed_tokens, positions, inputs_BS, puzzle_rows_BE
        )

    def read(self, latent: LatentState) -> jax.Array:
        """Logits [B, S, V] that the state stands for (not for recurrent blocks)."""
        with _full_precision(self.config):
            return self.lm_head(latent.high[:, self.config.prefix_len :])

    def cycle(
        self, latent: LatentState, inputs_BS: jax.Array, puzzle_rows_BE: jax.Array | None
    ) -> LatentState:
        """Runs one high-level cycle only: ``H_cycles`` of them are one ACT step."""
        one = dataclasses.replace(self._schedule(), H_cycles=1, gradient_window='full')
        with _full_precision(self.config):
            return self._reason(latent, self.embed(inputs_BS, puzzle_rows_BE), one)

    def _schedule(self) -> recursion.Schedule:
        config = self.config
        return recursion.Schedule(
            H_cycles=config.H_cycles,
            L_cycles=config.L_cycles,
            gradient_window=config.gradient_window,
            closing_update=config.closing_update,
            straight_through=config.initial_state == 'learned',
            unroll=config.unroll_cycles,
        )

    def _reason(
        self,
        latent: LatentState,
        x_BTD: jax.Array,
        schedule: recursion.Schedule,
        first_only: bool = False,
    ) -> LatentState:
        config = self.config
        low_level = self.L_level
        high_level = self.H_level if config.levels == 'separate' else self.L_level
        if self.is_initializing():
            # Every parameter is made by one application; tracing the loops would only cost time.
            low_level(latent.high, x_BTD)
            if high_level is not low_level:
                high_level(latent.high, x_BTD)
            return latent

        # Linen modules cannot be called inside jax.lax.scan: apply unbound copies instead.
        def rule(level: nn.Module, first_only: bool = False) -> recursion.Update:
            unbound = level.clone(parent=None)

            def update(params, state, inject, key) -> Any:
                rngs = None if key is None else {'dropout': key}
                return unbound.apply({'params': params}, state, inject, first_only, rngs=rngs)

            return update

        low_params = low_level.variables['params']
        high_params = low_params if high_level is low_level else high_level.variables['params']
        return recursion.unroll_cycles(
            rule(low_level),
            rule(high_level),
            (low_params, high_params),
            latent,
            x_BTD,
            schedule,
            self.make_rng('dropout') if self.has_rng('dropout') else None,
            # Models whose last update is a low one have nothing to shorten.
            rule(high_level, first_only=True) if first_only else None,
        )


def _full_precision(config: ModelConfig) -> contextlib.AbstractContextManager:
    """Lets float32 mean float32 while a program is traced, backward pass included.

    GPUs and TPUs multiply float32 matrices with fewer bits by default, the original does not.
    ``jax_default_matmul_precision`` is respected where somebody set it.
    """
    # jax makes the attributes of its configuration while it is imported.
    chosen = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    reduced = jax.default_backend() != 'cpu' and chosen is None
    if config.forward_dtype == 'float32' and reduced:
        return jax.default_matmul_precision('highest')
    return contextlib.nullcontext()


def initial_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of the initial states; they broadcast against those of ``empty_latent``."""
    dim = config.hidden_size
    if config.is_recurrent:
        return {'H_init': (config.H_layers, dim), 'L_init': (config.L_layers, dim)}
    if config.levels == 'single':
        return {'H_init': (dim,)}
    several = config.low_states > 1
    return {'H_init': (dim,), 'L_init': (config.low_states, 1, dim) if several else (dim,)}


def initial_latent(weights: Weights) -> LatentState:
    """State of a puzzle that was just begun: broadcasts over rows and positions.

    The initial states are constants, or with ``initial_state='learned'`` params.
    """
    found = weights.constants if 'H_init' in weights.constants else weights.params
    return LatentState(high=found['H_init'], low=found.get('L_init'))


def empty_latent(config: ModelConfig, rows: int) -> LatentState:
    """Zeros, for rows that take a puzzle at their first step.

    [rows, T, D] in the compute dtype; several low states: low is [rows, states, T, D]; one-state
    models: low is None; recurrent blocks: float32 cells, [rows, layers, D].
    """
    dim = config.hidden_size
    if config.is_recurrent:
        return LatentState(
            high=jnp.zeros((rows, config.H_layers, dim), jnp.float32),
            low=jnp.zeros((rows, config.L_layers, dim), jnp.float32),
        )
    dtype = jnp.dtype(config.forward_dtype)
    high = jnp.zeros((rows, config.total_len, dim), dtype)
    if config.levels == 'single':
        return LatentState(high=high, low=None)
    states = () if config.low_states == 1 else (config.low_states,)
    return LatentState(high=high, low=jnp.zeros((rows, *states, config.total_len, dim), dtype))


def fresh_latent(config: ModelConfig, weights: Weights, rows: int) -> LatentState:
    """State of ``rows`` puzzles that were just begun, of the shapes of ``empty_latent``."""
    return jax.tree.map(
        lambda init, like: jnp.broadcast_to(init.astype(like.dtype), like.shape),
        initial_latent(weights),
        empty_latent(config, rows),
    )


def puzzle_rows(weights: Weights, ids_B: jax.Array) -> jax.Array | None:
    """Rows [B, E] of the puzzle table for int32 ids, or None without a table."""
    return None if weights.puzzle_table is None else jnp.take(weights.puzzle_table, ids_B, axis=0)


def _apply(config: ModelConfig, weights: Weights, *args: Any, method: str, key=None) -> Any:
    variables = {'params': weights.params, 'constants': weights.constants}
    rngs = None if key is None else {'dropout': key}
    return HRM(config).apply(variables, *args, rngs=rngs, method=method)


def _dropout_key(config: ModelConfig, key: jax.Array | None, training: bool) -> jax.Array | None:
    return key if training and config.has_dropout else None


def act_step(
    config: ModelConfig,
    weights: Weights,
    latent: LatentState,
    inputs_BS: jax.Array,
    puzzle_rows_BE: jax.Array | None,
    key: jax.Array | None = None,
    *,
    training: bool = False,
) -> tuple[LatentState, Outputs]:
    """Runs one ACT step ("segment") of every row.

    Args:
      config: architecture.
      weights: of which params and constants are read.
      latent: state before the step (``fresh_latent`` for new puzzles).
      inputs_BS: int32 token ids.
      puzzle_rows_BE: float32 rows of the puzzle table (``puzzle_rows``), or None.
      key: of everything that is drawn during the step; None: nothing is.
      training: dropout is on, where the model has any.

    Returns:
      The new state, through which gradients flow as far as ``gradient_window`` reaches, and the
      predictions.
    """
    return _apply(
        config, weights, latent, inputs_BS, puzzle_rows_BE,
        method='__call__', key=_dropout_key(config, key, training),
    )  # fmt: skip


def next_q(
    config: ModelConfig,
    weights: Weights,
    latent: LatentState,
    inputs_BS: jax.Array,
    puzzle_rows_BE: jax.Array | None,
    key: jax.Array | None = None,
    *,
    training: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """The Q values that ``act_step`` would give, float32 [B] twice, from less work.

    See ``HRM.q_values``; the arguments are those of ``act_step``.
    """
    return _apply(
        config, weights, latent, inputs_BS, puzzle_rows_BE,
        method='q_values', key=_dropout_key(config, key, training),
    )  # fmt: skip


def run_cycle(
    config: ModelConfig,
    weights: Weights,
    latent: LatentState,
    inputs_BS: jax.Array,
    puzzle_rows_BE: jax.Array | None,
) -> LatentState:
    """Runs one high-level cycle only; ``H_cycles`` of them are one ACT step."""
    return _apply(config, weights, latent, inputs_BS, puzzle_rows_BE, method='cycle')


def read_logits(config: ModelConfig, weights: Weights, latent: LatentState) -> jax.Array:
    """Logits [B, S, V] that a state stands for (not for recurrent blocks)."""
    return _apply(config, weights, latent, method='read')


def embed(
    config: ModelConfig,
    weights: Weights,
    inputs_BS: jax.Array,
    puzzle_rows_BE: jax.Array | None,
) -> jax.Array:
    """Embedded puzzles [B, T, D]: what is injected at every low-level update."""
    return _apply(config, weights, inputs_BS, puzzle_rows_BE, method='embed')
