"""Rows of an array of predictions, in memory or in a zip file, a part at a time."""

from collections.abc import Iterator
import math
import pathlib
from typing import Any
import zipfile
import zlib

import numpy as np

from hrm_jax.errors import PredictionError

_MOST_RATIO = 1100
# What zipfile raises for one damage or another.
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError)


class ArrayRows:
    """Rows of an array."""

    def __init__(self, array: np.ndarray):
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    def read(self, rows: int) -> Iterator[np.ndarray]:
        for start in range(0, len(self), rows):
            yield np.asarray(self._array[start : start + rows])


class MemberRows:
    """Rows of a ``.npy`` member of a zip file, read from the front without the rest."""

    def __init__(self, path: pathlib.Path, member: str):
        self._path = path
        self._member = member
        try:
            with zipfile.ZipFile(path) as archive, archive.open(member) as file:
                self._shape, self._dtype = self._header(file)
                # Before anything is allocated for a shape that the file does not have.
                needed = math.prod(self._shape) * self._dtype.itemsize
                facts = archive.getinfo(member)
                # Deflate packs at most 1032 to 1: a directory that states more is wrong.
                there = min(facts.file_size, _MOST_RATIO * facts.compress_size)
        except _ZIP_ERRORS as error:
            raise PredictionError(f'{path}: {member} is damaged ({error}).') from error
        PredictionError.require(
            needed <= there,
            f'{path}: {member} must have {needed:,} bytes, as its shape {self._shape} states; it '
            f'has {there:,} and is truncated.',
        )

    def __len__(self) -> int:
        return self._shape[0]

    def _header(self, file: Any) -> tuple[tuple[int, ...], np.dtype]:
        try:
            version = np.lib.format.read_magic(file)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran, dtype = read(file)
        except Exception as error:  # numpy raises many kinds for a damaged header
            raise PredictionError(f'{self._path}: {self._member} is damaged ({error}).') from error
        if dtype.hasobject or not shape or min(shape) < 0 or (fortran and len(shape) > 1):
            raise PredictionError(
                f'{self._path}: {self._member} must hold plain rows in C order; got {dtype} of '
                f'shape {shape}.'
            )
        return shape, dtype

    def read(self, rows: int) -> Iterator[np.ndarray]:
        row_bytes = self._dtype.itemsize * int(np.prod(self._shape[1:], dtype=np.int64))
        with zipfile.ZipFile(self._path) as archive, archive.open(self._member) as file:
            self._header(file)
            for start in range(0, len(self), rows):
                count = min(rows, len(self) - start)
                try:
                    data = file.read(count * row_bytes)
                except _ZIP_ERRORS as error:
                    raise PredictionError(
                        f'{self._path}: {self._member} is damaged ({error}).'
                    ) from error
                if len(data) != count * row_bytes:
                    raise PredictionError(f'{self._path}: {self._member} is truncated.')
                yield np.frombuffer(data, self._dtype).reshape(count, *self._shape[1:])
