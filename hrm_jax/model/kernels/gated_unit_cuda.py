"""``silu(x W_gate) * (x W_up)`` for NVIDIA GPUs in Pallas (Triton), forward.

The two products of a tile are made side by side, so that neither ever reaches device memory: of
the 2 F + 2 F + F numbers for each position that a product and a fusion write and read, the last F
are left. For passes without gradient, of which the recurrence has most; the backward pass needs
gate and up, so a pass with gradient makes them as before.
"""

import functools
import math

import jax
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
import jax.numpy as jnp

DTYPES = ('float32', 'bfloat16', 'float16')
# Rows and columns of a program's tile, and channels of x at a time; plausible, not measured.
_TILES = {2: (128, 64, 64), 4: (32, 32, 32)}  # bytes of a number ->
_WARPS = {2: 8, 4: 4}
_STAGES = 3


def _kernel(x_ref, gate_ref, up_ref, out_ref, *, sizes, tiles):
    """One tile of the hidden layer; masks where a size is no multiple of the tile's."""
    (num_rows, depth, width), (rows, columns, step) = sizes, tiles
    inside_rows = pl.program_id(1) * rows + lax.iota(jnp.int32, rows) < num_rows
    inside_columns = pl.program_id(0) * columns + lax.iota(jnp.int32, columns) < width
    precision = lax.Precision.HIGHEST if x_ref.dtype == jnp.float32 else lax.Precision.DEFAULT

    def add(k, sums):
        inside = k * step + lax.iota(jnp.int32, step) < depth
        channels = pl.ds(k * step, step)
        x = triton.load(
            x_ref.at[:, channels], mask=inside_rows[:, None] & inside[None, :], other=0.0
        )

        def product(ref):
            mask = inside[:, None] & inside_columns[None, :]
            weights = triton.load(ref.at[channels, :], mask=mask, other=0.0)
            return lax.dot_general(
                x, weights, (((1,), (0,)), ((), ())), precision=precision,
                preferred_element_type=jnp.float32,
            )  # fmt: skip

        return sums[0] + product(gate_ref), sums[1] + product(up_ref)

    zeros = jnp.zeros((rows, columns), jnp.float32)
    sums = lax.fori_loop(0, pl.cdiv(depth, step), add, (zeros, zeros))
    # Rounded as a product's output is, then one rounding for all the rest, as XLA's fusion does.
    gate, up = (part.astype(out_ref.dtype).astype(jnp.float32) for part in sums)
    hidden = gate / (1 + jnp.exp2(-gate * math.log2(math.e))) * up
    mask = inside_rows[:, None] & inside_columns[None, :]
    triton.store(out_ref, hidden.astype(out_ref.dtype), mask=mask)


def hidden(x_RD: jax.Array, kernel_DGF: jax.Array, interpret: bool = False) -> jax.Array:
    """The hidden layer of SwiGLU; not differentiable.

    Args:
      x_RD: [R, D] of one of ``DTYPES``; on one device, or inside ``jax.shard_map``.
      kernel_DGF: [D, 2, F] of the same dtype: gate, up.
      interpret: runs on any platform, slowly.

    Returns:
      [R, F] of the same dtype.

    Raises:
      ValueError: a dtype that the kernel does not have.
    """
    if x_RD.dtype not in DTYPES:
        raise ValueError(f'this gated unit takes {", ".join(DTYPES)}; got {x_RD.dtype}.')
    (num_rows, depth), width = x_RD.shape, kernel_DGF.shape[-1]
    size = x_RD.dtype.itemsize
    rows, columns, step = _TILES[size]
    padded = pl.cdiv(depth, step) * step  # compiled, a block is but a pointer

    def weights(index: int) -> pl.BlockSpec:
        return pl.BlockSpec((padded, None, columns), lambda j, i: (0, index, j))

    return pl.pallas_call(
        functools.partial(_kernel, sizes=(num_rows, depth, width), tiles=(rows, columns, step)),
        # Columns first: the programs of one tile of rows run together, and share it in the cache.
        grid=(pl.cdiv(width, columns), pl.cdiv(num_rows, rows)),
        in_specs=[pl.BlockSpec((rows, padded), lambda j, i: (i, 0)), weights(0), weights(1)],
        out_specs=pl.BlockSpec((rows, columns), lambda j, i: (i, j)),
        out_shape=jax.ShapeDtypeStruct((num_rows, width), x_RD.dtype),
        compiler_params=triton.CompilerParams(num_warps=_WARPS[size], num_stages=_STAGES),
        interpret=interpret,
        name='gated_unit',
    )(x_RD, kernel_DGF, kernel_DGF)
