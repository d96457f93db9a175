"""The one attention function: full (not causal), unmasked, over every position."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp


def _attend_xla(
    q_BTNK: jax.Array,
    k_BTNK: jax.Array,
    v_BTNK: jax.Array,
    drop: Callable[[jax.Array], jax.Array] = lambda weights: weights,
) -> jax.Array:
    scores_BNTT = jnp.einsum(
        'BTNK,BSNK->BNTS', q_BTNK, k_BTNK, preferred_element_type=jnp.float32
    ) * (q_BTNK.shape[-1] ** -0.5)
    weights = drop(jax.nn.softmax(scores_BNTT, axis=-1)).astype(q_BTNK.dtype)
    return jnp.einsum('BNTS,BSNK->BTNK', weights, v_BTNK)


def _attend_cudnn(q_BTNK: jax.Array, k_BTNK: jax.Array, v_BTNK: jax.Array) -> jax.Array:
    return jax.nn.dot_product_attention(q_BTNK, k_BTNK, v_BTNK, implementation='cudnn')


_IMPLEMENTATIONS = {'xla': _attend_xla, 'cudnn': _attend_cudnn}


def resolve(implementation: str, dtype: jnp.dtype, head_dim: int) -> str:
    """Names the implementation that ``auto`` stands for on this machine.

    cuDNN's fused attention takes half-precision heads whose size is a multiple of 8 and at
    most 128, on NVIDIA GPUs of compute capability 8.0 (Ampere) and later; everything else runs
    through XLA.
    """
    if implementation != 'auto':
        return implementation
    half = jnp.dtype(dtype) in (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16))
    fits = half and head_dim % 8 == 0 and head_dim <= 128
    return 'cudnn' if fits and _has_fused_attention() else 'xla'


def _has_fused_attention() -> bool:
    if jax.default_backend() != 'gpu':
        return False
    # '9.0' on NVIDIA; AMD's names ('gfx90a') are no numbers.
    major = str(getattr(jax.local_devices()[0], 'compute_capability', '')).partition('.')[0]
    return major.isdigit() and int(major) >= 8


def attend(
    q_BTNK: jax.Array,
    k_BTNK: jax.Array,
    v_BTNK: jax.Array,
    implementation: str = 'auto',
    drop: Callable[[jax.Array], jax.Array] | None = None,
) -> jax.Array:
    """Softmax attention, scale 1 / sqrt(K), scores and softmax in float32.

    PAD cells take part, as in the original (models/layers.py, Attention).

    Args:
      q_BTNK, k_BTNK, v_BTNK: [B, T, N, K] of one dtype. Queries of some positions only are
        too little work for a kernel and go through XLA.
      implementation: ``auto``, ``xla`` or ``cudnn``.
      drop: dropout of the attention weights [B, N, T, T]; only XLA's implementation has it.

    Returns:
      [B, T, N, K] in the dtype of ``q_BTNK``.
    """
    chex.assert_equal_shape([k_BTNK, v_BTNK])
    if drop is not None:
        return _attend_xla(q_BTNK, k_BTNK, v_BTNK, drop)
    if q_BTNK.shape != k_BTNK.shape:
        return _attend_xla(q_BTNK, k_BTNK, v_BTNK)
    name = resolve(implementation, q_BTNK.dtype, q_BTNK.shape[-1])
    return _IMPLEMENTATIONS[name](q_BTNK, k_BTNK, v_BTNK)
