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

from hrm_jax import partitioning, types
from hrm_jax.config.model import ModelConfig
from hrm_jax.model import (
    blocks,
    candidates,
    chains,
    draws,
    embeddings,
    flows,
    gated_unit,
    lattice,
    layers,
    recursion,
    running_mean,
    sru,
    starts,
    symbols,
)
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
        if config.lattice.on:
            self.candidates = candidates.CandidateModel(config)
            return
        dim = config.hidden_size
        table_init = layers.embedding_initializer(config, dim)
        if config.has_symbols:
            self.embed_symbols = symbols.SymbolInput(config)
        else:
            self.embed_tokens = layers.Embedding(
                config.vocab_size, dim, (types.VOCAB, types.EMBED), table_init
            )
            if config.uses_learned_positions:
                self.embed_pos = layers.Embedding(
                    config.total_len, dim, (types.CELLS, types.EMBED), table_init
                )
        self.registers_RD = None
        if config.register_tokens:
            self.registers_RD = layers.param(
                self, 'register_tokens', table_init, (config.register_tokens, dim),
                (None, types.EMBED),
            )  # fmt: skip
        level = sru.SruLevel if config.is_recurrent else blocks.Level
        self.L_level = level(config, config.L_layers)
        if config.levels == 'separate':
            self.H_level = level(config, config.H_layers)
        if config.has_symbols:
            self.lm_head = symbols.SymbolHead(config)
        else:
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
        if config.flow:
            kernel_init = layers.kernel_initializer

            def projection(size, axis, bias):
                return layers.Projection(
                    (dim,), (axis,), (types.EMBED,), kernel_init(config, size), use_bias=bias,
                    bias_init=layers.bias_initializer(config, size),
                )  # fmt: skip

            self.embed_answer = projection(config.vocab_size, types.VOCAB, False)
            self.time_in = projection(1, 'time', True)
            self.time_out = projection(dim, 'time', True)
        if config.running_mean:
            self.high_mean = running_mean.RunningMean(config)
            if config.levels != 'single':
                self.low_mean = running_mean.RunningMean(config)
        for name, shape in starts.initial_shapes(config).items():
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
        self,
        latent: LatentState,
        inputs_BS: jax.Array,
        puzzle_rows_BE: jax.Array | None,
        noise_key: jax.Array | None = None,
        point: flows.Point | None = None,
    ) -> tuple[LatentState, Any]:
        """Runs one ACT step. Dropout is on where a ``dropout`` key is given.

        Args:
          latent: state, [B, T, D] in the compute dtype (``empty_latent`` for other kinds).
          inputs_BS: int32 token ids.
          puzzle_rows_BE: float32 rows of the puzzle table, or None without a prefix.
          noise_key: of the noise at the updates, one or one for each row.
          point: what a looped flow denoises; None: the state's answer as it is.

        Returns:
          The new state, through which gradients flow as far as ``gradient_window`` reaches,
          and the predictions. With candidate sets the state stays, and ``read_candidates`` tells
          more; this makes its parameters.
        """
        if self.config.lattice.on:
            return latent, self.read_candidates(latent.high)
        with _full_precision(self.config):
            return self._act_step(latent, inputs_BS, puzzle_rows_BE, noise_key, point)

    def read_candidates(self, alive_BSC: jax.Array, all_loops: bool = False) -> candidates.Readings:
        """Reads candidate sets, bool [B, S, C], after the last loop or after each."""
        with _full_precision(self.config):
            return self.candidates(alive_BSC, all_loops)

    def _act_step(
        self, latent: LatentState, inputs_BS: jax.Array, puzzle_rows_BE, noise_key, point=None
    ) -> tuple[LatentState, Outputs]:
        config = self.config
        if point is None and latent.answer is not None:
            point = flows.here(latent.answer)
        x_BTD = self.embed(inputs_BS, puzzle_rows_BE, point)
        if config.is_recurrent:
            assert latent.low is not None  # both levels have cells
            middle_BTD, low = self.L_level(x_BTD, latent.low)
            read_BTD, high = self.H_level(middle_BTD, latent.high)
            latent = latent.replace(high=high, low=low)
        else:
            chex.assert_equal_shape([x_BTD, latent.high])
            latent = self._reason(latent, x_BTD, recursion.Schedule.of(config), noise_key)
            read_BTD = latent.high
        logits_BSV = self._read_logits(read_BTD)
        if config.q_confidence:
            q_halt_B = symbols.least_confidence(logits_BSV)
            q_continue_B = jnp.zeros_like(q_halt_B)
        else:
            q_halt_B, q_continue_B = self._read_q(read_BTD)
        return latent, Outputs(logits=logits_BSV, q_halt=q_halt_B, q_continue=q_continue_B)

    def _read_logits(self, read_BTD: jax.Array) -> jax.Array:
        first = self.config.prefix_len
        return self.lm_head(read_BTD[..., first : first + self.config.seq_len, :])

    def _read_q(self, read_BTD: jax.Array) -> tuple[jax.Array, jax.Array]:
        if not self.config.q_head:
            no_q_B = jnp.zeros(read_BTD.shape[0], jnp.float32)
            return no_q_B, no_q_B
        # With a symbol axis no position is special to all: the mean over symbols and positions.
        read_BD = read_BTD.mean((1, 2)) if self.config.has_symbols else read_BTD[:, 0]
        q_B2 = self.q_head(read_BD).astype(jnp.float32)
        return q_B2[:, 0], q_B2[:, 1]

    def q_values(
        self,
        latent: LatentState,
        inputs_BS: jax.Array,
        puzzle_rows_BE: jax.Array | None,
        noise_key: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """The ``q_halt`` and ``q_continue`` that one ACT step would give, float32 [B] each.

        The numbers are those of ``__call__``, from less work: Q is read at position 0, so no more
        than that is computed of the last high-level block, and of SRU whose recurrence only runs
        forward no other position at all. Not for gradients. With dropout the whole step is run,
        for its masks; with a symbol axis too, where Q reads every position.
        """
        config = self.config
        with _full_precision(config):
            if self.has_rng('dropout') or config.has_symbols:
                outputs = self._act_step(latent, inputs_BS, puzzle_rows_BE, noise_key)[1]
                return outputs.q_halt, outputs.q_continue
            x_BTD = self.embed(inputs_BS, puzzle_rows_BE)
            if config.is_recurrent:
                if config.block == 'sru' and not config.sru_bidirectional:
                    x_BTD = x_BTD[:, :1]
                assert latent.low is not None  # both levels have cells
                middle_BTD, _ = self.L_level(x_BTD, latent.low)
                return self._read_q(self.H_level(middle_BTD, latent.high)[0])
            schedule = dataclasses.replace(recursion.Schedule.of(config), gradient_window='full')
            latent = self._reason(latent, x_BTD, schedule, noise_key, first_only=True)
            return self._read_q(latent.high)

    def embed(
        self,
        inputs_BS: jax.Array,
        puzzle_rows_BE: jax.Array | None,
        point: flows.Point | None = None,
    ) -> jax.Array:
        """Embeds a puzzle, [B, T, D] (or [B, G, T, D]): what every low-level update is given."""
        if self.config.has_symbols:
            return self.embed_symbols(inputs_BS, puzzle_rows_BE)
        positions = self.embed_pos if self.config.uses_learned_positions else None
        conditions = {}
        if point is not None:
            dtype = jnp.dtype(self.config.forward_dtype)
            hidden = nn.silu(self.time_in(point.time[:, None].astype(dtype)))
            conditions = {
                'answer_BSD': self.embed_answer(point.x.astype(dtype)),
                'time_BD': self.time_out(hidden),
            }
        return embeddings.embed_puzzle(
            self.config,
            self.embed_tokens,
            positions,
            inputs_BS,
            puzzle_rows_BE,
            self.registers_RD,
            **conditions,
        )

    def read(self, latent: LatentState) -> jax.Array:
        """Logits [B, S, V] that the state stands for (not for recurrent blocks)."""
        with _full_precision(self.config):
            return self._read_logits(latent.high)

    def cycle(
        self,
        latent: LatentState,
        inputs_BS: jax.Array,
        puzzle_rows_BE: jax.Array | None,
        noise_key: jax.Array | None = None,
    ) -> LatentState:
        """Runs one high-level cycle only: ``H_cycles`` of them are one ACT step."""
        one = dataclasses.replace(
            recursion.Schedule.of(self.config), H_cycles=1, gradient_window='full'
        )
        point = None if latent.answer is None else flows.here(latent.answer)
        with _full_precision(self.config):
            embedded = self.embed(inputs_BS, puzzle_rows_BE, point)
            return self._reason(latent, embedded, one, noise_key)

    def _reason(
        self,
        latent: LatentState,
        x_BTD: jax.Array,
        schedule: recursion.Schedule,
        noise_key: jax.Array | None = None,
        first_only: bool = False,
    ) -> LatentState:
        config = self.config
        answer = latent.answer
        latent = latent.replace(answer=None)  # no update reads it
        means = None
        if config.running_mean:
            means = (self.low_mean() if config.levels != 'single' else None, self.high_mean())
        low_level = self.L_level
        high_level = self.H_level if config.levels == 'separate' else self.L_level
        if self.is_initializing():
            # Every parameter is made by one application; tracing the loops would only cost time.
            low_level(latent.high, x_BTD)
            if high_level is not low_level:
                high_level(latent.high, x_BTD)
            return latent.replace(answer=answer)

        # Linen modules cannot be called inside jax.lax.scan: apply unbound copies instead.
        def rule(level: nn.Module, first_only: bool = False) -> recursion.Update:
            unbound = level.clone(parent=None)

            def update(params, state, inject, key) -> Any:
                rngs = None if key is None else {'dropout': key}
                return unbound.apply({'params': params}, state, inject, first_only, rngs=rngs)

            return update

        low_params = low_level.variables['params']
        high_params = low_params if high_level is low_level else high_level.variables['params']
        latent = recursion.unroll_cycles(
            rule(low_level),
            rule(high_level),
            (low_params, high_params, means),
            latent,
            x_BTD,
            schedule,
            recursion.Keys(
                self.make_rng('dropout') if self.has_rng('dropout') else None, noise_key
            ),
            # Models whose last update is a low one have nothing to shorten.
            rule(high_level, first_only=True) if first_only else None,
        )
        return latent.replace(answer=answer)


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


def _apply(
    config: ModelConfig, weights: Weights, *args: Any, method: str, dropout=None, **more: Any
) -> Any:
    variables = {'params': weights.params, 'constants': weights.constants}
    rngs = None if dropout is None else {'dropout': dropout}
    return HRM(config).apply(variables, *args, rngs=rngs, method=method, **more)


def _think(
    config, weights, latent, inputs_BS, puzzle_rows_BE, key, training, method, **more
) -> Any:
    """Noise before the step, then the step with its draws."""
    noises = {'high': config.high_step_noise, 'low': config.low_step_noise}
    step_key = draws.key_of('step_noise', key)
    for number, (name, std) in enumerate(noises.items()):
        state = getattr(latent, name)
        if std > 0 and state is not None:
            noise = std * draws.normal(draws.fold(step_key, number), state.shape)
            latent = latent.replace(**{name: (state + noise).astype(state.dtype)})
    has_dropout = config.has_dropout and (training or config.dropout_at_inference)
    noise_key = draws.key_of('update_noise', key)
    if has_dropout and key is not None and key.ndim:
        rows = (latent, inputs_BS, puzzle_rows_BE, more)
        return _each_with_its_masks(config, weights, rows, noise_key, key, method)
    return _apply(
        config, weights, latent, inputs_BS, puzzle_rows_BE, noise_key,
        method=method, dropout=key if has_dropout else None, **more,
    )  # fmt: skip


def _each_with_its_masks(config, weights, rows, noise_keys, keys, method) -> Any:
    """A step with dropout at inference, where every puzzle has a key of its own."""

    def one(row, noise_key, key):
        latent, inputs, puzzle, more = jax.tree.map(lambda x: x[None], row)
        noise_key = noise_key[None]
        found = _apply(
            config, weights, latent, inputs, puzzle, noise_key, method=method, dropout=key, **more
        )
        return jax.tree.map(lambda x: x[0], found)

    return jax.vmap(one)(rows, noise_keys, keys)


def laid_out(config: ModelConfig, weights: Weights) -> Weights:
    """The weights as the updates of a program want them, made once before all of them."""
    if partitioning.on_cpu() and config.gated_unit_kernel == 'xla':
        return weights.replace(params=gated_unit.taken_apart(weights.params))
    return weights


def act_step(
    config: ModelConfig,
    weights: Weights,
    latent: LatentState,
    inputs_BS: jax.Array,
    puzzle_rows_BE: jax.Array | None,
    key: jax.Array | None = None,
    *,
    training: bool = False,
    point: flows.Point | None = None,
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
      point: what a looped flow denoises (training: ``flows.interpolant``); None: the sampler's.

    Returns:
      The new state, through which gradients flow as far as ``gradient_window`` reaches, and the
      predictions; in training of several chains those of each, [B, K, ...].
    """
    if config.lattice.on:
        return _lattice_step(config, weights, latent, inputs_BS, key, training)
    several, alive = config.chains > 1, latent.alive
    if several:
        latent = chains.as_rows(latent.replace(alive=None))
        inputs_BS, puzzle_rows_BE = chains.repeated((inputs_BS, puzzle_rows_BE), config.chains)
        key = chains.keys(key, config.chains)
    sampled = config.flow and point is None
    if sampled:
        assert latent.answer is not None  # of every looped flow
        point = flows.sampler_point(config, latent.answer, inputs_BS, key)
    latent, outputs = _think(
        config, weights, latent, inputs_BS, puzzle_rows_BE, key, training, '__call__', point=point
    )
    if point is not None:
        assert latent.answer is not None  # of every looped flow
        answer = flows.moved(config, latent.answer, point, inputs_BS, outputs.logits)
        latent = latent.replace(answer=answer)
    if sampled:
        logits = flows.with_given(config, inputs_BS, outputs.logits)
        outputs = outputs.replace(logits=logits)
    if several:
        latent, outputs = chains.as_chains((latent, outputs), config.chains)
        latent = latent.replace(alive=alive)
        if not training:
            outputs = chains.first_to_halt(outputs)
    return latent, outputs


def _lattice_step(config, weights, latent, inputs_BS, key, training) -> tuple[LatentState, Outputs]:
    def read(alive_BSC):
        return read_candidates(config, weights, alive_BSC, key, training=training)

    left_BSC, outputs = lattice.step(config, read, latent.high, inputs_BS, key)
    return latent.replace(high=left_BSC), outputs


def read_candidates(
    config: ModelConfig,
    weights: Weights,
    alive_BSC: jax.Array,
    key: jax.Array | None = None,
    *,
    training: bool = False,
    all_loops: bool = False,
) -> candidates.Readings:
    """Reads candidate sets once; nothing is eliminated (model/lattice.py).

    Args:
      config: architecture with ``lattice.on``.
      weights: of which params are read.
      alive_BSC: bool, the candidates as the model sees them.
      key: of dropout, where there is any; see ``act_step``.
      training: dropout is on, where the model has any.
      all_loops: reads the state after every loop, not after the last one only.
    """
    has_dropout = config.has_dropout and (training or config.dropout_at_inference)
    if has_dropout and key is None:
        raise ValueError('this model drops at random: pass a key.')

    def read(alive_BSC, dropout):
        return _apply(
            config, weights, alive_BSC, all_loops, method='read_candidates', dropout=dropout
        )

    if not has_dropout or key is None or not key.ndim:
        return read(alive_BSC, key if has_dropout else None)

    def one(row, key):  # at inference every puzzle has masks of its own
        return jax.tree.map(lambda x: jnp.squeeze(x, int(all_loops)), read(row[None], key))

    return jax.vmap(one, out_axes=int(all_loops))(alive_BSC, key)


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
    return _think(
        config, weights, latent, inputs_BS, puzzle_rows_BE, key, training, method='q_values'
    )


def run_cycle(
    config: ModelConfig,
    weights: Weights,
    latent: LatentState,
    inputs_BS: jax.Array,
    puzzle_rows_BE: jax.Array | None,
    key: jax.Array | None = None,
) -> LatentState:
    """Runs one high-level cycle only; ``H_cycles`` of them are one ACT step."""
    noise_key = draws.key_of('update_noise', key)
    return _apply(config, weights, latent, inputs_BS, puzzle_rows_BE, noise_key, method='cycle')


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
