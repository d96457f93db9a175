"""Blocks of a level: [B, T, D] -> [B, T, D], chosen by ``model.block``.

With ``first_only`` a block computes no more than position 0 of its output needs, [B, 1, D]. With
a symbol axis the rows are (puzzle, symbol) pairs, and the symbols exchange between the two halves
of a block (model/symbols.py).
"""

from collections.abc import Callable
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from hrm_jax import partitioning, types
from hrm_jax.config import ModelConfig
from hrm_jax.model import attention, layers, symbols


class SelfAttention(nn.Module):
    """Multi-head attention with one fused projection, output axes (q|k|v, heads, head_dim)."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD: jax.Array, first_only: bool = False) -> jax.Array:
        config = self.config
        dim = x_BTD.shape[-1]
        kernel_init, bias_init = layers.attention_initializers(config, dim)
        project = layers.Projection(
            (3, config.num_heads, config.head_dim),
            (types.EMBED,),
            (types.QKV, types.HEADS, types.HEAD_DIM),
            kernel_init,
            use_bias=config.qkv_bias,
            bias_init=bias_init,
            name='qkv_proj',
        )

        def heads(x, part=slice(None)):
            names = (types.BATCH, types.CELLS, types.QKV, types.HEADS, types.HEAD_DIM)
            return partitioning.constrain(project(x, part), names)

        drop = None
        if config.attention_dropout > 0 and self.has_rng('dropout'):
            drop = functools.partial(layers.dropout, self, rate=config.attention_dropout)
        mixed_BTNK = self._mix(x_BTD, heads, first_only, drop)
        return layers.Projection(
            (dim,),
            (types.HEADS, types.HEAD_DIM),
            (types.EMBED,),
            layers.kernel_initializer(config, config.attention_width),
            use_bias=config.o_bias,
            bias_init=bias_init,
            name='o_proj',
        )(mixed_BTNK)

    def _mix(self, x_BTD: jax.Array, heads: Callable, first_only: bool, drop: Any) -> jax.Array:
        """Attention [B, T, N, K] over x, whose queries, keys and values ``heads`` makes."""
        config = self.config
        if first_only:
            queries = _unstacked(heads(x_BTD[:, :1], slice(1)))
            parts = (*queries, *_unstacked(heads(x_BTD, slice(1, 3))))
        else:
            qkv_BTCNK = heads(x_BTD)
            tables = self._tables(x_BTD.shape[1]) if drop is None else None
            kind = config.attention, qkv_BTCNK.dtype, config.head_dim
            if tables is not None and attention.rotates(*kind):
                return attention.attend_rotated(qkv_BTCNK, *tables)
            parts = _unstacked(qkv_BTCNK)
        q_BTNK, k_BTNK, v_BTNK = parts
        if config.uses_rope:
            q_BTNK, k_BTNK = self._rotate(q_BTNK, k_BTNK)
        return attention.attend(q_BTNK, k_BTNK, v_BTNK, config.attention, drop)

    def _tables(self, positions: int) -> tuple[jax.Array, jax.Array] | None:
        """Cosines and sines of ``layers.rotate`` for all positions; None: rotated otherwise."""
        config = self.config
        if not config.uses_rope or config.pos_encodings in ('rope2d', 'rope2d_pairs'):
            return None
        if config.pos_encodings == 'rope2d_whole':
            tables = layers.whole_head_tables(
                config.board_shape, config.prefix_len, config.head_dim, config.rope_theta
            )
        else:
            length = positions - config.added_tokens
            tables = layers.rotary_tables(length, config.head_dim, config.rope_theta)
        return layers.padded_tables(tables, config.added_tokens)

    def _rotate(self, q_BTNK: jax.Array, k_BTNK: jax.Array) -> tuple[jax.Array, jax.Array]:
        config = self.config
        queries = q_BTNK.shape[1]
        tables = self._tables(k_BTNK.shape[1])
        if tables is not None:
            first = (table[:queries] for table in tables)
            k_BTNK = layers.rotate(k_BTNK, *tables)
            return layers.rotate(q_BTNK, *first), k_BTNK
        turn = layers.rotate if config.pos_encodings == 'rope2d' else layers.rotate_pairs
        on_board = layers.board_rotary_tables(
            config.board_shape, config.prefix_len, config.head_dim, config.rope_theta
        )
        rows, columns = (layers.padded_tables(pair, config.added_tokens) for pair in on_board)
        first = jax.tree.map(lambda table: table[:queries], (rows, columns))
        return (
            layers.rotate_on_board(q_BTNK, first[0], first[1], turn),
            layers.rotate_on_board(k_BTNK, rows, columns, turn),
        )


def _unstacked(x_BTCNK: jax.Array) -> list[jax.Array]:
    return [x_BTCNK[..., i, :, :] for i in range(x_BTCNK.shape[-3])]


def _add(block: nn.Module, x: jax.Array, change: jax.Array, norm: str) -> jax.Array:
    """The residual: dropout of the change, sum, norm (post-norm)."""
    config = block.config
    return layers.Norm(config, name=norm)(x + layers.dropout(block, change, config.dropout))


def _exchange(block: nn.Module, x_RTD: jax.Array) -> jax.Array:
    """The symbols of every position exchange; without a symbol axis nothing happens."""
    config = block.config
    if not config.has_symbols:
        return x_RTD
    exchange = symbols.EXCHANGES[config.symbol_exchange](config, name='symbol_exchange')
    message_BGTD = exchange(symbols.unfold(x_RTD, config.num_symbols))
    return _add(block, x_RTD, symbols.fold(message_BGTD), 'symbol_norm')


class AttentionBlock(nn.Module):
    """Attention over the positions, then the gated unit over the channels."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD: jax.Array, first_only: bool = False) -> jax.Array:
        config = self.config
        mixed = SelfAttention(config, name='self_attn')(x_BTD, first_only)
        y = _exchange(self, _add(self, x_BTD[:, : mixed.shape[1]], mixed, 'attn_norm'))
        return _add(self, y, layers.GatedUnit(config, config.mlp_dim, name='mlp')(y), 'mlp_norm')


class TokenMixingBlock(nn.Module):
    """A gated unit over the positions, then one over the channels.

    The first sub-layer's residual and norm run over the positions too, each channel by itself,
    and its weights fix the length of the sequence (TRM, ``mlp_t``).
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD: jax.Array, first_only: bool = False) -> jax.Array:
        config = self.config
        x_BDT = jnp.swapaxes(x_BTD, 1, 2)
        inner = config.inner_size(x_BDT.shape[-1])
        mixed_BDT = layers.GatedUnit(config, inner, types.CELLS, name='mlp_t')(x_BDT)
        y = jnp.swapaxes(_add(self, x_BDT, mixed_BDT, 'mlp_t_norm'), 1, 2)
        if first_only:  # not earlier: the norm just above runs over the positions
            y = y[:, :1]
        y = _exchange(self, y)
        return _add(self, y, layers.GatedUnit(config, config.mlp_dim, name='mlp')(y), 'mlp_norm')


class GroupMixing(nn.Module):
    """What a cell hears: a linear map of the mean of each group that it belongs to.

    The groups are the rows and the columns of the board, and its boxes where it has any. The maps
    act on the means, of which there are far fewer than cells.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        config = self.config
        dim, (height, width) = x_BTD.shape[-1], config.board_shape
        x_BHWD = x_BTD.reshape(-1, height, width, dim)

        def hears(means: jax.Array, name: str) -> jax.Array:
            init = layers.kernel_initializer(config, dim)
            return layers.Projection((dim,), (types.EMBED,), ('message',), init, name=name)(means)

        heard = hears(x_BHWD.mean(2, keepdims=True), 'rows')
        heard += hears(x_BHWD.mean(1, keepdims=True), 'columns')
        if config.box_height:
            rows, columns = height // config.box_height, width // config.box_width
            boxes = x_BHWD.reshape(-1, rows, config.box_height, columns, config.box_width, dim)
            boxes = hears(boxes.mean((2, 4), keepdims=True), 'boxes')
            split = heard.reshape(-1, rows, config.box_height, columns, config.box_width, dim)
            heard = (split + boxes).reshape(x_BHWD.shape)
        return heard.reshape(x_BTD.shape)


class GroupMixingBlock(nn.Module):
    """The means of a cell's row, column and box, then the gated unit over the channels.

    No weight knows the size of the board. The groups are those of recurrent relational networks
    for Sudoku (arXiv 1711.08028), which sum a message of every cell of them instead.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD: jax.Array, first_only: bool = False) -> jax.Array:
        config = self.config
        y = _add(self, x_BTD, GroupMixing(config, name='groups')(x_BTD), 'groups_norm')
        y = _exchange(self, y[:, :1] if first_only else y)
        return _add(self, y, layers.GatedUnit(config, config.mlp_dim, name='mlp')(y), 'mlp_norm')


class TransformerBlock(nn.Module):
    """Attention and a feed-forward layer with layer norms, before each or after each residual.

    Source: torch.nn.TransformerEncoderLayer, as LDT has it (model.pre_norm both ways).
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD: jax.Array, first_only: bool = False) -> jax.Array:
        config = self.config
        attend = SelfAttention(config, name='self_attn')
        feed = layers.FeedForward(config, config.mlp_dim, name='mlp')
        attn_norm, mlp_norm = (layers.LayerNorm(config, name=f'{n}_norm') for n in ('attn', 'mlp'))

        def drop(change):
            return layers.dropout(self, change, config.dropout)

        if config.pre_norm:
            mixed = attend(attn_norm(x_BTD), first_only)
            y = x_BTD[:, : mixed.shape[1]] + drop(mixed)
            return y + drop(feed(mlp_norm(y)))
        mixed = attend(x_BTD, first_only)
        y = attn_norm(x_BTD[:, : mixed.shape[1]] + drop(mixed))
        return mlp_norm(y + drop(feed(y)))


BLOCKS: dict[str, type[nn.Module]] = {
    'attention': AttentionBlock,
    'token_mixing': TokenMixingBlock,
    'group_mixing': GroupMixingBlock,
    'transformer': TransformerBlock,
}


class Level(nn.Module):
    """A stack of blocks that refines one state, given what is injected into it.

    Attributes:
      config: architecture.
      num_layers: blocks in the stack.
    """

    config: ModelConfig
    num_layers: int

    @nn.compact
    def __call__(
        self,
        state_BTD: jax.Array,
        injection_BTD: jax.Array | None,
        first_only: bool = False,
    ) -> jax.Array:
        """Adds the injection (if any) once, before the first block; returns the new state.

        With a symbol axis both are [B, G, T, D].

        With ``first_only`` position 0 of it, [B, 1, D], to which every position contributes up
        to the last block. That is a pass without gradient: ``remat`` is for others.
        """
        block = BLOCKS[self.config.block]
        if self.config.remat and not first_only:
            block = nn.remat(block)
        x = state_BTD if injection_BTD is None else state_BTD + injection_BTD
        if self.config.has_symbols:
            x = symbols.fold(x)
        for i in range(self.num_layers):
            narrow = {'first_only': True} if first_only and i + 1 == self.num_layers else {}
            x = block(self.config, name=f'layers_{i}')(x, **narrow)
            x = partitioning.constrain(x, (types.BATCH, types.CELLS, types.EMBED))
        return symbols.unfold(x, self.config.num_symbols) if self.config.has_symbols else x
