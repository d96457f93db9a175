"""Small parts of the blocks: projections, norm, gated unit, rotary positions.

Parameters are float32 and cast to the activations' dtype where they are used, as the
original does (sapientinc/HRM models/layers.py); gradients come back in float32.
"""

from collections.abc import Callable, Sequence
import functools
import math
from typing import Any, cast

from flax import linen as nn
import jax
import jax.numpy as jnp

from hrm_jax import partitioning, types
from hrm_jax.config import ModelConfig
from hrm_jax.model import gated_unit, gradient_sums
from hrm_jax.model.kernels import choice

# Standard deviation of a standard normal truncated to [-2, 2].
_TRUNCATED_STD = 0.87962566103423978

Initializer = Callable[..., jax.Array]


def truncated_normal(std: float) -> Initializer:
    """Normal truncated at two (uncorrected) deviations whose *resulting* deviation is ``std``.

    The convention of JAX's ``variance_scaling``, not of torch's ``trunc_normal_``
    (models/common.py, trunc_normal_init_).
    """

    def init(key, shape, dtype=jnp.float32):
        # Drawn in float32 and rounded: a half-precision sampler has too few distinct values.
        values = jax.random.truncated_normal(key, -2.0, 2.0, shape, jnp.float32)
        return (values * (std / _TRUNCATED_STD)).astype(dtype)

    return init


def plain_truncated_normal(std: float) -> Initializer:
    """A normal of deviation ``std`` truncated at two of them: its own deviation is 0.88 ``std``."""
    return truncated_normal(std * _TRUNCATED_STD)


def param(
    module: nn.Module,
    name: str,
    init: Initializer,
    shape: Sequence[int],
    names: Sequence[str | None],
) -> jax.Array:
    """Declares a float32 parameter of a module, with logical axis names, and returns its value.

    linen boxes the initial value with the names, and takes it out of the box again (its annotations
    know of the box only).
    """
    boxed = nn.with_logical_partitioning(init, tuple(names))
    return cast(jax.Array, module.param(name, boxed, tuple(shape), jnp.float32))


def kernel_initializer(config: ModelConfig, fan_in: int) -> Initializer:
    """Initializer of a projection with ``fan_in`` inputs."""
    std = 1.0 / math.sqrt(fan_in)
    match config.initializer:
        case 'truncated_normal':
            return truncated_normal(std)
        case 'truncated_normal_plain':
            return plain_truncated_normal(std)
        case 'normal':
            return nn.initializers.normal(std)
        case 'uniform' | 'torch':  # torch.nn.Linear's default
            return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
                key, shape, dtype, -std, std
            )
    raise ValueError(f'no initializer called {config.initializer!r}')


def bias_initializer(config: ModelConfig, fan_in: int) -> Initializer:
    """Initializer of the bias of a projection with ``fan_in`` inputs."""
    if config.initializer in ('uniform', 'torch'):
        return kernel_initializer(config, fan_in)
    return nn.initializers.zeros_init()


def attention_initializers(config: ModelConfig, fan_in: int) -> tuple[Initializer, Initializer]:
    """Initializers of an attention's joint projection to q, k and v, and of its biases."""
    if config.initializer != 'torch':
        return kernel_initializer(config, fan_in), bias_initializer(config, fan_in)
    # torch.nn.MultiheadAttention: Xavier's bound for the joint matrix, no biases.
    bound = math.sqrt(6 / (fan_in + 3 * config.attention_width))

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init, nn.initializers.zeros_init()


def embedding_initializer(config: ModelConfig, dim: int) -> Initializer:
    """Initializer of a table whose rows have ``dim`` entries."""
    if config.initializer == 'truncated_normal_plain':
        return plain_truncated_normal(dim**-0.5)
    if config.initializer == 'torch':
        return nn.initializers.normal(1.0)
    cut = config.initializer == 'truncated_normal'
    return truncated_normal(dim**-0.5) if cut else nn.initializers.normal(dim**-0.5)


def state_initializer(config: ModelConfig) -> Initializer:
    """Initializer of the states that a puzzle starts from."""
    if config.initializer == 'truncated_normal':
        return truncated_normal(1.0)
    if config.initializer == 'truncated_normal_plain':
        return plain_truncated_normal(1.0)
    return nn.initializers.normal(config.hidden_size**-0.5)  # krychu/hrm


def scale_in_float32(x: jax.Array, factor: float) -> jax.Array:
    """Multiplies by an unrounded scalar and rounds once.

    A weakly typed scalar would be rounded to bfloat16 first; sqrt(512) would then change
    one element in forty.
    """
    return (x.astype(jnp.float32) * jnp.float32(factor)).astype(x.dtype)


def rms_norm(x: jax.Array, eps: float, axis: int = -1) -> jax.Array:
    """Divides by the root mean square along ``axis``, in float32; no scale, no bias."""
    x32 = x.astype(jnp.float32)
    variance = jnp.mean(jnp.square(x32), axis=axis, keepdims=True)
    return (x32 * jax.lax.rsqrt(variance + eps)).astype(x.dtype)


class Norm(nn.Module):
    """``rms_norm`` over the last axis, with a learnable scale if ``norm_scale`` is set."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self._uses_kernel():
            y = self._by_kernel(x)
        else:
            y = rms_norm(x, self.config.rms_norm_eps)
        if not self.config.norm_scale:
            return y
        scale = param(self, 'scale', nn.initializers.ones_init(), (x.shape[-1],), ('norm',))
        return y * gradient_sums.spread(scale, y.shape, x.dtype)

    def _uses_kernel(self) -> bool:
        if self.config.norm_kernel == 'xla':
            return False
        if missing := choice.obstacle('tokamax_kernels'):
            choice.say_once(
                f'model.norm_kernel={self.config.norm_kernel} runs through XLA: {missing}.'
            )
        return not missing

    def _by_kernel(self, x: jax.Array) -> jax.Array:
        module = choice.module('tokamax_kernels')
        assert module is not None  # _uses_kernel has looked
        norm = functools.partial(module.rms_norm, eps=self.config.rms_norm_eps)
        names = (types.BATCH, *[None] * (x.ndim - 1))
        return choice.on_each_device(norm, (x,), (names,), x.shape, names)


def kept(key: jax.Array, rate: float, shape: Sequence[int]) -> jax.Array:
    """Which entries dropout leaves: bool of ``shape``, each False with probability ``rate``.

    One 32-bit word is drawn for each row and one for each entry of a row, and a bijection of 32
    bits (C. Wellons' lowbias32) mixes the two: a word drawn for every entry took a fifth of a train
    step on a CPU.
    """
    *rows, columns = shape
    words = jax.random.bits(key, (*rows, 1), jnp.uint32)
    mixed = words ^ jax.random.bits(jax.random.fold_in(key, 1), (columns,), jnp.uint32)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        mixed = (mixed ^ (mixed >> shift)) * jnp.uint32(factor)
    return mixed >= jnp.uint32(min(round(rate * 2**32), 2**32 - 1))


def dropout(
    module: nn.Module, x: jax.Array, rate: float, shape: Sequence[int] | None = None
) -> jax.Array:
    """Zeroes entries with probability ``rate`` and scales up the rest.

    Happens only where ``module`` is applied with a ``dropout`` key: that is what training means
    here. ``shape`` is the shape of the mask, broadcast against ``x``; its own by default.
    """
    if rate == 0 or not module.has_rng('dropout'):
        return x
    keep = kept(module.make_rng('dropout'), rate, shape or x.shape)
    return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)


class Projection(nn.Module):
    """A linear map from the last axes of ``x`` onto new ones.

    Attributes:
      features: sizes of the new axes.
      in_names, out_names: logical axis names of the kernel; as many input axes are
        contracted as there are names in ``in_names``.
      kernel_init: initializer of the kernel.
      use_bias: adds a bias over the new axes.
      bias_init: its initializer.
    """

    features: Sequence[int]
    in_names: Sequence[str]
    out_names: Sequence[str]
    kernel_init: Initializer
    use_bias: bool = False
    bias_init: Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        part: slice = slice(None),
        through: Callable[[jax.Array, Any], Any] | None = None,
    ) -> jax.Array:
        """Maps [..., *inputs] to [..., *features] in the dtype of ``x``.

        ``part`` takes those entries of the first new axis only. ``through`` takes the product's
        place, and what comes after it: it is given ``x`` and the kernel, float32, or ``Kernels``.
        """
        num_in = len(self.in_names)
        in_shape = x.shape[x.ndim - num_in :]
        names = (*self.in_names, *self.out_names)
        made = self.get_variable('params', 'kernel')
        if through is not None and isinstance(made, gated_unit.Kernels):  # ``taken_apart``
            return through(x, made)
        kernel = param(self, 'kernel', self.kernel_init, (*in_shape, *self.features), names)
        if through is not None:
            return through(x, kernel)
        # One plain matrix product whatever the axes: XLA's CPU backend is slower on the rest.
        # Not where the mesh shards a new axis, which a merged one could not show.
        rows = x.reshape(*x.shape[: x.ndim - num_in], math.prod(in_shape))
        cut = partitioning.is_cut(self.out_names)
        kernel = kernel[(slice(None),) * num_in + (part,)]
        features = kernel.shape[num_in:]
        columns = features if cut else (math.prod(features),)
        matrix = kernel.reshape(math.prod(in_shape), *columns)
        y = gradient_sums.product(rows, matrix).reshape(*rows.shape[:-1], *features)
        if self.use_bias:
            bias = param(self, 'bias', self.bias_init, self.features, self.out_names)
            y = y + gradient_sums.spread(bias[part], y.shape, x.dtype)
        return y


class Embedding(nn.Module):
    """A table of vectors.

    Attributes:
      size: number of rows.
      dim: length of a row.
      names: logical names of the two axes.
      init: initializer of the table.
    """

    size: int
    dim: int
    names: tuple[str, str]
    init: Initializer

    def setup(self):
        self.embedding = param(self, 'embedding', self.init, (self.size, self.dim), self.names)

    def added_to(self, x: jax.Array) -> jax.Array:
        """``x`` [B, size, dim] and the whole table."""
        return x + gradient_sums.whole(self.embedding, x.shape, x.dtype)

    def __call__(self, ids: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """Rows of the table for int32 ``ids`` [...], as [..., dim] in ``dtype``."""
        return gradient_sums.take(self.embedding, ids, dtype)


class LayerNorm(nn.Module):
    """Layer norm over the last axis, in float32, with a learnable scale and shift."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = (x.shape[-1],)
        scale = param(self, 'scale', nn.initializers.ones_init(), size, ('norm',))
        shift = param(self, 'bias', nn.initializers.zeros_init(), size, ('norm',))
        x32 = x.astype(jnp.float32)
        centred = x32 - x32.mean(-1, keepdims=True)
        variance = jnp.square(centred).mean(-1, keepdims=True)
        y = centred * jax.lax.rsqrt(variance + self.config.rms_norm_eps)
        return (y * scale + shift).astype(x.dtype)


class FeedForward(nn.Module):
    """``down(gelu(up(x)))`` with biases and the exact GELU.

    Attributes:
      config: architecture.
      inner: size of the hidden layer.
    """

    config: ModelConfig
    inner: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def project(size: int, fan_in: int, axes: tuple[str, str], name: str) -> Projection:
            return Projection(
                (size,),
                axes[:1],
                axes[1:],
                kernel_initializer(self.config, fan_in),
                use_bias=True,
                bias_init=bias_initializer(self.config, fan_in),
                name=name,
            )

        dim = x.shape[-1]
        hidden = project(self.inner, dim, (types.EMBED, types.MLP), 'up_proj')(x)
        hidden = nn.gelu(hidden, approximate=False)
        hidden = partitioning.constrain(hidden, (types.BATCH, None, types.MLP))
        return project(dim, self.inner, (types.MLP, types.EMBED), 'down_proj')(hidden)


class DepthwiseConvolution(nn.Module):
    """Each channel's sum over a position and the one before it, with a bias: [B, T, F].

    y_t = b + w_0 x_{t-1} + w_1 x_t, with x_{-1} = 0. Source: URM models/layers.py, ConvSwiGLU: a
    torch Conv1d of two taps, one group for each channel, and its initializer.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        bound = 1 / math.sqrt(2)  # two inputs for each output

        def init(key, shape, dtype=jnp.float32):
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        kernel = param(self, 'kernel', init, (2, channels), (None, types.MLP))
        bias = param(self, 'bias', init, (channels,), (types.MLP,))
        # The weights are rounded to the dtype of x, the sum is made in float32.
        before, now, shift = (w.astype(x.dtype).astype(jnp.float32) for w in (*kernel, bias))
        x32 = x.astype(jnp.float32)
        earlier = jnp.pad(x32, ((0, 0), (1, 0), (0, 0)))[:, :-1]
        return (shift + before * earlier + now * x32).astype(x.dtype)


class GatedUnit(nn.Module):
    """``down(silu(gate) * up)`` over the last axis (SwiGLU), or what ``gated_unit`` names.

    Sources: sigmoid_rms: jvdillon/sic code/model.py (``muon_modified``), eps as in the norms;
    conv_swiglu: UbiquantAI/URM models/layers.py, ConvSwiGLU. The convolution is causal, so a unit
    on the first position alone gives what it gives there on all of them.

    Attributes:
      config: architecture.
      inner: size of gate and of up.
      axis_name: logical name of the last axis.
    """

    config: ModelConfig
    inner: int
    axis_name: str = types.EMBED

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dim = x.shape[-1]
        project = Projection(
            (2, self.inner),
            (self.axis_name,),
            (types.GATE_UP, types.MLP),
            kernel_initializer(self.config, dim),
            name=gated_unit.JOINT,
        )
        who = self.config.gated_unit_kernel
        if gated_unit.uses_kernel(who, x.dtype):
            hidden = project(x, through=lambda x, kernel: gated_unit.swiglu(x, kernel, who))
        else:
            hidden = self._hidden(*project(x, through=gated_unit.gate_and_up))
        hidden = partitioning.constrain(hidden, (types.BATCH, None, types.MLP))
        # The residual of a bfloat16 convolution in a float32 model is added in float32.
        return Projection(
            (dim,),
            (types.MLP,),
            (self.axis_name,),
            kernel_initializer(self.config, self.inner),
            name='down_proj',
        )(hidden).astype(x.dtype)

    def _hidden(self, gate: jax.Array, up: jax.Array) -> jax.Array:
        match self.config.gated_unit:
            case 'swiglu':
                return gated_unit.combined(gate, up)
            case 'sigmoid_rms':
                return nn.sigmoid(gate) * rms_norm(gate * up, self.config.rms_norm_eps)
            case 'conv_swiglu':
                hidden = gated_unit.combined(gate, up)
                if self.config.conv_dtype == 'bfloat16':
                    hidden = hidden.astype(jnp.bfloat16)
                return nn.silu(DepthwiseConvolution(name='conv')(hidden))
        raise ValueError(f'no gated unit called {self.config.gated_unit!r}')


def rotary_tables(length: int, head_dim: int, theta: float) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines of the rotary angles, float32 [length, head_dim / 2] each."""
    frequencies = theta ** -(jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angles = jnp.arange(length, dtype=jnp.float32)[:, None] * frequencies[None, :]
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x_BTNK: jax.Array, cos_TK: jax.Array, sin_TK: jax.Array) -> jax.Array:
    """Rotates queries or keys in float32; channel i pairs with channel i + head_dim / 2."""
    if partitioning.on_cpu():
        return _rotate_by_halves(x_BTNK, cos_TK, sin_TK)
    first, second = jnp.split(x_BTNK.astype(jnp.float32), 2, axis=-1)
    cos, sin = cos_TK[None, :, None, :], sin_TK[None, :, None, :]
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x_BTNK.dtype)


def _rotate_by_halves(x_BTNK: jax.Array, cos_TK: jax.Array, sin_TK: jax.Array) -> jax.Array:
    """The same with the halves exchanged: XLA for CPUs concatenates entry by entry."""
    x_BTN2K = x_BTNK.astype(jnp.float32).reshape(*x_BTNK.shape[:-1], 2, -1)
    cos, sin = (
        jnp.stack(pair, axis=1)[None, :, None] for pair in ((cos_TK, cos_TK), (-sin_TK, sin_TK))
    )
    rotated = x_BTN2K * cos + x_BTN2K[..., ::-1, :] * sin
    return rotated.reshape(x_BTNK.shape).astype(x_BTNK.dtype)


def rotate_pairs(x_BTNK: jax.Array, cos_TK: jax.Array, sin_TK: jax.Array) -> jax.Array:
    """Rotates as ``rotate`` does, but channel 2i pairs with channel 2i + 1."""
    first, second = (x_BTNK[..., i::2].astype(jnp.float32) for i in (0, 1))
    cos, sin = cos_TK[None, :, None, :], sin_TK[None, :, None, :]
    rotated = jnp.stack([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.reshape(x_BTNK.shape).astype(x_BTNK.dtype)


def padded_tables(tables: tuple[jax.Array, jax.Array], after: int) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines with positions after them that are not rotated."""
    if not after:
        return tables
    cosines, sines = (
        jnp.pad(table, ((0, after), (0, 0)), constant_values=still)
        for table, still in zip(tables, (1.0, 0.0), strict=True)
    )
    return cosines, sines


def board_rotary_tables(
    shape: tuple[int, int], prefix: int, head_dim: int, theta: float
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """Tables of a board (EqR, ``rope2d``): by the row, and by the column of each cell.

    Each pair is that of ``rotary_tables`` for half the channels, [prefix + cells, head_dim / 4];
    the slots of the puzzle prefix are not rotated.
    """
    height, width = shape
    cosines, sines = rotary_tables(max(shape), head_dim // 2, theta)
    rows, columns = jnp.divmod(jnp.arange(height * width), width)

    def table(index):
        cos = jnp.concatenate([jnp.ones((prefix, cosines.shape[1])), cosines[index]])
        return cos, jnp.concatenate([jnp.zeros((prefix, sines.shape[1])), sines[index]])

    return table(rows), table(columns)


def whole_head_tables(
    shape: tuple[int, int], prefix: int, head_dim: int, theta: float
) -> tuple[jax.Array, jax.Array]:
    """Tables of a board for ``rotate`` (SE-RRM): pairs by the row, then by the column."""
    by_row, by_column = board_rotary_tables(shape, prefix, head_dim, theta)
    cosines, sines = (
        jnp.concatenate(pair, axis=-1) for pair in zip(by_row, by_column, strict=True)
    )
    return cosines, sines


def rotate_on_board(
    x_BTNK: jax.Array, rows: tuple, columns: tuple, turn: Callable[..., jax.Array] = rotate
) -> jax.Array:
    """Rotates the first half of the channels by the row, the second by the column."""
    first, second = jnp.split(x_BTNK, 2, axis=-1)
    return jnp.concatenate([turn(first, *rows), turn(second, *columns)], axis=-1)
