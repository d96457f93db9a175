"""Writes a state dict as a ``torch.save`` file, without torch.

The file has the layout that ``torch.save`` gives it (an uncompressed zip, storages aligned to 64
bytes), so ``torch.load(path, weights_only=True)`` and ``mmap=True`` read it.
"""

from collections.abc import Iterator, Mapping
import os
import pickle
import struct
import zipfile

import numpy as np

from hrm_jax.errors import CheckpointError
from hrm_jax.files import replacing
from hrm_jax.interop.torch_pickle import ORDERED_DICT, REBUILD_TENSOR, STORAGE_DTYPES

_STORAGE_NAMES = {dtype: name for name, dtype in STORAGE_DTYPES.items()}
_ALIGNMENT = 64
_CHUNK = 8 * 2**20
# An entry from this size on gets 64-bit sizes in its header.
_ZIP64_BYTES = 2**30


def write_torch(path: str | os.PathLike, state: Mapping[str, np.ndarray]) -> None:
    """Writes tensors under their names, in the order of the mapping.

    Args:
      path: file to write; replaced as a whole, so that it never holds half a checkpoint.
      state: arrays of a type that torch has; they are streamed to the file, so a memory-mapped
        one does not have to fit in memory.

    Raises:
      CheckpointError: an array of a type that torch cannot hold.
    """
    for name, array in state.items():
        if array.dtype not in _STORAGE_NAMES:
            raise CheckpointError(f'{name}: torch has no tensors of type {array.dtype}.')
    with replacing(path) as beside:
        folder = os.path.basename(os.fspath(path)).split('.')[0] or 'archive'
        with zipfile.ZipFile(beside, 'w', zipfile.ZIP_STORED, allowZip64=True) as archive:
            _write_entry(archive, f'{folder}/data.pkl', [_pickle(state)])
            _write_entry(archive, f'{folder}/.format_version', [b'1'])
            _write_entry(archive, f'{folder}/.storage_alignment', [str(_ALIGNMENT).encode()])
            _write_entry(archive, f'{folder}/byteorder', [b'little'])
            for index, array in enumerate(state.values()):
                _write_entry(archive, f'{folder}/data/{index}', byte_chunks(array), array.nbytes)
            _write_entry(archive, f'{folder}/version', [b'3\n'])


def byte_chunks(array: np.ndarray) -> Iterator[bytes]:
    """Yields the bytes of an array in row-major order, some MiB at a time."""
    if array.ndim == 0 or array.nbytes <= _CHUNK:
        yield np.ascontiguousarray(array).tobytes()
        return
    rows = max(1, _CHUNK * len(array) // array.nbytes)
    for start in range(0, len(array), rows):
        yield np.ascontiguousarray(array[start : start + rows]).tobytes()


def _write_entry(archive: zipfile.ZipFile, name: str, chunks, size: int = 0) -> None:
    # The date of the zip epoch, as torch writes it: equal weights give equal files.
    info = zipfile.ZipInfo(name)
    zip64 = size >= _ZIP64_BYTES
    header = 30 + len(name.encode()) + 4 + (20 if zip64 else 0)
    assert archive.fp is not None  # it is open
    padding = -(archive.fp.tell() + header) % _ALIGNMENT
    info.extra = struct.pack('<2sH', b'FB', padding) + b'Z' * padding
    with archive.open(info, 'w', force_zip64=zip64) as entry:
        for chunk in chunks:
            entry.write(chunk)


def _pickle(state: Mapping[str, np.ndarray]) -> bytes:
    """The pickle (protocol 2) of an OrderedDict of tensors, opcode by opcode."""
    parts = [pickle.PROTO, b'\x02', _global(ORDERED_DICT), pickle.EMPTY_TUPLE, pickle.REDUCE]
    parts.append(pickle.MARK)
    for index, (name, array) in enumerate(state.items()):
        parts += [
            _text(name),
            _global(REBUILD_TENSOR),
            pickle.MARK,
            # The persistent id: kind of storage, its entry in the zip, device, elements.
            pickle.MARK,
            _text('storage'),
            _global(_STORAGE_NAMES[array.dtype]),
            _text(str(index)),
            _text('cpu'),
            _integer(array.size),
            pickle.TUPLE,
            pickle.BINPERSID,
            _integer(0),
            _integers(array.shape),
            _integers(_row_major_strides(array.shape)),
            pickle.NEWFALSE,  # requires_grad
            _global(ORDERED_DICT),
            pickle.EMPTY_TUPLE,
            pickle.REDUCE,
            pickle.TUPLE,
            pickle.REDUCE,
        ]
    parts += [pickle.SETITEMS, pickle.STOP]
    return b''.join(parts)


def _row_major_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def _global(name: str) -> bytes:
    module, attribute = name.split(' ')
    return pickle.GLOBAL + f'{module}\n{attribute}\n'.encode()


def _text(text: str) -> bytes:
    encoded = text.encode()
    return pickle.BINUNICODE + struct.pack('<I', len(encoded)) + encoded


def _integer(value: int) -> bytes:
    if value < 2**31:
        return pickle.BININT + struct.pack('<i', value)
    encoded = pickle.encode_long(value)
    return pickle.LONG1 + struct.pack('<B', len(encoded)) + encoded


def _integers(values: tuple[int, ...]) -> bytes:
    return pickle.MARK + b''.join(_integer(value) for value in values) + pickle.TUPLE
