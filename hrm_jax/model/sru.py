"""SRU and SRU++ levels: recurrences over the positions whose cells are the latent state.

Source: NewJerseyStyle/HRM-rnn-base models/hrm/hrm_act_v2.py, hrm_act_v3.py, models/local_sru.py
(after the ``sru`` package of arXiv 1709.02755 and 2102.12459).
"""

import functools
from typing import cast

from flax import linen as nn
import jax
import jax.numpy as jnp

from hrm_jax import partitioning, types
from hrm_jax.config.model import SRUPP_HEADS, SRUPP_SHRINK, ModelConfig
from hrm_jax.model import attention, layers

LAYER_NORM_EPS = 1e-5


def recur(
    u_BT3D: jax.Array,
    x_BTD: jax.Array,
    cells_BD: jax.Array,
    weight_c_2D: jax.Array,
    bias_2D: jax.Array,
    mask_BD: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The elementwise recurrence over the positions, in float32.

    f = sigmoid(u1 + b_f + v_f c), r = sigmoid(u2 + b_r + v_r c), c <- f c + (1 - f) u0,
    h = r c + (1 - r) x with the new c. The gates read the cell, so it is not a linear recurrence
    and has no associative form; everything that does not need the cell stands outside the loop.

    Args:
      u_BT3D: candidate and the two gates' inputs.
      x_BTD: what the highway passes on.
      cells_BD: cells before the first position.
      weight_c_2D: v_f and v_r.
      bias_2D: b_f and b_r.
      mask_BD: dropout mask of (c - x) r, one for all positions.

    Returns:
      h [B, T, D] in the dtype of ``x_BTD`` and the cells after the last position, float32.
    """
    u_T3BD = jnp.transpose(u_BT3D.astype(jnp.float32), (1, 2, 0, 3))
    candidates_TBD, gates_T2BD = u_T3BD[:, 0], u_T3BD[:, 1:] + bias_2D[:, None]

    def step(c_BD, inputs):
        candidate_BD, gates_2BD = inputs
        forget_BD = jax.nn.sigmoid(gates_2BD[0] + weight_c_2D[0] * c_BD)
        reset_BD = jax.nn.sigmoid(gates_2BD[1] + weight_c_2D[1] * c_BD)
        c_BD = candidate_BD + (c_BD - candidate_BD) * forget_BD
        return c_BD, (c_BD, reset_BD)

    # Not unrolled: 8 steps per iteration took 3 times as long on a CPU, gradients 10 times.
    last_BD, (c_TBD, reset_TBD) = jax.lax.scan(
        step, cells_BD.astype(jnp.float32), (candidates_TBD, gates_T2BD)
    )
    x_TBD = jnp.swapaxes(x_BTD.astype(jnp.float32), 0, 1)
    change_TBD = (c_TBD - x_TBD) * reset_TBD
    if mask_BD is not None:
        change_TBD = change_TBD * mask_BD
    return jnp.swapaxes(x_TBD + change_TBD, 0, 1).astype(x_BTD.dtype), last_BD


def _flip_second_half(x: jax.Array, axis: int) -> jax.Array:
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first, jnp.flip(second, axis)], axis=-1)


class LayerNorm(nn.Module):
    """Layer norm with scale and bias, in float32."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def weights(name, init):
            return layers.param(self, name, init, (x.shape[-1],), ('norm',))

        x32 = x.astype(jnp.float32)
        centred = x32 - x32.mean(-1, keepdims=True)
        y = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + LAYER_NORM_EPS)
        y = y * weights('scale', nn.initializers.ones_init())
        return (y + weights('bias', nn.initializers.zeros_init())).astype(x.dtype)


def _linear(config: ModelConfig, features, name, scale: float = 1.0) -> layers.Projection:
    def init(key, shape, dtype=jnp.float32):
        return scale * layers.kernel_initializer(config, shape[0])(key, shape, dtype)

    # Three per channel go into the recurrence; what attention needs stays whole.
    out_names = ('gates', types.CHANNELS) if len(features) == 2 else ('attended',)
    return layers.Projection(features, (types.EMBED,), out_names, init, name=name)


class AttentionTransform(nn.Module):
    """SRU++'s input map: narrow attention over all positions in place of one matrix.

    z = W1 x; attention with q = z and k, v = W2 z (4 heads, no mask, no positions), scaled by
    alpha (0 at the start) and added to z; layer norm; W3.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        config = self.config
        rows, length, dim = x_BTD.shape
        width = dim // SRUPP_SHRINK
        heads = (rows, length, SRUPP_HEADS, width // SRUPP_HEADS)
        z = _linear(config, (width,), 'linear1')(x_BTD)
        k, v = jnp.split(_linear(config, (2 * width,), 'linear2')(z), 2, axis=-1)
        drop = None
        if config.attention_dropout > 0 and self.has_rng('dropout'):
            drop = functools.partial(layers.dropout, self, rate=config.attention_dropout)
        q_BTNK, k_BTNK, v_BTNK = (y.reshape(heads) for y in (z, k, v))
        mixed = attention.attend(q_BTNK, k_BTNK, v_BTNK, config.attention, drop).reshape(z.shape)
        alpha = layers.param(self, 'alpha', nn.initializers.zeros_init(), (1,), ('alpha',))
        y = LayerNorm(name='layer_norm')(z + alpha.astype(z.dtype) * mixed)
        y = layers.dropout(self, y, config.dropout)
        return _linear(config, (3, dim), 'linear3', scale=0.9**0.5)(y)


# Recurrent blocks: whether attention computes the gates' inputs (SRU++), or a linear map.
HAS_ATTENTION = {'sru': False, 'srupp': True}


class SruLayer(nn.Module):
    """One recurrent layer.

    Attributes:
      config: architecture.
      cell_dropout: rate of the mask on what the cells add to the highway.
    """

    config: ModelConfig
    cell_dropout: float = 0.0

    @nn.compact
    def __call__(self, x_BTD: jax.Array, cells_BD: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the output [B, T, D] and the cells after the last position, float32 [B, D]."""
        config = self.config
        dim = x_BTD.shape[-1]
        plus = HAS_ATTENTION[config.block]
        if plus:
            normed = LayerNorm(name='layer_norm')(x_BTD)
            u_BT3D = AttentionTransform(config, name='transform')(normed)
        else:
            u_BT3D = _linear(config, (3, dim), 'transform')(x_BTD)

        def bias_init(key, shape, dtype=jnp.float32):
            del key
            # SRU++ starts with the highway open: its reset gate is biased to -2.
            return jnp.zeros(shape, dtype).at[1].set(-2.0 if plus else 0.0)

        names = ('gates', types.CHANNELS)
        bias_2D = layers.param(self, 'bias', bias_init, (2, dim), names)
        mask_BD = None
        if self.cell_dropout > 0 and self.has_rng('dropout'):
            ones = jnp.ones((x_BTD.shape[0], dim), jnp.float32)
            mask_BD = layers.dropout(self, ones, self.cell_dropout)
        if config.sru_bidirectional:
            u_BT3D, x_BTD = _flip_second_half(u_BT3D, 1), _flip_second_half(x_BTD, 1)
        weight_c_2D = self._weight_c((2, dim), names)
        h_BTD, cells_BD = recur(u_BT3D, x_BTD, cells_BD, weight_c_2D, bias_2D, mask_BD)
        return (_flip_second_half(h_BTD, 1) if config.sru_bidirectional else h_BTD), cells_BD

    def _weight_c(self, shape, names) -> jax.Array:
        def init(key, shape, dtype=jnp.float32):
            return jax.random.uniform(key, shape, dtype, -1.0, 1.0)

        if not self.config.sru_frozen_weight_c:
            return layers.param(self, 'weight_c', init, shape, names)
        boxed = nn.with_logical_partitioning(init, names)
        constant = self.variable(
            'constants', 'weight_c', lambda: boxed(self.make_rng('params'), shape, jnp.float32)
        )
        return cast(jax.Array, constant.value)


class SruLevel(nn.Module):
    """A stack of recurrent layers.

    Attributes:
      config: architecture.
      num_layers: layers in the stack.
    """

    config: ModelConfig
    num_layers: int

    @nn.compact
    def __call__(self, x_BTD: jax.Array, cells_BLD: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Runs over the positions; ``cells_BLD`` [B, layers, D] are where the last run ended."""
        layer = nn.remat(SruLayer) if self.config.remat else SruLayer
        last_cells = []
        for i in range(self.num_layers):
            is_last = i + 1 == self.num_layers
            rate = 0.0 if is_last else self.config.dropout
            x_BTD, cells_BD = layer(self.config, rate, name=f'layers_{i}')(x_BTD, cells_BLD[:, i])
            x_BTD = partitioning.constrain(x_BTD, (types.BATCH, types.CELLS, types.EMBED))
            last_cells.append(cells_BD)
        return x_BTD, jnp.stack(last_cells, axis=1)
