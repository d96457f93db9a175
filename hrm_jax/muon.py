"""Muon: momentum whose matrices are made orthogonal by a Newton-Schulz iteration.

The form is that of SIC (jvdillon/sic code/optimizer.py; arXiv 2601.19085): momentum as a moving
average, three iterations, decoupled weight decay. It is for the matrices of the blocks; optim.py
gives everything else to AdamW.

Our kernels are (in, *out); the iteration sees each as the originals' (out, in), and the fused
projection of attention as one matrix for each head of q, k and v.
"""

from collections.abc import Callable, Sequence
import math
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

MATRIX, OTHER = 'matrix', 'other'  # the two groups of parameters
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_EPS = 1e-7


class MuonState(NamedTuple):
    """Updates done (int32 []) and the moving average of the gradients, float32."""

    count: jax.Array
    momentum: Any


def _names(path: Sequence[Any]) -> list[str]:
    # Only the keys of dictionaries: linen's boxes add a level that is not part of a name.
    return [entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey)]


def groups(params: Any, skip: Sequence[str]) -> Any:
    """Labels each parameter: MATRIX for kernels, OTHER for the rest and for skipped names."""

    def label(path, leaf):
        names = _names(path)
        named = any(part in name for name in names for part in skip)
        return MATRIX if names[-1] == 'kernel' and leaf.ndim > 1 and not named else OTHER

    return jax.tree_util.tree_map_with_path(label, params)


def orthogonalize(
    x_MRC: jax.Array, steps: int, dtype: jax.typing.DTypeLike = jnp.bfloat16
) -> jax.Array:
    """Brings the singular values of matrices [..., rows, columns] near 1; float32.

    Args:
      x_MRC: matrices.
      steps: iterations.
      dtype: of the iteration.
    """
    a, b, c = _COEFFICIENTS
    x = x_MRC.astype(dtype)
    norm = jnp.linalg.norm(x.astype(jnp.float32), axis=(-2, -1), keepdims=True).astype(dtype)
    x = x / jnp.maximum(norm, jnp.asarray(_EPS, dtype))
    is_tall = x.shape[-2] > x.shape[-1]
    if is_tall:
        x = jnp.swapaxes(x, -1, -2)
    precision = 'highest' if x.dtype == jnp.float32 else None

    def product(left, right):
        # Half-precision factors are exact in float32, also where its products have fewer bits.
        return jnp.matmul(*(y.astype(jnp.float32) for y in (left, right)), precision=precision)

    # Each line is one fused operation there: sums in float32, rounded once.
    for _ in range(steps):
        gram = product(x, jnp.swapaxes(x, -1, -2)).astype(dtype)
        powers = (b * gram.astype(jnp.float32) + c * product(gram, gram)).astype(dtype)
        x = (a * x.astype(jnp.float32) + product(powers, x)).astype(dtype)
    x = jnp.swapaxes(x, -1, -2) if is_tall else x
    return x.astype(jnp.float32)


def _as_matrices(name: str, x: jax.Array) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
    """A kernel as matrices [count, out, in], and the way back."""
    shape = x.shape
    if name == 'qkv_proj':  # (dim, 3, heads, head_dim)
        dim, _, _, width = shape
        flat = x.reshape(dim, -1, width)
        return jnp.transpose(flat, (1, 2, 0)), lambda y: jnp.transpose(y, (2, 0, 1)).reshape(shape)
    inputs = math.prod(shape[:-1]) if name == 'o_proj' else shape[0]
    return x.reshape(inputs, -1).T[None], lambda y: y[0].T.reshape(shape)


def _scale(rows: int, columns: int, scale: str) -> float:
    match scale:
        case 'original':
            return math.sqrt(max(1.0, rows / columns))
        case 'match_rms_adamw':
            return 0.2 * math.sqrt(max(rows, columns))
    raise ValueError(f'no scale of Muon called {scale!r}')


def muon(
    learning_rate: Callable[[Any], jax.Array],
    momentum: float = 0.6,
    weight_decay: float = 0.005,
    steps: int = 3,
    nesterov: bool = True,
    dtype: jax.typing.DTypeLike = 'bfloat16',
    scale: str = 'original',
) -> optax.GradientTransformation:
    """Muon in the form of SIC, for kernels in the layouts of model/layers.py.

    m <- mu m + (1 - mu) g; u = (1 - mu) g + mu m (nesterov) or m; with the orthogonalized matrix
    X of u: p <- p (1 - lr wd) - lr sqrt(max(1, rows / columns)) X.

    Args:
      learning_rate: updates done, this one included -> rate.
      momentum, weight_decay, nesterov: see above.
      steps, dtype: see ``orthogonalize``.
      scale: ``original``: as above; ``match_rms_adamw``: 0.2 sqrt(max(rows, columns)) in its place.
    """

    def init(params):
        return MuonState(jnp.zeros([], jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def update(updates, state, params=None):
        if params is None:
            raise ValueError('muon decays the weights: pass params to update().')
        count = cast(jax.Array, optax.safe_increment(state.count))
        lr = learning_rate(count)
        average = jax.tree.map(lambda m, g: m + (1 - momentum) * (g - m), state.momentum, updates)

        def change(path, p, m, g):
            u = g + momentum * (m - g) if nesterov else m
            matrices, back = _as_matrices(_names(path)[-2], u)  # by the kernel's module
            rows, columns = matrices.shape[1:]
            factor = _scale(rows, columns, scale)
            return -lr * weight_decay * p - lr * factor * back(
                orthogonalize(matrices, steps, dtype)
            )

        changes = jax.tree_util.tree_map_with_path(change, params, average, updates)
        return changes, MuonState(count, average)

    return optax.GradientTransformation(init, update)
