"""Attention: full (not causal), unmasked, over every position."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from hrm_jax import partitioning, types
from hrm_jax.model.kernels import choice, interpret

Attend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
_HEADS = (types.BATCH, types.CELLS, types.HEADS, types.HEAD_DIM)


def _attend_xla(
    q_BTNK: jax.Array,
    k_BTNK: jax.Array,
    v_BTNK: jax.Array,
    drop: Callable[[jax.Array], jax.Array] = lambda weights: weights,
) -> jax.Array:
    if partitioning.on_cpu() and q_BTNK.dtype == jnp.float32:
        return _attend_on_cpu(q_BTNK, k_BTNK, v_BTNK, drop)
    scores_BNTT = jnp.einsum(
        'BTNK,BSNK->BNTS', q_BTNK, k_BTNK, preferred_element_type=jnp.float32
    ) * (q_BTNK.shape[-1] ** -0.5)
    weights = drop(jax.nn.softmax(scores_BNTT, axis=-1)).astype(q_BTNK.dtype)
    return jnp.einsum('BNTS,BSNK->BTNK', weights, v_BTNK)


def _attend_on_cpu(q_BTNK, k_BTNK, v_BTNK, drop) -> jax.Array:
    """The same with less traffic: the scale on the queries, the softmax's sum on what it weighs."""
    q_BNTK, k_BNTK, v_BNTK = (jnp.swapaxes(x, 1, 2) for x in (q_BTNK, k_BTNK, v_BTNK))
    scores_BNTT = jnp.einsum('BNTK,BNSK->BNTS', q_BNTK * q_BTNK.shape[-1] ** -0.5, k_BNTK)
    largest = jax.lax.stop_gradient(scores_BNTT.max(-1, keepdims=True))
    weights_BNTT = jnp.exp(scores_BNTT - largest)
    mixed_BNTK = jnp.einsum('BNTS,BNSK->BNTK', drop(weights_BNTT), v_BNTK)
    return jnp.swapaxes(mixed_BNTK / weights_BNTT.sum(-1, keepdims=True), 1, 2)


def _attend_cudnn(q_BTNK: jax.Array, k_BTNK: jax.Array, v_BTNK: jax.Array) -> jax.Array:
    try:
        return jax.nn.dot_product_attention(q_BTNK, k_BTNK, v_BTNK, implementation='cudnn')
    except (RuntimeError, NotImplementedError) as error:  # no cuDNN, or an old one
        choice.say_once(f'attention runs through XLA instead of cuDNN: {error}')
        return _attend_xla(q_BTNK, k_BTNK, v_BTNK)


def _by_kernel(name: str) -> Attend:
    def attend(q_BTNK, k_BTNK, v_BTNK):
        module = choice.module(name)
        assert module is not None  # resolve has looked
        return choice.on_each_device(
            module.attend, (q_BTNK, k_BTNK, v_BTNK), [_HEADS] * 3, q_BTNK.shape, _HEADS
        )

    return attend


# Modules of kernels/.
_KERNELS = {'pallas': 'attention_cuda', 'tpu': 'attention_tpu', 'tokamax': 'tokamax_kernels'}
_IMPLEMENTATIONS: dict[str, Attend] = {
    'xla': _attend_xla,
    'cudnn': _attend_cudnn,
    'pallas': _by_kernel('attention_cuda'),
    'tpu': _by_kernel('attention_tpu'),
    'tokamax': _by_kernel('tokamax_kernels'),
}


def obstacle(name: str, dtype: jnp.dtype, head_dim: int) -> str:
    """What an implementation would need and does not find; '' where it can run."""
    device, kind, ampere = partitioning.device(), jnp.dtype(dtype).name, choice.is_nvidia()
    halves = ('bfloat16', 'float16')
    # What must hold, and whether it does.
    needs: list[tuple[str, bool]] = []
    if name == 'cudnn':
        needs = [
            (choice.NVIDIA, ampere),
            ('bfloat16 or float16', kind in halves),
            (
                'a head size that is a multiple of 8 and at most 128',
                head_dim % 8 == 0 and head_dim <= 128,
            ),
        ]
    elif name in _KERNELS:
        module = choice.module(_KERNELS[name])
        if module is None:
            return choice.absence(_KERNELS[name])
        needs = [
            ('a TPU', device.platform == 'tpu' or interpret.is_on())
            if name == 'tpu'
            else (choice.NVIDIA, ampere or interpret.is_on()),
            (' or '.join(module.DTYPES), kind in module.DTYPES),
        ]
        most = getattr(module, 'MAX_HEAD_DIM', head_dim)
        needs.append((f'a head size of at most {most}', head_dim <= most))
    elif name != 'xla':
        raise KeyError(f'no attention called {name!r}')
    missing = [what for what, holds in needs if not holds]
    if not missing:
        return ''
    where = getattr(device, 'device_kind', device.platform)
    return f'it needs {", ".join(missing)}; this is {kind} with heads of {head_dim} on {where}'


def resolve(implementation: str, dtype: jnp.dtype, head_dim: int) -> str:
    """Names the implementation that will run for the active mesh, or on this machine.

    ``auto`` is cautious: cuDNN's fused attention on NVIDIA GPUs of compute capability 8.0
    (Ampere) and later for the half-precision heads that it takes (sizes that are multiples of 8,
    at most 128), and XLA everywhere else. From which length on ``pallas`` and ``tpu`` are faster
    is to be measured with experiments/benchmark; until then they run only where asked for.

    An implementation that cannot run here is replaced by what ``auto`` takes, with a warning the
    first time.
    """
    if implementation == 'auto':
        return 'xla' if obstacle('cudnn', dtype, head_dim) else 'cudnn'
    missing = obstacle(implementation, dtype, head_dim)
    if missing:
        # cuDNN's attention is what a GPU without our kernels has.
        instead = 'xla' if obstacle('cudnn', dtype, head_dim) else 'cudnn'
        through = {'xla': 'XLA', 'cudnn': 'cuDNN'}[instead]
        choice.say_once(f'model.attention={implementation} runs through {through}: {missing}.')
        return instead
    return implementation


def attend_to_others(
    q_BTNK: jax.Array,
    k_BTNK: jax.Array,
    v_BTNK: jax.Array,
    drop: Callable[[jax.Array], jax.Array] | None = None,
) -> jax.Array:
    """Attention in which no position sees itself; values may have another head size."""
    scores_BNTT = jnp.einsum(
        'BTNK,BSNK->BNTS', q_BTNK, k_BTNK, preferred_element_type=jnp.float32
    ) * (q_BTNK.shape[-1] ** -0.5)
    itself = jnp.eye(q_BTNK.shape[1], dtype=bool)
    weights = jax.nn.softmax(jnp.where(itself, -jnp.inf, scores_BNTT), axis=-1)
    weights = (weights if drop is None else drop(weights)).astype(v_BTNK.dtype)
    return jnp.einsum('BNTS,BSNK->BTNK', weights, v_BTNK)


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
      implementation: one of ``config.model.Attention``: ``xla`` keeps the weights
        [B, N, T, T] in memory; ``cudnn``, ``pallas`` (kernels/attention_cuda.py), ``tpu``
        (kernels/attention_tpu.py) and ``tokamax`` (a package) do not; ``auto``: see ``resolve``.
        Under ``partitioning.activate`` the kernels run on every device's own rows and heads.
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


def rotates(implementation: str, dtype: jnp.dtype, head_dim: int) -> bool:
    """Whether the implementation that will run applies rotary positions by itself."""
    if resolve(implementation, dtype, head_dim) != 'pallas':
        return False
    module = choice.module(_KERNELS['pallas'])
    return head_dim % 2 == 0 and head_dim >= getattr(module, 'MIN_ROTATED_HEAD_DIM', head_dim + 1)


def attend_rotated(qkv_BTCNK: jax.Array, cos_TK: jax.Array, sin_TK: jax.Array) -> jax.Array:
    """``attend`` of q, k and v in one array, the first two rotated, where ``rotates`` says so.

    Args:
      qkv_BTCNK: [B, T, 3, N, K].
      cos_TK, sin_TK: float32 [T, K / 2], of ``layers.rotary_tables``.

    Returns:
      [B, T, N, K].
    """
    module = choice.module(_KERNELS['pallas'])
    assert module is not None
    shape = (*qkv_BTCNK.shape[:2], *qkv_BTCNK.shape[3:])
    names = (types.BATCH, types.CELLS, None, types.HEADS, types.HEAD_DIM)
    table = (None, None)
    return choice.on_each_device(
        module.attend_rotated, (qkv_BTCNK, cos_TK, sin_TK), (names, table, table), shape, _HEADS
    )
