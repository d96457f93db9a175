"""The symbol axis: a state for every (symbol, position) pair, [B, G, T, D].

Everything here treats the G symbols alike, so that renaming the symbols of a puzzle renames those
of the answer and changes nothing else. Blocks see the symbols folded into the rows, [B * G, T, D];
only the exchange looks across them. Sources: SE-RRM (arXiv 2603.02193; ml-jku/SE-RRM
models/recursive_reasoning/trm_equi.py) and the digit-field model (Fixed-Point-Reasoner-Structures
src/qhrrn2/dec_cell.py).
"""

from collections.abc import Callable
import functools
import math

from flax import linen as nn
import jax
import jax.numpy as jnp

from hrm_jax import partitioning, types
from hrm_jax.config import ModelConfig
from hrm_jax.model import attention, layers

# Logit of a token that is no symbol, where only symbols have a state: never the answer.
NO_SYMBOL = -1e4
STATE_AXES = (types.BATCH, types.SYMBOLS, types.CELLS, types.EMBED)


def fold(x_BGTD: jax.Array) -> jax.Array:
    """Makes every symbol a row of its own, [B * G, T, D]."""
    return x_BGTD.reshape(-1, *x_BGTD.shape[2:])


def unfold(x_RTD: jax.Array, num_symbols: int) -> jax.Array:
    """The inverse of ``fold``."""
    x = x_RTD.reshape(-1, num_symbols, *x_RTD.shape[1:])
    return partitioning.constrain(x, STATE_AXES)


class SymbolInput(nn.Module):
    """Input of the core by symbol: what is injected at every low-level update.

    ``presence``: sqrt(vocab_size) times the token's vector where the token is, 0 elsewhere; tokens
    below ``first_symbol`` have a vector each, all others share one. ``roles``: sqrt(hidden_size)
    times one of three vectors: the cell is empty, given as this symbol, given as another.

    Learned positions are added as they are. A puzzle's row is one vector for all cells and symbols,
    and one number for each symbol. Added slots stand after the cells and receive neither.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, inputs_BS: jax.Array, puzzle_rows_BE: jax.Array | None) -> jax.Array:
        """Returns [B, G, T, D] in the compute dtype."""
        config = self.config
        dtype = jnp.dtype(config.forward_dtype)
        encode = self._roles if config.symbol_input == 'roles' else self._presence
        x_BGSD = encode(inputs_BS, dtype)
        if config.uses_learned_positions:
            x_BGSD += self._vectors('positions', (config.seq_len,), dtype)
        if config.has_puzzle_table and puzzle_rows_BE is not None:
            rows_BE, dim = puzzle_rows_BE.astype(dtype), config.hidden_size
            x_BGSD += rows_BE[:, None, None, :dim] + rows_BE[:, dim:, None, None]
        if config.added_tokens:
            slots_GAD = self._by_symbol('slots', (config.added_tokens,), dtype)
            slots_BGAD = jnp.broadcast_to(slots_GAD, (len(inputs_BS), *slots_GAD.shape))
            x_BGSD = jnp.concatenate([x_BGSD, slots_BGAD], axis=2)
        return partitioning.constrain(x_BGSD, STATE_AXES)

    def _vectors(
        self, name: str, shape: tuple[int, ...], dtype: jnp.dtype, std: float = 1.0
    ) -> jax.Array:
        plain = self.config.initializer == 'truncated_normal_plain'
        init = (layers.plain_truncated_normal if plain else layers.truncated_normal)(std)
        names = (*[None] * len(shape), types.EMBED)
        return layers.param(self, name, init, (*shape, self.config.hidden_size), names).astype(
            dtype
        )

    def _by_symbol(self, name: str, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        """Vectors for every symbol, [G, ...]: own ones of special tokens, one of all others."""
        config = self.config
        count = config.num_symbols
        if not config.shared_symbols:
            return self._vectors(name, (count, *shape), dtype)
        special = config.first_symbol if config.symbol_input == 'presence' else 0
        shared = self._vectors(name, (1, *shape), dtype)
        shared = jnp.broadcast_to(shared, (count - special, *shared.shape[1:]))
        if not special:
            return shared
        return jnp.concatenate([self._vectors(f'special_{name}', (special, *shape), dtype), shared])

    def _presence(self, inputs_BS: jax.Array, dtype: jnp.dtype) -> jax.Array:
        tokens = jnp.arange(self.config.num_symbols)[:, None]
        scale = jnp.asarray(math.sqrt(self.config.vocab_size), dtype)  # rounded, as the original's
        present_BGS1 = ((inputs_BS[:, None] == tokens).astype(dtype) * scale)[..., None]
        return present_BGS1 * self._by_symbol('tokens', (1,), dtype)

    def _roles(self, inputs_BS: jax.Array, dtype: jnp.dtype) -> jax.Array:
        table_3D = self._roles_table(dtype)
        tokens = self.config.first_symbol + jnp.arange(self.config.num_symbols)[:, None]
        given_BGS = inputs_BS[:, None] >= self.config.first_symbol
        role_BGS = jnp.where(given_BGS, jnp.where(inputs_BS[:, None] == tokens, 1, 2), 0)
        return jnp.take(table_3D, role_BGS, axis=0)

    def _roles_table(self, dtype: jnp.dtype) -> jax.Array:
        dim = self.config.hidden_size
        table_3D = self._vectors('roles', (3,), jnp.dtype(jnp.float32), dim**-0.5)
        return (math.sqrt(dim) * table_3D).astype(dtype)


def answer_state(config: ModelConfig, roles_3D: jax.Array, answers_BS: jax.Array) -> jax.Array:
    """A high state [B, G, S, D] that stands for an answer, in the vectors of the input's roles.

    Args:
      config: architecture with ``symbol_input='roles'``.
      roles_3D: parameter ``embed_symbols/roles``.
      answers_BS: tokens; cells without a symbol have the role "given as another" everywhere.
    """
    tokens = config.first_symbol + jnp.arange(config.num_symbols)[:, None]
    role_BGS = jnp.where(answers_BS[:, None] == tokens, 1, 2)
    table = (math.sqrt(config.hidden_size) * roles_3D).astype(jnp.dtype(config.forward_dtype))
    return jnp.take(table, role_BGS, axis=0)


class MeanExchange(nn.Module):
    """A message to each symbol: a linear map of the mean of the other symbols at the cell."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BGTD: jax.Array) -> jax.Array:
        dim = x_BGTD.shape[-1]
        others = (x_BGTD.sum(1, keepdims=True) - x_BGTD) * (1 / (x_BGTD.shape[1] - 1))
        init = layers.kernel_initializer(self.config, dim)
        return layers.Projection((dim,), (types.EMBED,), ('message',), init, name='v_proj')(others)


class AttentionExchange(nn.Module):
    """Attention over the symbols of a position, no positions among them.

    Attributes:
      config: architecture.
      others_only: each symbol attends to the others, and the heads' values are joined without a
        further map; uniform weights then give ``MeanExchange``.
    """

    config: ModelConfig
    others_only: bool = False

    @nn.compact
    def __call__(self, x_BGTD: jax.Array) -> jax.Array:
        config = self.config
        dim, heads = x_BGTD.shape[-1], config.symbol_heads
        rows, count, length = x_BGTD.shape[:3]
        x_RGD = jnp.swapaxes(x_BGTD, 1, 2).reshape(rows * length, count, dim)
        init = layers.kernel_initializer(config, dim)

        def project(parts: int, size: int, name: str) -> list[jax.Array]:
            shape, names = (parts, heads, size), (types.QKV, types.HEADS, types.HEAD_DIM)
            y = layers.Projection(shape, (types.EMBED,), names, init, name=name)(x_RGD)
            return [y[:, :, i] for i in range(parts)]

        drop = None
        if config.attention_dropout > 0 and self.has_rng('dropout'):
            drop = functools.partial(layers.dropout, self, rate=config.attention_dropout)
        if self.others_only:
            q, k = project(2, config.symbol_head_size, 'qk_proj')
            (v,) = project(1, dim // heads, 'v_proj')
            mixed = attention.attend_to_others(q, k, v, drop).reshape(rows, length, count, dim)
        else:
            q, k, v = project(3, config.symbol_head_size, 'qkv_proj')
            mixed = attention.attend(q, k, v, config.attention, drop)
            fan_in = heads * config.symbol_head_size
            mixed = layers.Projection(
                (dim,),
                (types.HEADS, types.HEAD_DIM),
                (types.EMBED,),
                layers.kernel_initializer(config, fan_in),
                name='o_proj',
            )(mixed).reshape(rows, length, count, dim)
        return jnp.swapaxes(mixed, 1, 2)


EXCHANGES: dict[str, Callable[..., nn.Module]] = {
    'mean': MeanExchange,
    'attention': AttentionExchange,
    'attention_to_others': functools.partial(AttentionExchange, others_only=True),
}


class SymbolHead(nn.Module):
    """Logits from the states of the cells, [B, G, S, D] -> [B, S, V].

    One vector reads all symbols. Without shared symbols every logit reads all of them. Where only
    the symbols have states, the other tokens get ``NO_SYMBOL``.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BGSD: jax.Array) -> jax.Array:
        config = self.config
        dim = config.hidden_size
        if not config.shared_symbols:
            fan_in = config.num_symbols * dim
            init = layers.kernel_initializer(config, fan_in)
            names = (types.SYMBOLS, types.EMBED)
            head = layers.Projection((config.vocab_size,), names, (types.VOCAB,), init, name='all')
            return head(jnp.swapaxes(x_BGSD, 1, 2))
        init = layers.kernel_initializer(config, dim)
        logits = layers.Projection((1,), (types.EMBED,), (types.VOCAB,), init, name='each')(x_BGSD)
        logits_BSG = jnp.swapaxes(logits[..., 0], 1, 2)
        missing = config.vocab_size - config.num_symbols
        return jnp.pad(logits_BSG, ((0, 0), (0, 0), (missing, 0)), constant_values=NO_SYMBOL)


def least_confidence(logits_BSV: jax.Array) -> jax.Array:
    """The smallest over the cells of the largest probability, float32 [B] without gradient."""
    probabilities = jax.nn.softmax(jax.lax.stop_gradient(logits_BSV).astype(jnp.float32), axis=-1)
    return jnp.clip(probabilities.max(-1).min(-1), 0.0, 1.0)
