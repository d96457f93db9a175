"""Digests of arrays: 64 bits each, computed where the array is, whatever its sharding.

An array is a sequence of words (its elements, bit by bit, in C order); the digest is two sums
modulo 2^32 of numbers that are mixed from the word and its place, one to one for each place. So one
changed word always changes the digest, and other damage goes unnoticed once in 2^64. The sums may
be taken in any order and over any shards, which makes them the same on every mesh and in numpy.
They find damage, not forgery.

While a run trains its devices compute the digests of a state beside the save (``start``), and a
thread of orbax fetches and writes them (digest_item.py).
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hrm_jax.checkpoint import layout

ITEM = 'digests'
FILE = 'digests.json'
_CHUNK = 2**16  # words of a host's array at a time: they stay in the cache
_STEP = np.uint32(0x9E3779B1)
_MIX = tuple(map(np.uint32, (0x85EBCA6B, 0xC2B2AE35, 0x27D4EB2F)))  # murmur3's, and another


def _mixed(words: Any, place: Any) -> tuple[Any, Any]:
    """Two numbers for each word and its place, uint32, of numpy or of JAX.

    Not a product with a weight: the highest bit of a word would change any sum by 2^31, and two
    such changes would cancel each other.
    """
    mixed = words + place * _STEP
    mixed = (mixed ^ (mixed >> 16)) * _MIX[0]
    mixed = (mixed ^ (mixed >> 13)) * _MIX[1]
    first = mixed ^ (mixed >> 16)
    second = (first + place) * _MIX[2]
    return first, second ^ (second >> 15)


def _text(dtype: Any, shape: tuple[int, ...], sums: Any) -> str:
    return f'{np.dtype(dtype).name}{list(shape)} {int(sums[0]):08x}{int(sums[1]):08x}'


def of_numpy(array: Any) -> str:
    """Returns dtype, shape and digest of an array in a host's memory."""
    array = np.asarray(array)
    flat = array.reshape(-1)
    if flat.dtype.itemsize == 8:  # two words each
        flat = np.ascontiguousarray(flat).view(np.uint32)
    unsigned = np.dtype(f'u{flat.dtype.itemsize}')
    first = second = 0
    for start in range(0, flat.size, _CHUNK):
        words = np.ascontiguousarray(flat[start : start + _CHUNK]).view(unsigned).astype(np.uint32)
        one, other = _mixed(words, np.arange(start, start + words.size, dtype=np.uint32))
        first += int(np.sum(one, dtype=np.uint32))
        second += int(np.sum(other, dtype=np.uint32))
    first, second = first % 2**32, second % 2**32
    return _text(array.dtype, array.shape, (first, second))


@jax.jit
def _sums(array: jax.Array) -> jax.Array:
    """The two sums of an array on the devices, uint32 [2]."""
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    unsigned = jnp.dtype(f'uint{8 * array.dtype.itemsize}')
    words = jax.lax.bitcast_convert_type(array, unsigned).astype(jnp.uint32)
    place, stride = jnp.zeros(array.shape, jnp.uint32), 1
    for axis in reversed(range(array.ndim)):
        step = np.uint32(stride % 2**32)
        place = place + jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis) * step
        stride *= array.shape[axis]
    # One reduction of two operands: XLA's CPU backend takes 17 times as long for two sums.
    zero = jnp.uint32(0)
    sums = jax.lax.reduce(
        _mixed(words, place), (zero, zero), lambda a, b: (a[0] + b[0], a[1] + b[1]),
        tuple(range(array.ndim)),
    )  # fmt: skip
    return jnp.stack(sums)


def _key(entry: Any) -> str:
    for name in ('key', 'name', 'idx'):
        if hasattr(entry, name):
            return str(getattr(entry, name))
    return str(entry)


def named(tree: Any) -> dict[str, Any]:
    """Returns the arrays of a tree by their path, as orbax spells it: 'params.lm_head.kernel'."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {'.'.join(map(_key, path)): leaf for path, leaf in leaves}


@dataclasses.dataclass(frozen=True)
class Pending:
    """Digests that the devices are computing: name -> (dtype, shape, sums)."""

    parts: Mapping[str, tuple[Any, tuple[int, ...], jax.Array]]

    def fetch(self) -> dict[str, str]:
        """Waits for the devices and returns name -> digest."""
        return {
            name: _text(dtype, shape, np.asarray(sums.addressable_data(0)))
            for name, (dtype, shape, sums) in self.parts.items()
        }


def start(tree: Any) -> Pending:
    """Lets the devices compute the digests of a tree of arrays; does not wait.

    The arrays may be donated once this returns. Every process of a run must call it.
    """
    parts = {}
    for name, leaf in named(tree).items():
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        parts[name] = leaf.dtype, leaf.shape, _sums(_near(leaf))
    return Pending(parts)


def _near(array: jax.Array) -> jax.Array:
    """The array such that its sums need no collective, where that costs no other process's data.

    Dozens of small programs that wait for each other's devices hold up the train steps; the
    devices of one CPU process, which share its cores, even stop.
    """
    if array.is_fully_replicated:
        return array.addressable_data(0)
    device = jax.local_devices()[0]
    if device.platform == 'cpu' and array.is_fully_addressable:
        return jax.device_put(array, device)
    return array


def read(checkpoint: Any) -> dict[str, Any] | None:
    """Returns the digests of a checkpoint; None where it was written without.

    Args:
      checkpoint: its folder.

    Raises:
      ValueError, OSError: they are damaged.
    """
    if not (checkpoint / ITEM).exists():
        return None
    values = layout.read_json(checkpoint / ITEM / FILE)
    if not isinstance(values, dict) or 'digest' not in values or not layout.is_intact(values):
        raise ValueError('its digests are damaged')
    return values


def stored_names(item: Any) -> set[str]:
    """Returns the names of the arrays that the files of an item really hold.

    Args:
      item: its folder, in plain characters.

    Raises:
      ValueError: its index cannot be read.
    """
    import tensorstore

    text = f'{item}/'
    base = text if '://' in text else {'driver': 'file', 'path': text}
    store = tensorstore.KvStore.open({'driver': 'ocdbt', 'base': base}).result()
    keys = (key.decode() for key in store.list().result())
    return {key.rpartition('/')[0] for key in keys if key.endswith(('/.zarray', '/zarr.json'))}


def compare(expected: Mapping[str, str], found: Mapping[str, str], items: set[str]) -> None:
    """Compares the digests of what was read with those that were saved.

    Args:
      expected: of the whole checkpoint.
      found: of what was read.
      items: names of the items that were read, whole.

    Raises:
      ValueError: an array differs or is missing; the first one is named.
    """
    wanted = {name: text for name, text in expected.items() if name.split('.')[0] in items}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise ValueError(
                f'{name} is not what was saved: {found.get(name, "missing")} in place of '
                f'{wanted.get(name, "nothing")}'
            )
