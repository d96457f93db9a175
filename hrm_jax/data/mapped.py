"""Arrays that stay in their files while a run reads them, watched for changes.

A folder of the originals can be larger than the memory, so its cells are read as batches touch
them. A file that is replaced or rewritten in the meantime would train on other puzzles without a
word, and one that shrinks would end the process with SIGBUS at the next touch.
"""

import dataclasses
import hashlib
import os
import pathlib

import numpy as np

from hrm_jax.errors import DatasetError

_SAMPLED_ROWS = 256


@dataclasses.dataclass(frozen=True)
class MappedFile:
    """A mapped .npy file, as it was when the data set was loaded.

    Attributes:
      path: the file.
      array: [N, S], what is mapped.
      state: its inode, bytes and time of change.
      sample: digest of evenly spaced rows.
    """

    path: pathlib.Path
    array: np.ndarray
    state: tuple[int, int, int]
    sample: bytes

    @classmethod
    def of(cls, path: pathlib.Path, array: np.ndarray) -> 'MappedFile':
        """Remembers the state of a file that has just been mapped."""
        return cls(path, array, _state(path), _sample(array))

    def check(self, sample: bool = False) -> None:
        """Checks that the file is still the one that was loaded: one call of stat.

        Args:
          sample: reads rows again too, for changes that leave size and time as they were.

        Raises:
          DatasetError: it has changed.
        """
        try:
            now = _state(self.path)
        except OSError as error:
            raise DatasetError(f'{self.path} {_MUST}: {error.strerror}. {_FIX}') from None
        names = ('inode', 'bytes', 'time of change in ns')
        changed = [
            f'{name} {before} before, {after} now'
            for name, before, after in zip(names, self.state, now, strict=True)
            if before != after
        ]
        DatasetError.require(not changed, f'{self.path} {_MUST}: {", ".join(changed)}. {_FIX}')
        DatasetError.require(
            not sample or _sample(self.array) == self.sample,
            f'{self.path} {_MUST}: its content is another one. {_FIX}',
        )


_MUST = 'must stay as it is while a run reads it'
_FIX = 'Restore the data set and resume, or start a new run with the new one.'


def _state(path: pathlib.Path) -> tuple[int, int, int]:
    found = os.stat(path)
    return found.st_ino, found.st_size, found.st_mtime_ns


def _sample(array: np.ndarray) -> bytes:
    rows = np.unique(np.linspace(0, len(array) - 1, _SAMPLED_ROWS).astype(np.int64))
    return hashlib.blake2b(array[rows].tobytes(), digest_size=16).digest()
