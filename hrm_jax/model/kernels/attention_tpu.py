"""Flash attention for TPUs: the kernel that comes with JAX, for any length and head size."""

import contextlib
import functools

import jax
from jax.experimental.pallas import tpu as pltpu
from jax.experimental.pallas.ops.tpu import flash_attention as library
import jax.numpy as jnp

DTYPES = ('float32', 'bfloat16')
_LANES = 128  # the length, and a head size above it, must be a multiple
_TILES = (512, 256, 128)  # plausible sizes, the largest that divides the length; not measured


def _blocks(length: int) -> library.BlockSizes:
    tile = next(tile for tile in _TILES if length % tile == 0)
    names = (
        'block_q', 'block_k_major', 'block_k', 'block_q_major_dkv', 'block_k_major_dkv',
        'block_k_dkv', 'block_q_dkv', 'block_k_major_dq', 'block_k_dq', 'block_q_dq',
    )  # fmt: skip
    return library.BlockSizes(block_b=1, **dict.fromkeys(names, tile))


def _padded(q_BTNK: jax.Array, k_BTNK: jax.Array, v_BTNK: jax.Array) -> jax.Array:
    batch, length, _, head_dim = q_BTNK.shape
    more = -length % _LANES
    wider = -head_dim % _LANES if head_dim > _LANES else 0

    def prepare(x_BTNK):
        x_BNTK = jnp.swapaxes(x_BTNK, 1, 2)
        return jnp.pad(x_BNTK, ((0, 0), (0, 0), (0, more), (0, wider)))

    segments = None
    if more:  # positions of the padding see each other and nothing else
        ids_BT = jnp.broadcast_to(jnp.arange(length + more) >= length, (batch, length + more))
        segments = library.SegmentIds(ids_BT.astype(jnp.int32), ids_BT.astype(jnp.int32))
    mixed_BNTK = library.flash_attention(
        prepare(q_BTNK),
        prepare(k_BTNK),
        prepare(v_BTNK),
        segment_ids=segments,
        sm_scale=head_dim**-0.5,
        block_sizes=_blocks(length + more),
    )
    return jnp.swapaxes(mixed_BNTK[:, :, :length, :head_dim], 1, 2)


@contextlib.contextmanager
def _traced_right(dtype: jnp.dtype, interpret: bool):
    """What must hold while the kernels of either pass are traced.

    The library leaves the precision of its products to the setting in force, which for the
    backward pass is that of the caller of jax.grad: float32 would be rounded to bfloat16.
    """
    with contextlib.ExitStack() as stack:
        precision = 'highest' if dtype == jnp.float32 else 'default'
        stack.enter_context(jax.default_matmul_precision(precision))
        if interpret:
            stack.enter_context(pltpu.force_tpu_interpret_mode())
        yield


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _attend(q_BTNK, k_BTNK, v_BTNK, interpret: bool):
    with _traced_right(q_BTNK.dtype, interpret):
        return _padded(q_BTNK, k_BTNK, v_BTNK)


def _attend_forward(q_BTNK, k_BTNK, v_BTNK, interpret: bool):
    with _traced_right(q_BTNK.dtype, interpret):
        return jax.vjp(_padded, q_BTNK, k_BTNK, v_BTNK)


def _attend_backward(interpret: bool, pull_back, do_BTNK):
    with _traced_right(do_BTNK.dtype, interpret):
        return pull_back(do_BTNK)


_attend.defvjp(_attend_forward, _attend_backward)


def attend(
    q_BTNK: jax.Array, k_BTNK: jax.Array, v_BTNK: jax.Array, interpret: bool = False
) -> jax.Array:
    """Softmax attention, scale 1 / sqrt(K), accumulated in float32; differentiable once.

    The length is padded to a multiple of 128 in device memory, where JAX's kernel needs it.

    Args:
      q_BTNK, k_BTNK, v_BTNK: [B, T, N, K] of one dtype of ``DTYPES``; on one device, or inside
        ``jax.shard_map``.
      interpret: runs on any platform, slowly.

    Returns:
      [B, T, N, K] of the same dtype.

    Raises:
      ValueError: a dtype that TPUs do not multiply.
    """
    if q_BTNK.dtype not in DTYPES:
        raise ValueError(
            f'this attention takes {", ".join(DTYPES)}; got {q_BTNK.dtype}. '
            f'Use another implementation.'
        )
    return _attend(q_BTNK, k_BTNK, v_BTNK, interpret)
