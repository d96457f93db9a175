"""Compares every implementation of attention with float32's, forward and all gradients.

  python -m experiments.attention_equality                # what the device at hand can run
  python -m experiments.attention_equality --interpret    # the kernels' arithmetic, on any machine

Prints the largest error over the largest value of each array; exit code 1 when one is above the
tolerance, or when nothing but XLA's implementation can run here.
"""

from collections.abc import Iterator
import contextlib
import itertools

from absl import app, flags
import jax
import jax.numpy as jnp
import numpy as np

from hrm_jax.model import attention
from hrm_jax.model.kernels import interpret

FLAGS = flags.FLAGS

LENGTHS = (82, 97, 901, 916)
HEAD_DIMS = (32, 42, 64, 90, 128)
IMPLEMENTATIONS = ('xla', 'cudnn', 'pallas', 'tpu')
ARRAYS = ('out', 'dq', 'dk', 'dv')
# Float32 sums in another order; a few roundings.
TOLERANCES = {'float32': 3e-6, 'float16': 2e-3, 'bfloat16': 1.6e-2}


def operands(length: int, head_dim: int, dtype: str) -> list[jax.Array]:
    """q, k, v and the gradient of the output, [2, T, 2, K], large enough for sharp weights."""
    draws = np.random.default_rng(length).normal(size=(4, 2, length, 2, head_dim))
    return [jnp.asarray(draw, dtype) for draw in (*(2 * draws[:3]), draws[3])]


def output_and_gradients(implementation: str, arrays: list[jax.Array]) -> list[np.ndarray]:
    """float32 arrays in the order of ``ARRAYS``."""

    def both(q, k, v, do):
        out, pull_back = jax.vjp(lambda *qkv: attention.attend(*qkv, implementation), q, k, v)
        return out, *pull_back(do)

    return [np.asarray(x, np.float32) for x in jax.jit(both)(*arrays)]


def errors(implementation: str, length: int, head_dim: int, dtype: str) -> dict[str, float]:
    """Largest error over the largest value, by array, against XLA's attention in float32."""
    arrays = operands(length, head_dim, dtype)
    got = output_and_gradients(implementation, arrays)
    with jax.default_matmul_precision('highest'):
        exact = output_and_gradients('xla', [x.astype(jnp.float32) for x in arrays])
    return {
        name: float(np.abs(x - y).max() / np.abs(y).max())
        for name, x, y in zip(ARRAYS, got, exact, strict=True)
    }


def _shapes(dtype: str) -> list[tuple[int, int]]:
    """Lengths and head sizes: all pairs for the usual dtype, each value once for the others."""
    pairs = itertools.product(LENGTHS, HEAD_DIMS)
    if dtype == 'bfloat16':
        return list(pairs)
    return [pair for pair in pairs if pair[0] == LENGTHS[0] or pair[1] == HEAD_DIMS[2]]


def _cases() -> Iterator[tuple[str, int, int, str]]:
    """What can run here."""
    for name, dtype in itertools.product(IMPLEMENTATIONS, TOLERANCES):
        # GPUs and TPUs round the operands of XLA's float32 products unless set otherwise.
        if name == 'xla' and dtype == 'float32':
            continue
        for length, head_dim in _shapes(dtype):
            if not attention.obstacle(name, dtype, head_dim):
                yield name, length, head_dim, dtype


def main(_) -> int:
    """Compares every case that can run here; returns the exit code."""
    print(f'{jax.devices()[0].device_kind}, jax {jax.__version__}')
    print('| implementation | T | K | dtype | ' + ' | '.join(ARRAYS) + ' | |')
    print('|' + ' --- |' * (5 + len(ARRAYS)))
    count = bad = 0
    with interpret.interpreted() if FLAGS.interpret else contextlib.nullcontext():
        for case in _cases():
            found = errors(*case)
            ok = max(found.values()) < TOLERANCES[case[-1]]
            bad += not ok
            count += case[0] != 'xla'
            cells = [str(part) for part in case] + [f'{error:.1e}' for error in found.values()]
            print(f'| {" | ".join(cells)} | {"" if ok else "TOO FAR"} |', flush=True)
    print(f'{count} comparisons besides XLA itself, {bad} of all above the tolerance')
    return int(bad > 0 or count == 0)


if __name__ == '__main__':
    flags.DEFINE_bool('interpret', False, "Runs the kernels in Pallas's interpreter: slowly.")
    app.run(main)
