"""The hidden layer of SwiGLU, by XLA or in one kernel where a pass keeps no gradient."""

import functools
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from hrm_jax import partitioning, types
from hrm_jax.model import gradient_sums
from hrm_jax.model.kernels import choice

JOINT = 'gate_up_proj'  # name of the projection to both
_KERNELS = {'pallas': 'gated_unit_cuda', 'tokamax': 'tokamax_kernels'}  # modules of kernels/


class Kernels(NamedTuple):
    """The two kernels of a gated unit, float32 [D, F] each, where they are two arrays."""

    gate_DF: jax.Array
    up_DF: jax.Array

    @classmethod
    def of(cls, kernel_DGF: jax.Array) -> 'Kernels':
        """Slices of one array."""
        return cls(kernel_DGF[:, 0], kernel_DGF[:, 1])


def taken_apart(params: Any) -> Any:
    """Parameters of a model with ``Kernels`` in place of the kernels [D, 2, F] of gated units.

    For programs on a CPU, which would copy each half at every use.
    """

    def one(path: tuple[Any, ...], leaf: jax.Array) -> Any:
        names = [getattr(key, 'key', None) for key in path[-2:]]
        if names != [JOINT, 'kernel'] or leaf.ndim != 3:
            return leaf
        return Kernels.of(leaf)

    return jax.tree_util.tree_map_with_path(one, params)


def gate_and_up(x: jax.Array, kernel_DGF: jax.Array | Kernels) -> tuple[jax.Array, jax.Array]:
    """Both parts of the hidden layer, [..., F] each.

    Args:
      x: [..., D] of the compute dtype.
      kernel_DGF: float32 [D, 2, F]: gate, up; or each by itself.
    """
    if partitioning.on_cpu() and not isinstance(kernel_DGF, Kernels):
        # One array of both would have its gradient put together element by element.
        kernel_DGF = Kernels.of(kernel_DGF)
    if isinstance(kernel_DGF, Kernels):
        gate, up = (gradient_sums.product(x, kernel_DF) for kernel_DF in kernel_DGF)
        return gate, up
    gate_up = gradient_sums.product(x, kernel_DGF)
    return gate_up[..., 0, :], gate_up[..., 1, :]


def combined(gate: jax.Array, up: jax.Array) -> jax.Array:
    """``silu(gate) * up``, [..., F]."""
    if partitioning.on_cpu() and gate.dtype == jnp.float32:
        return _combined_on_cpu(gate, up)
    return nn.silu(gate) * up


@jax.custom_vjp
def _combined_on_cpu(gate: jax.Array, up: jax.Array) -> jax.Array:
    """The same with a backward pass in two passes over memory.

    XLA for CPUs makes another pass for every exponential, tangent or quotient that is used twice,
    so none is: the three below differ for it. Autodiff's derivative takes seven.
    """
    return nn.silu(gate) * up


def _combined_forward(gate, up):
    return _combined_on_cpu(gate, up), (gate, up)


def _combined_backward(kept, g):
    gate, up = kept
    sigmoid = 0.5 - 0.5 * jnp.tanh(-0.5 * gate)
    bell = 0.25 - 0.25 * jnp.square(jnp.tanh(0.5 * gate))  # sigmoid * (1 - sigmoid)
    return g * up * (sigmoid + gate * bell), g * (gate * jax.lax.logistic(gate))


_combined_on_cpu.defvjp(_combined_forward, _combined_backward)


def plain(x: jax.Array, kernel_DGF: jax.Array) -> jax.Array:
    """``swiglu`` by XLA, of the same arguments."""
    return combined(*gate_and_up(x, kernel_DGF))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def swiglu(x_BTD: jax.Array, kernel_DGF: jax.Array, implementation: str) -> jax.Array:
    """``silu(gate) * up`` by a kernel (kernels/); with gradient by XLA, which keeps both.

    Args:
      x_BTD: [B, T, D] of the compute dtype.
      kernel_DGF: float32 [D, 2, F]: gate, up.
      implementation: ``pallas`` or ``tokamax``.

    Returns:
      [B, T, F] in the dtype of ``x_BTD``.
    """
    module = choice.module(_KERNELS[implementation])
    assert module is not None  # uses_kernel has looked

    def here(x_BTD, kernel_DGF, *, interpret):
        rows = x_BTD.reshape(-1, x_BTD.shape[-1])
        hidden = module.hidden(rows, kernel_DGF.astype(x_BTD.dtype), interpret=interpret)
        return hidden.reshape(*x_BTD.shape[:-1], hidden.shape[-1])

    return choice.on_each_device(
        here, (x_BTD, kernel_DGF), ((types.BATCH, None, None), (None, None, types.MLP)),
        (*x_BTD.shape[:-1], kernel_DGF.shape[-1]), (types.BATCH, None, types.MLP),
    )  # fmt: skip


def _forward(x_BTD, kernel_DGF, implementation):
    del implementation
    return jax.vjp(plain, x_BTD, kernel_DGF)


def _backward(implementation, pull_back, d_hidden):
    del implementation
    return pull_back(d_hidden)


swiglu.defvjp(_forward, _backward)


def uses_kernel(implementation: str, dtype: jnp.dtype) -> bool:
    """Whether the kernel runs: asked for (``model.gated_unit_kernel``), and there is a place.

    Where it cannot run, a warning says so the first time.
    """
    if implementation == 'xla':
        return False
    name = _KERNELS[implementation]
    if missing := choice.obstacle(name):
        choice.say_once(f'model.gated_unit_kernel={implementation} runs through XLA: {missing}.')
        return False
    return jnp.dtype(dtype).name in getattr(choice.module(name), 'DTYPES', ())
