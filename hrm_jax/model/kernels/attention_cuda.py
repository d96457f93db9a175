"""Flash attention for NVIDIA GPUs in Pallas (Triton), forward and backward.

Full attention over any number of positions: no [T, T] matrix ever reaches device memory, in
neither direction, and nothing is transposed or padded there. Programs read tiles with masks
where the length or the head size is not a multiple of the tile. The method is FlashAttention-2's
(Dao, 2023): a running maximum and sum in the forward pass, the logarithm of the sum kept for the
backward pass, which recomputes the weights tile by tile, once for keys and values and once
for queries.

JAX 0.11 announces the end of Pallas's Triton backend: a later JAX may need these kernels written
for its successor (Mosaic GPU).
"""

from collections.abc import Callable
import dataclasses
import functools
import math
from typing import Any

import jax
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
import jax.numpy as jnp

MAX_HEAD_DIM = 128
DTYPES = ('float32', 'bfloat16', 'float16')
_SMALLEST_TILE = 16  # a side of the GPU's matrix instructions


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Rows of a program's own tile (``own``) and of the tiles that it walks over (``other``)."""

    own: int
    other: int

    def __post_init__(self):
        for rows in (self.own, self.other):
            if rows < _SMALLEST_TILE or rows & (rows - 1):
                raise ValueError(f'tiles must be powers of 2 from {_SMALLEST_TILE} on; got {self}.')


@dataclasses.dataclass(frozen=True)
class Plan:
    """Tile sizes of the two passes. The defaults are plausible sizes, not measured ones."""

    forward: Tiles
    backward: Tiles
    warps: int = 4
    stages: int = 2

    @classmethod
    def default(cls, dtype: jnp.dtype, length: int, head_dim: int) -> 'Plan':
        if jnp.dtype(dtype).itemsize == 4:  # registers: float32 products take no tensor core
            return cls(Tiles(32, 32), Tiles(32, 32))
        long = length > 128 and head_dim <= 64
        return cls(Tiles(128 if long else 64, 64), Tiles(64, 32))


@dataclasses.dataclass(frozen=True)
class _Sizes:
    """Sizes of a problem, and access to it by tiles, zeros outside."""

    length: int
    head_dim: int
    tiles: Tiles

    @property
    def width(self) -> int:
        """Head size as the tiles have it."""
        return max(_SMALLEST_TILE, pl.next_power_of_2(self.head_dim))

    @property
    def log2_scale(self) -> float:
        """Turns products into exponents of 2: the GPU has no exponential but that."""
        return self.head_dim**-0.5 * math.log2(math.e)

    def is_inside(self, start: Any, rows: int) -> jax.Array | None:
        """Which of the rows exist; None: all of them, whatever the start."""
        if self.length % rows == 0:
            return None
        return start + lax.iota(jnp.int32, rows) < self.length

    def _mask(self, start: Any, rows: int) -> jax.Array | None:
        inside = self.is_inside(start, rows)
        inside = None if inside is None else inside[:, None]
        if self.width == self.head_dim:
            return inside
        within = (lax.iota(jnp.int32, self.width) < self.head_dim)[None, :]
        return within if inside is None else inside & within

    def load(self, ref: Any, start: Any, rows: int) -> jax.Array:
        """[rows, width] from [T, width]."""
        mask = self._mask(start, rows)
        tile = ref.at[pl.ds(start, rows), :]
        return triton.load(tile, mask=mask, other=None if mask is None else 0.0)

    def load_row(self, ref: Any, start: Any, rows: int) -> jax.Array:
        """[rows] from [T]."""
        mask = self.is_inside(start, rows)
        tile = ref.at[pl.ds(start, rows)]
        return triton.load(tile, mask=mask, other=None if mask is None else 0.0)

    def store(self, ref: Any, start: Any, tile: jax.Array) -> None:
        where = ref.at[pl.ds(start, tile.shape[0]), :]
        triton.store(where, tile.astype(ref.dtype), mask=self._mask(start, tile.shape[0]))

    def store_row(self, ref: Any, start: Any, row: jax.Array) -> None:
        where = ref.at[pl.ds(start, row.shape[0])]
        triton.store(where, row, mask=self.is_inside(start, row.shape[0]))


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """a @ b in float32; of float32 operands without TF32, the GPU's default."""
    return _contract(a, b, 0)


def _dot_transposed(a: jax.Array, b: jax.Array) -> jax.Array:
    """a @ b.T in float32, likewise."""
    return _contract(a, b, 1)


def _contract(a: jax.Array, b: jax.Array, axis: int) -> jax.Array:
    exact = lax.Precision.HIGHEST if a.dtype == jnp.float32 else lax.Precision.DEFAULT
    return lax.dot_general(
        a, b, (((1,), (axis,)), ((), ())), precision=exact, preferred_element_type=jnp.float32
    )


def _walk(sizes: _Sizes, visit: Callable[[jax.Array, Any], Any], carry: Any) -> Any:
    """Calls ``visit(start, carry)`` for every tile of the other side."""
    rows = sizes.tiles.other
    return lax.fori_loop(
        0, pl.cdiv(sizes.length, rows), lambda i, carry: visit(i * rows, carry), carry
    )


def _forward_kernel(q_ref, k_ref, v_ref, o_ref, log_sum_ref, *, sizes: _Sizes):
    """Output and log2 of the softmax's denominator for one tile of queries."""
    tiles = sizes.tiles
    start_q = pl.program_id(0) * tiles.own
    q = sizes.load(q_ref, start_q, tiles.own)

    def visit(start_k, carry):
        mixed, top, total = carry
        k = sizes.load(k_ref, start_k, tiles.other)
        v = sizes.load(v_ref, start_k, tiles.other)
        scores = _dot_transposed(q, k) * sizes.log2_scale
        inside = sizes.is_inside(start_k, tiles.other)
        if inside is not None:
            scores = jnp.where(inside[None, :], scores, -jnp.inf)
        new_top = jnp.maximum(top, scores.max(axis=1))  # finite: a tile has at least one key
        weights = jnp.exp2(scores - new_top[:, None])
        shrink = jnp.exp2(top - new_top)
        mixed = mixed * shrink[:, None] + _dot(weights.astype(v.dtype), v)
        return mixed, new_top, total * shrink + weights.sum(axis=1)

    mixed, top, total = _walk(
        sizes,
        visit,
        (
            jnp.zeros((tiles.own, sizes.width), jnp.float32),
            jnp.full((tiles.own,), -jnp.inf, jnp.float32),
            jnp.zeros((tiles.own,), jnp.float32),
        ),
    )
    sizes.store(o_ref, start_q, mixed / total[:, None])
    sizes.store_row(log_sum_ref, start_q, top + jnp.log2(total))


def _keys_kernel(
    q_ref, k_ref, v_ref, do_ref, log_sum_ref, delta_ref, dk_ref, dv_ref, *, sizes: _Sizes
):
    """Gradients of one tile of keys and values; matrices have keys as rows."""
    tiles = sizes.tiles
    start_k = pl.program_id(0) * tiles.own
    k = sizes.load(k_ref, start_k, tiles.own)
    v = sizes.load(v_ref, start_k, tiles.own)

    def visit(start_q, carry):
        dk, dv = carry
        q = sizes.load(q_ref, start_q, tiles.other)
        do = sizes.load(do_ref, start_q, tiles.other)
        log_sum = sizes.load_row(log_sum_ref, start_q, tiles.other)
        delta = sizes.load_row(delta_ref, start_q, tiles.other)
        # Queries beyond the end are zeros, their weights 1, and add 1 * 0 to both sums.
        weights = jnp.exp2(_dot_transposed(k, q) * sizes.log2_scale - log_sum[None, :])
        dv = dv + _dot(weights.astype(do.dtype), do)
        d_scores = weights * (_dot_transposed(v, do) - delta[None, :])
        return dk + _dot(d_scores.astype(q.dtype), q), dv

    zeros = jnp.zeros((tiles.own, sizes.width), jnp.float32)
    dk, dv = _walk(sizes, visit, (zeros, zeros))
    sizes.store(dk_ref, start_k, dk * sizes.head_dim**-0.5)
    sizes.store(dv_ref, start_k, dv)


def _queries_kernel(q_ref, k_ref, v_ref, do_ref, log_sum_ref, delta_ref, dq_ref, *, sizes: _Sizes):
    """Gradient of one tile of queries."""
    tiles = sizes.tiles
    start_q = pl.program_id(0) * tiles.own
    q = sizes.load(q_ref, start_q, tiles.own)
    do = sizes.load(do_ref, start_q, tiles.own)
    log_sum = sizes.load_row(log_sum_ref, start_q, tiles.own)
    delta = sizes.load_row(delta_ref, start_q, tiles.own)

    def visit(start_k, dq):
        k = sizes.load(k_ref, start_k, tiles.other)
        v = sizes.load(v_ref, start_k, tiles.other)
        exponents = _dot_transposed(q, k) * sizes.log2_scale - log_sum[:, None]
        inside = sizes.is_inside(start_k, tiles.other)
        if inside is not None:  # else exp2(0 - log_sum) may be infinite there
            exponents = jnp.where(inside[None, :], exponents, -jnp.inf)
        d_scores = jnp.exp2(exponents) * (_dot_transposed(do, v) - delta[:, None])
        return dq + _dot(d_scores.astype(k.dtype), k)

    dq = _walk(sizes, visit, jnp.zeros((tiles.own, sizes.width), jnp.float32))
    sizes.store(dq_ref, start_q, dq * sizes.head_dim**-0.5)


def _call(kernel, plan: Plan, tiles: Tiles, interpret: bool, operands, outputs, name: str):
    """Runs a kernel over (own tiles, heads, batch rows).

    Operands and outputs are [B, T, N, K] or, of float32, [B, N, T]. A program is given its
    batch row and head of each, whole.
    """
    batch, length, heads, head_dim = operands[0].shape
    sizes = _Sizes(length, head_dim, tiles)
    # Whole tiles: compiled, a block is but a pointer; interpreted, it has NaN beyond the end.
    rows = math.lcm(tiles.own, tiles.other)
    rows *= pl.cdiv(length, rows)

    def spec(array) -> pl.BlockSpec:
        if len(array.shape) == 4:
            return pl.BlockSpec((None, rows, None, sizes.width), lambda i, n, b: (b, 0, n, 0))
        return pl.BlockSpec((None, None, rows), lambda i, n, b: (b, n, 0))

    return pl.pallas_call(
        functools.partial(kernel, sizes=sizes),
        grid=(pl.cdiv(length, tiles.own), heads, batch),
        in_specs=[spec(operand) for operand in operands],
        out_specs=[spec(output) for output in outputs],
        out_shape=outputs,
        compiler_params=triton.CompilerParams(num_warps=plan.warps, num_stages=plan.stages),
        interpret=interpret,
        name=name,
    )(*operands)


def _like(array: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


def _forward(q_BTNK, k_BTNK, v_BTNK, plan: Plan, interpret: bool):
    batch, length, heads, _ = q_BTNK.shape
    outputs = [_like(q_BTNK), jax.ShapeDtypeStruct((batch, heads, length), jnp.float32)]
    return _call(
        _forward_kernel, plan, plan.forward, interpret, (q_BTNK, k_BTNK, v_BTNK), outputs,
        'attention_forward',
    )  # fmt: skip


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _attend(q_BTNK, k_BTNK, v_BTNK, plan: Plan, interpret: bool):
    return _forward(q_BTNK, k_BTNK, v_BTNK, plan, interpret)[0]


def _attend_forward(q_BTNK, k_BTNK, v_BTNK, plan: Plan, interpret: bool):
    o_BTNK, log_sum_BNT = _forward(q_BTNK, k_BTNK, v_BTNK, plan, interpret)
    return o_BTNK, (q_BTNK, k_BTNK, v_BTNK, o_BTNK, log_sum_BNT)


def _attend_backward(plan: Plan, interpret: bool, residuals, do_BTNK):
    q_BTNK, k_BTNK, v_BTNK, o_BTNK, log_sum_BNT = residuals
    delta_BNT = jnp.einsum(
        'BTNK,BTNK->BNT', o_BTNK.astype(jnp.float32), do_BTNK.astype(jnp.float32)
    )
    operands = (q_BTNK, k_BTNK, v_BTNK, do_BTNK, log_sum_BNT, delta_BNT)
    run = functools.partial(_call, plan=plan, tiles=plan.backward, interpret=interpret)
    dk_BTNK, dv_BTNK = run(
        _keys_kernel, operands=operands, outputs=[_like(k_BTNK), _like(v_BTNK)],
        name='attention_backward_keys',
    )  # fmt: skip
    (dq_BTNK,) = run(
        _queries_kernel, operands=operands, outputs=[_like(q_BTNK)],
        name='attention_backward_queries',
    )  # fmt: skip
    return dq_BTNK, dk_BTNK, dv_BTNK


_attend.defvjp(_attend_forward, _attend_backward)


def attend(
    q_BTNK: jax.Array,
    k_BTNK: jax.Array,
    v_BTNK: jax.Array,
    plan: Plan | None = None,
    interpret: bool = False,
) -> jax.Array:
    """Softmax attention, scale 1 / sqrt(K), accumulated in float32; differentiable once.

    Products of float32 operands are true float32 products.

    Args:
      q_BTNK, k_BTNK, v_BTNK: [B, T, N, K] of one dtype of ``DTYPES``, K at most
        ``MAX_HEAD_DIM``; on one device, or inside ``jax.shard_map``.
      plan: how to tile the work; None: ``Plan.default``.
      interpret: runs on any platform, slowly.

    Returns:
      [B, T, N, K] of the same dtype.

    Raises:
      ValueError: a dtype or head size that the kernels do not have.
    """
    _, length, _, head_dim = q_BTNK.shape
    if q_BTNK.dtype not in DTYPES or head_dim > MAX_HEAD_DIM:
        raise ValueError(
            f'this attention takes {", ".join(DTYPES)} and heads of at most {MAX_HEAD_DIM}; got '
            f'{q_BTNK.dtype} and {head_dim}. Use another implementation.'
        )
    plan = plan or Plan.default(q_BTNK.dtype, length, head_dim)
    return _attend(q_BTNK, k_BTNK, v_BTNK, plan, interpret)
