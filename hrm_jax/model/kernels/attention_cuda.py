"""Flash attention for NVIDIA GPUs in Pallas (Triton), forward and backward.

Full attention over any number of positions: no [T, T] matrix ever reaches device memory, in
neither direction, and nothing is transposed, padded or sliced there; rotary positions are applied
to the tiles as they are read. Programs read tiles with masks where the length or the head size is
not a multiple of the tile. The method is FlashAttention-2's
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
MIN_ROTATED_HEAD_DIM = 17  # each half of a smaller head would be narrower than a tile may be
DTYPES = ('float32', 'bfloat16', 'float16')
_SMALLEST_TILE = 16  # a side of the GPU's matrix instructions
Parts = tuple[jax.Array, ...]  # a tile of queries or keys: whole, or the halves of its channels


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


def _tile_side(size: int) -> int:
    return max(_SMALLEST_TILE, pl.next_power_of_2(size))


@dataclasses.dataclass(frozen=True)
class _Sizes:
    """Sizes of a problem, and access to it by tiles, zeros outside."""

    length: int
    head_dim: int
    tiles: Tiles

    @property
    def width(self) -> int:
        """Head size as the tiles have it."""
        return _tile_side(self.head_dim)

    @property
    def half(self) -> int:
        """Channels that the rotation pairs with as many others."""
        return self.head_dim // 2

    @property
    def log2_scale(self) -> float:
        """Turns products into exponents of 2: the GPU has no exponential but that."""
        return self.head_dim**-0.5 * math.log2(math.e)

    def is_inside(self, start: Any, rows: int) -> jax.Array | None:
        """Which of the rows exist; None: all of them, whatever the start."""
        if self.length % rows == 0:
            return None
        return start + lax.iota(jnp.int32, rows) < self.length

    def _mask(self, start: Any, rows: int, columns: int) -> jax.Array | None:
        """Which entries of a tile exist, of ``columns`` channels of a row; None: all."""
        inside = self.is_inside(start, rows)
        inside = None if inside is None else inside[:, None]
        width = _tile_side(columns)
        if width == columns:
            return inside
        within = (lax.iota(jnp.int32, width) < columns)[None, :]
        return within if inside is None else inside & within

    def load(self, ref: Any, start: Any, rows: int, first: int = 0, columns: int = 0) -> jax.Array:
        """[rows, width] from [T, width]; ``columns`` channels from ``first`` on, or all."""
        columns = columns or self.head_dim
        mask = self._mask(start, rows, columns)
        tile = ref.at[pl.ds(start, rows), pl.ds(first, _tile_side(columns))]
        return triton.load(tile, mask=mask, other=None if mask is None else 0.0)

    def load_parts(self, ref: Any, tables: Any, start: Any, rows: int) -> Parts:
        """Queries or keys: the whole tile, or with tables its rotated halves (layers.rotate)."""
        if tables is None:
            return (self.load(ref, start, rows),)
        cos, sin = (self.load(table, start, rows, 0, self.half) for table in tables)
        one, other = (
            self.load(ref, start, rows, first, self.half).astype(jnp.float32)
            for first in (0, self.half)
        )
        turned = one * cos - other * sin, other * cos + one * sin
        return tuple(part.astype(ref.dtype) for part in turned)

    def store_parts(self, ref: Any, tables: Any, start: Any, parts: Parts) -> None:
        """Gradients of what ``load_parts`` gave, those of halves turned back."""
        if tables is None:
            self.store(ref, start, parts[0])
            return
        one, other = parts
        cos, sin = (self.load(table, start, len(one), 0, self.half) for table in tables)
        self.store(ref, start, one * cos + other * sin, 0, self.half)
        self.store(ref, start, other * cos - one * sin, self.half, self.half)

    def load_row(self, ref: Any, start: Any, rows: int) -> jax.Array:
        """[rows] from [T]."""
        mask = self.is_inside(start, rows)
        tile = ref.at[pl.ds(start, rows)]
        return triton.load(tile, mask=mask, other=None if mask is None else 0.0)

    def store(
        self, ref: Any, start: Any, tile: jax.Array, first: int = 0, columns: int = 0
    ) -> None:
        columns = columns or self.head_dim
        where = ref.at[pl.ds(start, tile.shape[0]), pl.ds(first, _tile_side(columns))]
        mask = self._mask(start, tile.shape[0], columns)
        triton.store(where, tile.astype(ref.dtype), mask=mask)

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


def _scores(one: Parts, other: Parts) -> jax.Array:
    """Products of all rows of one with all of the other; parts share out the channels."""
    products = [_dot_transposed(a, b) for a, b in zip(one, other, strict=True)]
    return products[0] if len(products) == 1 else products[0] + products[1]


def _walk(sizes: _Sizes, visit: Callable[[jax.Array, Any], Any], carry: Any) -> Any:
    """Calls ``visit(start, carry)`` for every tile of the other side."""
    rows = sizes.tiles.other
    return lax.fori_loop(
        0, pl.cdiv(sizes.length, rows), lambda i, carry: visit(i * rows, carry), carry
    )


def _forward_kernel(tables, q_ref, k_ref, v_ref, o_ref, log_sum_ref, *, sizes: _Sizes):
    """Output and log2 of the softmax's denominator for one tile of queries."""
    tiles = sizes.tiles
    start_q = pl.program_id(0) * tiles.own
    q = sizes.load_parts(q_ref, tables, start_q, tiles.own)

    def visit(start_k, carry):
        mixed, top, total = carry
        k = sizes.load_parts(k_ref, tables, start_k, tiles.other)
        v = sizes.load(v_ref, start_k, tiles.other)
        scores = _scores(q, k) * sizes.log2_scale
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
    tables, q_ref, k_ref, v_ref, do_ref, log_sum_ref, delta_ref, dk_ref, dv_ref, *, sizes: _Sizes
):
    """Gradients of one tile of keys and values; matrices have keys as rows."""
    tiles = sizes.tiles
    start_k = pl.program_id(0) * tiles.own
    k = sizes.load_parts(k_ref, tables, start_k, tiles.own)
    v = sizes.load(v_ref, start_k, tiles.own)

    def visit(start_q, carry):
        dk, dv = carry
        q = sizes.load_parts(q_ref, tables, start_q, tiles.other)
        do = sizes.load(do_ref, start_q, tiles.other)
        log_sum = sizes.load_row(log_sum_ref, start_q, tiles.other)
        delta = sizes.load_row(delta_ref, start_q, tiles.other)
        # Queries beyond the end are zeros, their weights 1, and add 1 * 0 to both sums.
        weights = jnp.exp2(_scores(k, q) * sizes.log2_scale - log_sum[None, :])
        dv = dv + _dot(weights.astype(do.dtype), do)
        d_scores = weights * (_dot_transposed(v, do) - delta[None, :])
        return _added(dk, d_scores, q), dv

    zeros = jnp.zeros((tiles.own, sizes.width), jnp.float32)
    dk, dv = _walk(sizes, visit, (_zeros_like(k), zeros))
    scaled = tuple(part * sizes.head_dim**-0.5 for part in dk)
    sizes.store_parts(dk_ref, tables, start_k, scaled)
    sizes.store(dv_ref, start_k, dv)


def _queries_kernel(
    tables, q_ref, k_ref, v_ref, do_ref, log_sum_ref, delta_ref, dq_ref, *, sizes: _Sizes
):
    """Gradient of one tile of queries."""
    tiles = sizes.tiles
    start_q = pl.program_id(0) * tiles.own
    q = sizes.load_parts(q_ref, tables, start_q, tiles.own)
    do = sizes.load(do_ref, start_q, tiles.own)
    log_sum = sizes.load_row(log_sum_ref, start_q, tiles.own)
    delta = sizes.load_row(delta_ref, start_q, tiles.own)

    def visit(start_k, dq):
        k = sizes.load_parts(k_ref, tables, start_k, tiles.other)
        v = sizes.load(v_ref, start_k, tiles.other)
        exponents = _scores(q, k) * sizes.log2_scale - log_sum[:, None]
        inside = sizes.is_inside(start_k, tiles.other)
        if inside is not None:  # else exp2(0 - log_sum) may be infinite there
            exponents = jnp.where(inside[None, :], exponents, -jnp.inf)
        d_scores = jnp.exp2(exponents) * (_dot_transposed(do, v) - delta[:, None])
        return _added(dq, d_scores, k)

    dq = _walk(sizes, visit, _zeros_like(q))
    scaled = tuple(part * sizes.head_dim**-0.5 for part in dq)
    sizes.store_parts(dq_ref, tables, start_q, scaled)


def _zeros_like(parts: Parts) -> Parts:
    return tuple(jnp.zeros(part.shape, jnp.float32) for part in parts)


def _added(sums: Parts, d_scores: jax.Array, others: Parts) -> Parts:
    """Sums of gradients and what the scores of one more tile of the others add to them."""
    return tuple(
        total + _dot(d_scores.astype(part.dtype), part)
        for total, part in zip(sums, others, strict=True)
    )


@dataclasses.dataclass(frozen=True)
class _Third:
    """q, k or v (``index`` 0, 1, 2) of one array [B, T, 3, N, K], where it is."""

    array: jax.Array
    index: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape[:2] + self.array.shape[3:]

    @property
    def dtype(self) -> jnp.dtype:
        return self.array.dtype


def _split(qkv: Any) -> tuple[Any, Any, Any]:
    """The three operands of one array, or those of a tuple."""
    return qkv if isinstance(qkv, tuple) else tuple(_Third(qkv, i) for i in range(3))


def _call(kernel, plan: Plan, tiles: Tiles, interpret: bool, tables, operands, outputs, name: str):
    """Runs a kernel over (own tiles, heads, batch rows).

    Operands and outputs are [B, T, N, K] (operands also as ``_Third``) or, of float32, [B, N, T].
    A program is given its batch row and head of each, whole, and the tables [T, K / 2] whole.
    """
    batch, length, heads, head_dim = operands[0].shape
    sizes = _Sizes(length, head_dim, tiles)
    # Whole tiles: compiled, a block is but a pointer; interpreted, it has NaN beyond the end.
    rows = math.lcm(tiles.own, tiles.other)
    rows *= pl.cdiv(length, rows)

    def spec(array) -> pl.BlockSpec:
        if isinstance(array, _Third):
            return pl.BlockSpec(
                (None, rows, None, None, sizes.width), lambda i, n, b: (b, 0, array.index, n, 0)
            )
        if len(array.shape) == 4:
            return pl.BlockSpec((None, rows, None, sizes.width), lambda i, n, b: (b, 0, n, 0))
        return pl.BlockSpec((None, None, rows), lambda i, n, b: (b, n, 0))

    table = pl.BlockSpec((rows, _tile_side(sizes.half)), lambda i, n, b: (0, 0))
    turning = () if tables is None else tuple(tables)

    def body(*refs):
        count = len(turning)
        kernel(refs[:count] if count else None, *refs[count:], sizes=sizes)

    return pl.pallas_call(
        body,
        grid=(pl.cdiv(length, tiles.own), heads, batch),
        in_specs=[*(table for _ in turning), *(spec(operand) for operand in operands)],
        out_specs=[spec(output) for output in outputs],
        out_shape=outputs,
        compiler_params=triton.CompilerParams(num_warps=plan.warps, num_stages=plan.stages),
        interpret=interpret,
        name=name,
    )(*turning, *(one.array if isinstance(one, _Third) else one for one in operands))


def _like(array: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


def _forward(qkv, tables, plan: Plan, interpret: bool):
    q_BTNK, k_BTNK, v_BTNK = _split(qkv)
    batch, length, heads, _ = q_BTNK.shape
    outputs = [_like(q_BTNK), jax.ShapeDtypeStruct((batch, heads, length), jnp.float32)]
    return _call(
        _forward_kernel, plan, plan.forward, interpret, tables, (q_BTNK, k_BTNK, v_BTNK), outputs,
        'attention_forward',
    )  # fmt: skip


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _attend(qkv, tables, plan: Plan, interpret: bool):
    """Attention of q, k and v (a tuple, or one array); with tables the first two are rotated."""
    return _forward(qkv, tables, plan, interpret)[0]


def _attend_forward(qkv, tables, plan: Plan, interpret: bool):
    o_BTNK, log_sum_BNT = _forward(qkv, tables, plan, interpret)
    return o_BTNK, (qkv, tables, o_BTNK, log_sum_BNT)


def _attend_backward(plan: Plan, interpret: bool, residuals, do_BTNK):
    qkv, tables, o_BTNK, log_sum_BNT = residuals
    q_BTNK, k_BTNK, v_BTNK = _split(qkv)
    delta_BNT = jnp.einsum(
        'BTNK,BTNK->BNT', o_BTNK.astype(jnp.float32), do_BTNK.astype(jnp.float32)
    )
    operands = (q_BTNK, k_BTNK, v_BTNK, do_BTNK, log_sum_BNT, delta_BNT)
    run = functools.partial(
        _call, plan=plan, tiles=plan.backward, interpret=interpret, tables=tables
    )
    dk_BTNK, dv_BTNK = run(
        _keys_kernel, operands=operands, outputs=[_like(k_BTNK), _like(v_BTNK)],
        name='attention_backward_keys',
    )  # fmt: skip
    (dq_BTNK,) = run(
        _queries_kernel, operands=operands, outputs=[_like(q_BTNK)],
        name='attention_backward_queries',
    )  # fmt: skip
    gradients = (dq_BTNK, dk_BTNK, dv_BTNK)
    # The angles are no weights.
    return gradients if isinstance(qkv, tuple) else jnp.stack(gradients, axis=2), None


_attend.defvjp(_attend_forward, _attend_backward)


def _check(dtype: jnp.dtype, head_dim: int) -> None:
    if dtype not in DTYPES or head_dim > MAX_HEAD_DIM:
        raise ValueError(
            f'this attention takes {", ".join(DTYPES)} and heads of at most {MAX_HEAD_DIM}; got '
            f'{dtype} and {head_dim}. Use another implementation.'
        )


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
    _check(q_BTNK.dtype, head_dim)
    plan = plan or Plan.default(q_BTNK.dtype, length, head_dim)
    return _attend((q_BTNK, k_BTNK, v_BTNK), None, plan, interpret)


def attend_rotated(
    qkv_BTCNK: jax.Array,
    cos_TK: jax.Array,
    sin_TK: jax.Array,
    plan: Plan | None = None,
    interpret: bool = False,
) -> jax.Array:
    """``attend`` of the three parts of one projection, queries and keys rotated as they are read.

    Rotated tiles are rounded to the dtype of the operands, as ``layers.rotate`` does; neither they
    nor the parts are ever written to device memory.

    Args:
      qkv_BTCNK: [B, T, 3, N, K]: queries, keys, values; K even, ``MIN_ROTATED_HEAD_DIM`` at least.
      cos_TK, sin_TK: float32 [T, K / 2], tables of ``layers.rotary_tables``; they get no gradient.
      plan, interpret: of ``attend``.

    Returns:
      [B, T, N, K] of the same dtype.

    Raises:
      ValueError: a dtype or head size that the kernels do not have.
    """
    length, head_dim = qkv_BTCNK.shape[1], qkv_BTCNK.shape[-1]
    _check(qkv_BTCNK.dtype, head_dim)
    if head_dim < MIN_ROTATED_HEAD_DIM or head_dim % 2:
        raise ValueError(
            f'rotated heads must be even and {MIN_ROTATED_HEAD_DIM} at least; got {head_dim}.'
        )
    plan = plan or Plan.default(qkv_BTCNK.dtype, length, head_dim)
    return _attend(qkv_BTCNK, (cos_TK, sin_TK), plan, interpret)
