"""Winner takes all: several chains for each puzzle, of which the best one learns.

Source: arXiv 2601.19085; jvdillon/sic, code/experiment.py and code/model.py. A puzzle has K chains,
each with a low state of its own, that begin at the same high state. In training every chain runs
the ACT step; the loss of the best one alone is learned, its high state is copied to all chains,
and every chain keeps its low state. Of two chains that have become nearly equal the worse one is
dropped until the puzzle halts. The original keeps all chains in one pool and refills what is free;
a puzzle that halts always frees room for all chains of the next, so a row for each puzzle, with a
mask of its chains, computes the same.

Inside the core a chain is a row: ``as_rows`` and ``as_chains`` lead there and back.
"""

from typing import Any

import jax
import jax.numpy as jnp

from hrm_jax.config import ModelConfig
from hrm_jax.model import draws
from hrm_jax.types import LatentState, Outputs

_DIRECTIONS = 10  # of the input that starts are aligned to (_equalize_svd_alignment)


def as_rows(tree: Any) -> Any:
    """Arrays [B, K, ...] as [B * K, ...]."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)


def as_chains(tree: Any, count: int) -> Any:
    """Arrays [B * K, ...] as [B, K, ...]."""
    return jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:]), tree)


def repeated(tree: Any, count: int) -> Any:
    """Arrays [B, ...] as [B * K, ...], each row for all of its chains."""
    return jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), tree)


def keys(key: jax.Array | None, count: int) -> jax.Array | None:
    """Keys of the chains, [B * K], from those of the rows; one key stays one."""
    if key is None or not key.ndim:
        return key
    numbers = jnp.tile(jnp.arange(count), len(key))
    return draws.fold(draws.key_of('chain', jnp.repeat(key, count)), numbers)


def _pick(tree: Any, chain_B: jax.Array) -> Any:
    """Of arrays [B, K, ...] the chain of each row, [B, ...]."""
    rows = jnp.arange(chain_B.shape[0])
    return jax.tree.map(lambda x: x[rows, chain_B], tree)


def compete(
    config: ModelConfig, latent: LatentState, outputs: Outputs, losses_BK: jax.Array
) -> tuple[LatentState, Outputs]:
    """Training: the best chain answers and gives its high state to all (``copy_top1``).

    Args:
      config: architecture.
      latent: state after the step, [B, K, ...].
      outputs: predictions of every chain, [B, K, ...].
      losses_BK: float32, loss of every chain.

    Returns:
      The state with which the puzzles continue, and the predictions of the winners, [B, ...].
    """
    losses_BK = jax.lax.stop_gradient(losses_BK)
    assert latent.alive is not None  # of every model with several chains
    winner_B = jnp.argmin(jnp.where(latent.alive, losses_BK, jnp.inf), axis=1)

    def of_winner(x):
        return None if x is None else jnp.broadcast_to(_pick(x, winner_B)[:, None], x.shape)

    alive = latent.alive
    if config.chain_similarity < 1:
        alive &= ~_superfluous(latent, losses_BK, config.chain_similarity)
    latent = latent.replace(high=of_winner(latent.high), alive=alive)
    if latent.weights is not None:
        weights = latent.weights.replace(high=of_winner(latent.weights.high))
        latent = latent.replace(weights=weights)
    return latent, _pick(outputs, winner_B)


def _superfluous(latent: LatentState, losses_BK: jax.Array, similarity: float) -> jax.Array:
    """Of the chains whose low states have nearly the direction of another's, the worst; [B, K]."""
    assert latent.low is not None
    assert latent.alive is not None
    low = latent.low.astype(jnp.float32).reshape(*losses_BK.shape, -1)
    low /= jnp.linalg.norm(low, axis=-1, keepdims=True) + 1e-8
    cosines = jnp.einsum('bkx,bjx->bkj', low, low, precision='highest')
    count = losses_BK.shape[1]
    others = latent.alive[:, None] & latent.alive[:, :, None] & ~jnp.eye(count, dtype=bool)
    near_BK = ((cosines > similarity) & others).any(2)
    worst_B = jnp.argmax(jnp.where(near_BK, losses_BK, -jnp.inf), axis=1)
    return near_BK & (jnp.arange(count) == worst_B[:, None])


def first_to_halt(outputs: Outputs) -> Outputs:
    """Inference: the chain that is surest to stop answers; none would: the first chain.

    With early exit this is "the first chain to halt wins": a puzzle leaves at the first step at
    which any of its chains has a ``q_halt`` above 0 (evaluate_act_haltfast_wta).
    """
    surest_B = jnp.argmax(outputs.q_halt, axis=1)
    halts_B = (outputs.q_halt > 0).any(1)
    return _pick(outputs, jnp.where(halts_B, surest_B, 0))


def aligned(starts: jax.Array, up_kernel: jax.Array) -> jax.Array:
    """Low starts of which all chains reach equally far into what the first gated unit reads.

    The share that the first chain's start has in the span of the unit's ten strongest inputs
    becomes that of every chain; lengths stay (_apply_svd_alignment_batched).

    Args:
      starts: [..., K, T, D].
      up_kernel: [D, ...], of the gated unit over the channels of the first block.
    """
    dim = starts.shape[-1]
    kernel = up_kernel.astype(jnp.float32).reshape(dim, -1)
    # The singular vectors of the kernel, from a matrix of D x D only.
    gram = jnp.matmul(kernel, kernel.T, precision='highest')
    strongest = jnp.linalg.eigh(gram)[1][:, -_DIRECTIONS:]
    values = starts.astype(jnp.float32)
    inside = jnp.matmul(
        jnp.matmul(values, strongest, precision='highest'), strongest.T, precision='highest'
    )
    outside = values - inside

    def norm(x):
        return jnp.linalg.norm(x, axis=-1, keepdims=True)

    length = norm(values)
    share = (norm(inside) / (length + 1e-8))[..., :1, :, :] ** 2
    wanted = jnp.sqrt(share * norm(outside) ** 2 / (jnp.maximum(1 - share, 0) + 1e-8))
    new = inside / (norm(inside) + 1e-8) * wanted + outside
    new = new / (norm(new) + 1e-8) * length
    is_first = jnp.arange(starts.shape[-3])[:, None, None] == 0
    return jnp.where(is_first, values, new).astype(starts.dtype)


def up_kernel(params: Any) -> jax.Array:
    """The kernel that ``aligned`` reads, of the parameters of a model."""
    return params['L_level']['layers_0']['mlp']['gate_up_proj']['kernel']
