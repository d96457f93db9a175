"""The hidden layer of SwiGLU, by XLA or in one kernel where a pass keeps no gradient."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from hrm_jax import partitioning, types
from hrm_jax.model import gradient_sums
from hrm_jax.model.kernels import choice, interpret


def plain(x: jax.Array, kernel_DGF: jax.Array) -> jax.Array:
    """``swiglu`` by XLA, of the same arguments."""
    gate_up = gradient_sums.product(x, kernel_DGF)
    return nn.silu(gate_up[..., 0, :]) * gate_up[..., 1, :]


def _by_kernel(x_BTD: jax.Array, kernel_DGF: jax.Array, *, interpret: bool) -> jax.Array:
    module = choice.module('gated_unit_cuda')
    assert module is not None  # uses_kernel has looked
    rows = x_BTD.reshape(-1, x_BTD.shape[-1])
    hidden = module.hidden(rows, kernel_DGF.astype(x_BTD.dtype), interpret=interpret)
    return hidden.reshape(*x_BTD.shape[:-1], hidden.shape[-1])


@jax.custom_vjp
def swiglu(x_BTD: jax.Array, kernel_DGF: jax.Array) -> jax.Array:
    """``silu(gate) * up`` by the kernel of kernels/gated_unit_cuda.py; with gradient by XLA.

    Args:
      x_BTD: [B, T, D] of the compute dtype.
      kernel_DGF: float32 [D, 2, F]: gate, up.

    Returns:
      [B, T, F] in the dtype of ``x_BTD``.
    """
    mesh = partitioning.active_mesh()
    here = functools.partial(_by_kernel, interpret=interpret.is_on())
    if mesh is None or mesh.size == 1:
        return here(x_BTD, kernel_DGF)
    # XLA does not know how to shard a kernel.
    rows = partitioning.spec_for(x_BTD.shape, (types.BATCH, None, None), mesh)
    weights = partitioning.spec_for(kernel_DGF.shape, (None, None, types.MLP), mesh)
    out = PartitionSpec(rows[0], None, weights[2])
    cut = jax.shard_map(
        here, mesh=mesh, in_specs=(rows, weights), out_specs=out, check_vma=False
    )  # fmt: skip
    return cut(x_BTD, kernel_DGF)


def _forward(x_BTD, kernel_DGF):
    return jax.vjp(plain, x_BTD, kernel_DGF)


def _backward(pull_back, d_hidden):
    return pull_back(d_hidden)


swiglu.defvjp(_forward, _backward)


def uses_kernel(implementation: str, dtype: jnp.dtype) -> bool:
    """Whether the kernel runs: asked for (``model.gated_unit_kernel``), and there is a place.

    Where it cannot run, a warning says so the first time.
    """
    if implementation == 'xla':
        return False
    module, found = choice.module('gated_unit_cuda'), choice.device()
    if module is None:
        missing = choice.without_pallas()
    elif choice.is_nvidia() or interpret.is_on():
        return jnp.dtype(dtype).name in module.DTYPES
    else:
        where = getattr(found, 'device_kind', found.platform)
        missing = f'it needs {choice.NVIDIA}; this is {where}'
    choice.say_once(f'model.gated_unit_kernel={implementation} runs through XLA: {missing}.')
    return False
