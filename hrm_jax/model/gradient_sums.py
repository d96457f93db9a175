"""Products with weights, and how their gradients are summed over rows.

Weights are float32 and rounded to the compute dtype where they are used. Where it has 16 bits and
is left to itself, autodiff rounds each device's part of a gradient to that dtype, and the parts
are added in it. With ``train.gradient_sums`` = float32 the parts leave the products as float32 and
are added as such, as the originals do in PyTorch (which rounds each part first). Values and all
other gradients have the same bits either way; the setting changes nothing in float32 models.
"""

import jax
import jax.numpy as jnp

from hrm_jax import partitioning


def _are_wide(dtype: jnp.dtype) -> bool:
    return partitioning.sums_in_float32() and jnp.dtype(dtype).itemsize == 2


@jax.custom_vjp
def _wide_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.tensordot(x, kernel.astype(x.dtype), 1)


def _forward(x, kernel):
    return _wide_product(x, kernel), (x, kernel)


def _backward(kept, g):
    x, kernel = kept
    outs = tuple(range(g.ndim - (kernel.ndim - 1), g.ndim))
    rows = tuple(range(x.ndim - 1))
    of_x = jax.lax.dot_general(
        g, kernel.astype(x.dtype), ((outs, tuple(range(1, kernel.ndim))), ((), ()))
    )
    of_kernel = jax.lax.dot_general(
        x, g, ((rows, rows), ((), ())), preferred_element_type=jnp.float32
    )
    return of_x, of_kernel


_wide_product.defvjp(_forward, _backward)


@jax.custom_vjp
def _tall_product(x_RF: jax.Array, kernel_FG: jax.Array) -> jax.Array:
    return jnp.dot(x_RF, kernel_FG)


def _tall_forward(x_RF, kernel_FG):
    return jnp.dot(x_RF, kernel_FG), (x_RF, kernel_FG)


def _tall_backward(kept, g_RG):
    x_RF, kernel_FG = kept
    of_kernel_GF = jax.lax.dot_general(g_RG, x_RF, (((0,), (0,)), ((), ())))
    # Without the barrier XLA would swap the operands back.
    of_kernel_GF = jax.lax.optimization_barrier(of_kernel_GF)
    return jnp.dot(g_RG, kernel_FG.T), of_kernel_GF.T


_tall_product.defvjp(_tall_forward, _tall_backward)


def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Contracts the last axis of ``x`` with the first of a kernel.

    Args:
      x: [..., F] of the compute dtype.
      kernel: float32 [F, ...].

    Returns:
      [..., ...] in the dtype of ``x``.
    """
    rows, is_tall = x, False
    if partitioning.on_cpu():
        # One axis of rows: what products of several contract in the backward pass is copied.
        rows = x.reshape(-1, x.shape[-1])
        is_tall = kernel.ndim == 2 and kernel.shape[0] > kernel.shape[1]
    if _are_wide(x.dtype):
        y = _wide_product(rows, kernel)
    elif is_tall and x.dtype == jnp.float32:
        # Faster than autodiff's order of the operands (experiments/results/cpu_pages.md).
        y = _tall_product(rows, kernel)
    else:
        y = jnp.tensordot(rows, kernel.astype(x.dtype), 1)
    return y.reshape(*x.shape[:-1], *kernel.shape[1:])


def spread(weight: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    """A float32 weight as an operand beside activations: in their dtype.

    Args:
      weight: float32, broadcasts to ``shape``.
      shape, dtype: of the activations. The weight gets that shape where sums are wide, so that
        its gradient is float32 before it is summed; else it keeps its own.
    """
    if _are_wide(dtype):
        return jnp.broadcast_to(weight, shape).astype(dtype)
    return weight.astype(dtype)


def whole(table: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    """``spread`` of a table that every device has whole: it is small."""
    if _are_wide(dtype):
        return spread(partitioning.constrain(table, (None, None)), shape, dtype)
    return partitioning.constrain(table.astype(dtype), (None, None))


def take(table: jax.Array, ids: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Rows of a float32 table [N, D] for int32 ``ids`` [...], as [..., D] in ``dtype``.

    The table is whole on every device: looking up rows of a sharded one moves far more.
    """
    if _are_wide(dtype):
        rows = jnp.take(partitioning.constrain(table, (None, None)), ids, axis=0)
        return rows.astype(dtype)
    return jnp.take(partitioning.constrain(table.astype(dtype), (None, None)), ids, axis=0)
