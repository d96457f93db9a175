"""One tensor of a foreign checkpoint: its name there, its place here, and the maps between."""

from collections.abc import Callable
import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor: its name there, its place here, and the two maps between the layouts.

    Attributes:
      name: the original's name without wrapping prefix.
      collection: ``params``, ``constants``, ``puzzle_table``, or ``unused`` for a tensor that the
        original saves and never reads: it must be there, and is written as ones.
      path: keys inside the collection.
      shape: the original's shape.
      to_ours, to_official: numpy maps between the layouts.
      index: our array is a stack of several tensors, and this is the number of this one.
    """

    name: str
    collection: str
    path: tuple[str, ...]
    shape: tuple[int, ...]
    to_ours: Callable[[np.ndarray], np.ndarray]
    to_official: Callable[[np.ndarray], np.ndarray]
    index: int | None = None


def same(name: str, collection: str, path: tuple[str, ...], shape: tuple[int, ...]) -> Entry:
    """A tensor of one layout on both sides."""
    return reshaped(name, collection, path, shape, shape)


def reshaped(
    name: str,
    collection: str,
    path: tuple[str, ...],
    theirs: tuple[int, ...],
    ours: tuple[int, ...],
    index: int | None = None,
) -> Entry:
    """A tensor whose axes are merely split or joined."""
    return Entry(
        name,
        collection,
        path,
        theirs,
        lambda x: x.reshape(ours),
        lambda x: x.reshape(theirs),
        index,
    )


def linear(
    name: str, path: tuple[str, ...], outputs: tuple[int, ...], inputs: tuple[int, ...]
) -> Entry:
    """The matrix of a linear map: (out, in) there, (*inputs, *outputs) here."""
    out_size, in_size = int(np.prod(outputs)), int(np.prod(inputs))
    return Entry(
        name,
        'params',
        (*path, 'kernel'),
        (out_size, in_size),
        lambda x: x.T.reshape(*inputs, *outputs),
        lambda x: x.reshape(in_size, out_size).T,
    )


def bias(name: str, path: tuple[str, ...], outputs: tuple[int, ...]) -> Entry:
    """The bias of a linear map: flat there, ``outputs`` here."""
    return reshaped(name, 'params', (*path, 'bias'), (int(np.prod(outputs)),), outputs)
