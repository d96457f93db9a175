"""Reads and writes safetensors files through a memory mapping.

The format is eight bytes with the length of a JSON header, the header (name -> type, shape,
range of bytes) and the bytes. The safetensors package would do, but copies every tensor once or
twice; a puzzle table of 1.8 GB is the reason not to.
"""

from collections.abc import Mapping
import json
import math
import os

import ml_dtypes
import numpy as np

from hrm_jax.errors import CheckpointError
from hrm_jax.files import replacing
from hrm_jax.interop.torch_writer import byte_chunks

_DTYPES = {
    'F64': np.dtype(np.float64),
    'F32': np.dtype(np.float32),
    'F16': np.dtype(np.float16),
    'BF16': np.dtype(ml_dtypes.bfloat16),
    'I64': np.dtype(np.int64),
    'I32': np.dtype(np.int32),
    'I16': np.dtype(np.int16),
    'I8': np.dtype(np.int8),
    'U8': np.dtype(np.uint8),
    'BOOL': np.dtype(np.bool_),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_MAX_HEADER_BYTES = 100 * 10**6  # the limit that the format sets


def read_safetensors(
    path: str | os.PathLike,
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns the tensors (read-only views, in the order of their bytes) and the metadata.

    Raises:
      CheckpointError: the file is truncated, or its header does not describe its bytes.
      OSError: the file cannot be opened.
    """
    path = os.fspath(path)
    size = os.path.getsize(path)
    with open(path, 'rb') as file:
        length = int.from_bytes(file.read(8), 'little')
        if size < 8 or not 2 <= length <= min(_MAX_HEADER_BYTES, size - 8):
            raise CheckpointError(f'{path}: not a safetensors file, or truncated.')
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f'{path}: the header is not JSON ({error}).') from error
    if not isinstance(header, dict):
        raise CheckpointError(f'{path}: the header must be a JSON object.')
    metadata = header.pop('__metadata__', {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointError(f'{path}: __metadata__ must be an object of texts.')
    none = np.zeros(0, np.uint8)  # an empty file cannot be mapped
    mapped = np.memmap(path, dtype=np.uint8, mode='r', offset=8 + length) if header else none
    used, state = 0, {}
    try:
        entries = sorted(header.items(), key=lambda item: item[1]['data_offsets'])
        for name, entry in entries:
            start, stop = entry['data_offsets']
            dtype, shape = _DTYPES.get(entry['dtype']), tuple(entry['shape'])
            if dtype is None:
                raise CheckpointError(
                    f'{path}: {name} has the type {entry["dtype"]}; known are {", ".join(_DTYPES)}.'
                )
            if not all(type(value) is int for value in (start, stop, *shape)):
                raise TypeError(f'{name} has sizes that are not integers')
            nbytes = math.prod(shape) * dtype.itemsize
            if start != used or min(shape, default=0) < 0 or stop - start != nbytes:
                raise CheckpointError(
                    f'{path}: {name} of shape {shape} must take {nbytes} bytes from {used}; the '
                    f'header states {start} to {stop}.'
                )
            if stop > size - 8 - length:
                raise CheckpointError(
                    f'{path}: truncated: {name} ends at byte {stop} of {size - 8 - length}.'
                )
            state[name] = np.frombuffer(mapped[start:stop], dtype).reshape(shape)
            used = stop
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f'{path}: malformed header ({error!r}).') from error
    if used != size - 8 - length:
        raise CheckpointError(
            f'{path}: {size - 8 - length - used} bytes at the end belong to no tensor.'
        )
    return state, metadata


def write_safetensors(
    path: str | os.PathLike,
    state: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes tensors, largest element first and then by name (as the format asks, for alignment).

    Args:
      path: file to write, replaced as a whole.
      state: arrays; non-contiguous ones are written in row-major order.
      metadata: text to store under names; readers of transformers want ``format: pt``.

    Raises:
      CheckpointError: an array of a type that the format does not have.
    """
    for name, array in state.items():
        if array.dtype not in _NAMES:
            raise CheckpointError(f'{name}: safetensors has no type {array.dtype}.')
    names = sorted(state, key=lambda name: (-state[name].dtype.itemsize, name))
    header: dict = {'__metadata__': dict(metadata)} if metadata else {}
    offset = 0
    for name in names:
        array = state[name]
        header[name] = {
            'dtype': _NAMES[array.dtype],
            'shape': list(array.shape),
            'data_offsets': [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    encoded = json.dumps(header, separators=(',', ':')).encode()
    encoded += b' ' * (-len(encoded) % 8)
    with replacing(path) as beside, open(beside, 'wb') as file:
        file.write(len(encoded).to_bytes(8, 'little'))
        file.write(encoded)
        for name in names:
            for chunk in byte_chunks(state[name]):
                file.write(chunk)
