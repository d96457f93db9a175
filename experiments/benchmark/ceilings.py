"""Peak rates of the machine, measured in the same run: matrix products and copies."""

from collections.abc import Callable, Iterable, Mapping
import time
from typing import Any

import jax
import jax.numpy as jnp


def _fastest(function: Callable[[jax.Array], jax.Array], x: jax.Array, rounds: int = 10) -> float:
    """Seconds of one call, the best of some; each call is given the result of the one before."""
    x = jax.block_until_ready(function(x))
    best = float('inf')
    for _ in range(rounds):
        began = time.perf_counter()
        x = jax.block_until_ready(function(x))
        best = min(best, time.perf_counter() - began)
    return best


def matrix_products(dtype: str, quick: bool = False) -> float:
    """FLOP/s of a product of two large square matrices of random numbers.

    float32 is multiplied with all its bits, as the model does (model/hrm.py).
    """
    on_cpu = jax.default_backend() == 'cpu'
    times = 1 if on_cpu else 10  # in one program: a launch must not count
    precision = 'highest' if dtype == 'float32' else None

    def rate(side: int) -> float:
        x, w = jax.random.normal(jax.random.key(0), (2, side, side), jnp.dtype(dtype))

        @jax.jit
        def multiply(x, w):  # an argument: a constant would become part of the program
            def body(_, y):
                return jnp.matmul(y, w, precision=precision) * jnp.asarray(side**-0.5, y.dtype)

            return jax.lax.fori_loop(0, times, body, x)

        return times * 2 * side**3 / _fastest(lambda x: multiply(x, w), x)

    return max(
        rate(side) for side in ([512] if quick else [1024, 2048] if on_cpu else [4096, 8192])
    )


def copies(quick: bool = False) -> float:
    """Bytes a second, read and written, of adding 1 to a large float32 array in its place."""
    on_cpu = jax.default_backend() == 'cpu'
    size = 1 << (20 if quick else 26 if on_cpu else 29)  # elements
    add = jax.jit(lambda x: x + 1, donate_argnums=0)  # fresh memory costs a CPU far more
    return 2 * 4 * size / _fastest(add, jnp.zeros(size, jnp.float32))


def raise_to_best(known: dict[str, Any], dtypes: Iterable[str], quick: bool = False) -> None:
    """Measures once more and keeps the best, as the machine may have had other work before.

    Args:
      known: ``products`` by dtype (FLOP/s) and ``copies`` (bytes/s), changed in place.
      dtypes: to measure products in.
      quick: small arrays.
    """
    products = {dtype: matrix_products(dtype, quick) for dtype in dtypes}
    join(known, {'products': products, 'copies': copies(quick)})


def join(known: dict[str, Any], others: Mapping[str, Any]) -> None:
    """Keeps the best of two measurements, the other one of another process."""
    products = known.setdefault('products', {})
    for dtype, rate in others['products'].items():
        products[dtype] = max(products.get(dtype, 0.0), rate)
    known['copies'] = max(known.get('copies', 0.0), others['copies'])


def add_fractions(result: dict[str, Any], known: Mapping[str, Any], devices: int) -> None:
    """Sets ``of_products`` and ``of_copies`` of a result from its rates and the ceilings."""
    if 'tflops' in result:
        ceiling = known['products'][result['dtype']] * devices
        result['of_products'] = 1e12 * result['tflops'] / ceiling
    if 'gigabytes_per_second' in result:  # on one device, as the ceiling is
        result['of_copies'] = 1e9 * result['gigabytes_per_second'] / known['copies']
