"""Compares attention's implementations and the gated unit's kernel with float32's.

  python -m experiments.kernel_equality                # what the device at hand can run
  python -m experiments.kernel_equality --interpret    # the kernels' arithmetic, on any machine
  python -m experiments.kernel_equality --interpret --quick

Attention forward and with all gradients; "rotated": our kernel given one array of q, k and v, which
it rotates itself. Prints the largest error over the largest value of each array; exit code 1 when
one is above the tolerance, or when nothing but XLA's implementation can run here.
"""

from collections.abc import Iterable, Iterator
import contextlib
import itertools

from absl import app, flags
import jax
import jax.numpy as jnp
import numpy as np

from hrm_jax.model import attention, gated_unit, layers
from hrm_jax.model.kernels import interpret

FLAGS = flags.FLAGS

LENGTHS = (82, 97, 901, 916)
HEAD_DIMS = (32, 42, 64, 90, 128)
IMPLEMENTATIONS = ('xla', 'cudnn', 'pallas', 'tpu', 'tokamax')
UNITS = ((97, 512, 1536), (77, 90, 200))  # rows, channels of x, of the hidden layer
ARRAYS = ('out', 'dq', 'dk', 'dv')
# Float32 sums in another order; a few roundings.
TOLERANCES = {'float32': 3e-6, 'float16': 2e-3, 'bfloat16': 1.6e-2}
ROTATED = 2  # times as far: queries and keys are rounded once more, rotated


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


def rotated_errors(length: int, head_dim: int, dtype: str) -> dict[str, float]:
    """The same for ``attention.attend_rotated``, against rotation and attention in float32."""
    q, k, v, do = operands(length, head_dim, dtype)
    tables = layers.rotary_tables(length, head_dim, 100.0)

    def plain(q, k, v):
        return attention.attend(layers.rotate(q, *tables), layers.rotate(k, *tables), v, 'xla')

    def fused(q, k, v):
        return attention.attend_rotated(jnp.stack([q, k, v], axis=2), *tables)

    def both(attend, *arrays):
        out, pull_back = jax.vjp(attend, *arrays[:3])
        return [np.asarray(x, np.float32) for x in (out, *pull_back(arrays[3]))]

    got = both(jax.jit(fused), q, k, v, do)
    with jax.default_matmul_precision('highest'):
        exact = both(jax.jit(plain), *(x.astype(jnp.float32) for x in (q, k, v, do)))
    return {
        name: float(np.abs(x - y).max() / np.abs(y).max())
        for name, x, y in zip(ARRAYS, got, exact, strict=True)
    }


def unit_error(
    rows: int, depth: int, width: int, dtype: str, implementation: str = 'pallas'
) -> float:
    """Largest error over the largest value of a kernel of the gated unit, against float32."""
    rng = np.random.default_rng(rows)
    x = jnp.asarray(rng.normal(size=(2, rows, depth)), dtype)
    kernel = jnp.asarray(rng.normal(size=(depth, 2, width)) / depth**0.5, dtype)
    kernel = kernel.astype(jnp.float32)
    by_kernel = jax.jit(gated_unit.swiglu, static_argnums=2)
    got = np.asarray(by_kernel(x, kernel, implementation), np.float32)
    with jax.default_matmul_precision('highest'):
        exact = np.asarray(jax.jit(gated_unit.plain)(x.astype(jnp.float32), kernel))
    return float(np.abs(got - exact).max() / np.abs(exact).max())


def _shapes(dtype: str) -> list[tuple[int, int]]:
    """Lengths and head sizes: all pairs for the usual dtype, each value once for the others."""
    if FLAGS.quick:
        return [(LENGTHS[0], HEAD_DIMS[0])]
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


def _rotated_cases() -> Iterator[tuple[int, int, str]]:
    for dtype in TOLERANCES:
        for length, head_dim in _shapes(dtype):
            if attention.rotates('pallas', jnp.dtype(dtype), head_dim):
                yield length, head_dim, dtype


def main(_) -> int:
    """Compares every case that can run here; returns the exit code."""
    print(f'{jax.devices()[0].device_kind}, jax {jax.__version__}')
    print('| implementation | sizes | dtype | ' + ' | '.join(ARRAYS) + ' | |')
    print('|' + ' --- |' * (4 + len(ARRAYS)))
    count = bad = 0

    def show(name: str, sizes: str, dtype: str, found: Iterable[float], factor: int = 1) -> None:
        nonlocal count, bad
        errors = list(found)
        ok = max(errors) < factor * TOLERANCES[dtype]
        bad += not ok
        count += name != 'xla'
        cells = [f'{error:.1e}' for error in errors] + [''] * (len(ARRAYS) - len(errors))
        verdict = '' if ok else 'TOO FAR'
        print(f'| {name} | {sizes} | {dtype} | {" | ".join(cells)} | {verdict} |', flush=True)

    with interpret.interpreted() if FLAGS.interpret else contextlib.nullcontext():
        for name, length, head_dim, dtype in _cases():
            found = errors(name, length, head_dim, dtype)
            show(name, f'T {length}, K {head_dim}', dtype, found.values())
        for length, head_dim, dtype in _rotated_cases():
            found = rotated_errors(length, head_dim, dtype)
            show('pallas, rotated', f'T {length}, K {head_dim}', dtype, found.values(), ROTATED)
        for name, sizes, dtype in itertools.product(('pallas', 'tokamax'), UNITS, TOLERANCES):
            if gated_unit.uses_kernel(name, jnp.dtype(dtype)):
                text = '{} x {} to {}'.format(*sizes)
                show(f'gated unit, {name}', text, dtype, [unit_error(*sizes, dtype, name)])
    print(f'{count} comparisons besides XLA itself, {bad} of all above the tolerance')
    return int(bad > 0 or count == 0)


if __name__ == '__main__':
    flags.DEFINE_bool('interpret', False, "Runs the kernels in Pallas's interpreter: slowly.")
    flags.DEFINE_bool('quick', False, 'One size of each.')
    app.run(main)
