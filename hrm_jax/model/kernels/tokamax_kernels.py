"""Kernels of the package tokamax (openxla/tokamax), an optional one, for NVIDIA GPUs.

It chooses by the device: on Hopper kernels in Mosaic GPU, the successor of Pallas's Triton backend.
Interpreted, its forms in plain JAX run, on any platform.
"""

import jax
import jax.numpy as jnp
import tokamax

DTYPES = ('float32', 'bfloat16', 'float16')


def _which(interpret: bool) -> str | None:
    return 'xla' if interpret else None


def attend(
    q_BTNK: jax.Array, k_BTNK: jax.Array, v_BTNK: jax.Array, interpret: bool = False
) -> jax.Array:
    """Softmax attention, scale 1 / sqrt(K), of [B, T, N, K] three times; differentiable."""
    return tokamax.dot_product_attention(
        q_BTNK, k_BTNK, v_BTNK, implementation=_which(interpret)
    )  # fmt: skip


def hidden(x_RD: jax.Array, kernel_DGF: jax.Array, interpret: bool = False) -> jax.Array:
    """The hidden layer of SwiGLU, [R, F], of [R, D] and [D, 2, F] (gate, up), of one dtype."""
    return tokamax.gated_linear_unit(
        x_RD, kernel_DGF, activation=jax.nn.silu, implementation=_which(interpret)
    )


def rms_norm(x: jax.Array, eps: float, interpret: bool = False) -> jax.Array:
    """Divides by the root mean square along the last axis, in float32; differentiable."""
    ones = jnp.ones(x.shape[-1], jnp.float32)
    return tokamax.layer_norm(
        x, ones, None, epsilon=eps, subtract_mean=False, implementation=_which(interpret)
    )
