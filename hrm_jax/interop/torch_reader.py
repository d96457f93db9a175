"""Reads the tensors of a ``torch.save`` file without torch and without running its pickle.

Such a file is an uncompressed zip: ``data.pkl`` describes the tensors (torch_pickle.py) and one
entry per storage holds their bytes.

The storages are memory mapped: a tensor is a read-only view into the file, and nothing is read
before somebody looks at it.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import math
import os
import struct
from typing import Any
import zipfile
import zlib

import numpy as np

from hrm_jax.errors import CheckpointError
from hrm_jax.interop import torch_pickle
from hrm_jax.interop.torch_pickle import Storage, Tensor

# A state dict of a model of this family has some dozens of tensors, about 100 bytes each.
_MAX_PICKLE_BYTES = 64 * 2**20
_LOCAL_HEADER = struct.Struct('<4s5H3I2H')
_CHUNK = 8 * 2**20
# What zipfile raises for one damage or another.
_ZIP_ERRORS = (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError, struct.error)
_DEPTH = 6  # of the dicts in which a state dict is looked for
# Where training programs count their steps.
_STEP_KEYS = ('step', 'global_step', 'train_step', 'iteration', 'iter', 'num_steps')


@dataclasses.dataclass(frozen=True)
class TorchFile:
    """The state dict of a file.

    Attributes:
      tensors: name -> read-only array, a view of the memory-mapped file, in the file's order.
      member: keys that lead to the state dict, joined by dots; '' where it is the whole file.
      step: train steps that the file states beside it, or None.
    """

    tensors: dict[str, np.ndarray]
    member: str
    step: int | None


def read_torch(path: str | os.PathLike, *, check_crc: bool = True) -> dict[str, np.ndarray]:
    """Returns the tensors of a ``torch.save``d flat state dict, in the order of the file.

    Args, Raises: see ``read_state_dict``.
    """
    return read_state_dict(path, check_crc=check_crc).tensors


def read_state_dict(
    path: str | os.PathLike,
    *,
    check_crc: bool = True,
    is_wanted: Callable[[Sequence[str]], bool] | None = None,
    member: str = '',
) -> TorchFile:
    """Reads the tensors of a state dict, alone in the file or beside other things.

    Args:
      path: a zip file as torch writes since version 1.6 (``step_N`` of the original).
      check_crc: compares each storage with its checksum (one sequential read of the file).
      is_wanted: whether names are those of the state dict that is looked for inside of a file with
        more; None: the file must be a state dict.
      member: keys that lead to the state dict, joined by dots, where several are wanted.

    Returns:
      The state dict; bfloat16 as ``ml_dtypes.bfloat16``.

    Raises:
      CheckpointError: not such a file, truncated, damaged, compressed, not little endian, a pickle
        that asks for anything but tensors and plain settings, a tensor that reaches outside of its
        storage, no state dict that is wanted, or several.
      OSError: the file cannot be opened.
    """
    path = os.fspath(path)
    with open(path, 'rb') as file:
        archive = _open_zip(file, path)
        entries, prefix = _entries(archive, path)
        _check_byte_order(archive, entries, prefix, path)
        program = entries[prefix + 'data.pkl']
        if program.file_size > _MAX_PICKLE_BYTES:
            raise CheckpointError(
                f'{path}: data.pkl has {program.file_size} bytes; a state dict needs far less '
                f'than the {_MAX_PICKLE_BYTES} allowed here. Is it a checkpoint of this model?'
            )
        pickled = _read_entry(archive, program, path)
        content = torch_pickle.interpret(pickled, path)
        member, tensors = _state_dict(content, path, is_wanted, member)
        mapped = np.memmap(path, dtype=np.uint8, mode='r')
        state, checked = {}, {}
        for name, tensor in tensors.items():
            storage = tensor.storage  # two tensors may share one
            if storage not in checked:
                entry = f'{prefix}data/{storage.key}'
                checked[storage] = _storage_bytes(
                    file, mapped, entries.get(entry), entry, storage, check_crc, path
                )
            state[name] = _view(checked[storage], name, tensor, path)
    return TorchFile(state, member, _step(content))


def is_torch_file(path: str | os.PathLike) -> bool:
    """Whether the file begins like a zip that torch wrote (its content is not checked)."""
    with open(path, 'rb') as file:
        return file.read(4) == b'PK\x03\x04'


def _open_zip(file: Any, path: str) -> zipfile.ZipFile:
    magic = file.read(4)
    if magic[:1] == b'\x80':
        raise CheckpointError(
            f'{path}: a bare pickle (torch before version 1.6), which cannot be read without '
            f'running it. Load it once with torch and save it again with torch.save.'
        )
    if magic != b'PK\x03\x04':
        raise CheckpointError(f'{path}: not a file of torch.save (it does not begin as a zip).')
    try:
        return zipfile.ZipFile(file)
    except _ZIP_ERRORS as error:
        raise CheckpointError(
            f'{path}: the zip directory at the end of the file is missing or damaged ({error}): '
            f'the file was probably truncated. Copy or download it again.'
        ) from error


def _read_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: str) -> bytes:
    try:
        return archive.read(info)
    except _ZIP_ERRORS as error:
        raise CheckpointError(f'{path}: {info.filename} is damaged ({error!r}).') from error


def _entries(archive: zipfile.ZipFile, path: str) -> tuple[dict[str, zipfile.ZipInfo], str]:
    infos = archive.infolist()
    entries = {info.filename: info for info in infos}
    if len(entries) != len(infos):
        raise CheckpointError(f'{path}: two zip entries have the same name.')
    for info in infos:
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise CheckpointError(
                f'{path}: the zip entry {info.filename} is compressed; torch stores its entries '
                f'uncompressed. Unpack it and save it again with torch.save.'
            )
        if info.flag_bits & 0x1:
            raise CheckpointError(f'{path}: the zip entry {info.filename} is encrypted.')
    programs = [name for name in entries if name.count('/') == 1 and name.endswith('/data.pkl')]
    if len(programs) != 1:
        raise CheckpointError(
            f'{path}: a file of torch.save has exactly one data.pkl; this zip has {len(programs)}.'
        )
    return entries, programs[0].removesuffix('data.pkl')


def _check_byte_order(
    archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], prefix: str, path: str
) -> None:
    info = entries.get(prefix + 'byteorder')  # absent in files of older versions
    if info is None:
        return
    order = _read_entry(archive, info, path) if info.file_size < 16 else b'?'
    if order != b'little':
        raise CheckpointError(
            f'{path}: the bytes must be little endian; the file states {order!r}. Save it again '
            f'on a little-endian machine.'
        )


def _state_dict(
    value: Any, path: str, is_wanted: Callable[[Sequence[str]], bool] | None, member: str
) -> tuple[str, dict[str, Tensor]]:
    """The state dict within what a file holds, and the keys that lead to it."""
    if not isinstance(value, dict) or not value:
        raise CheckpointError(
            f'{path}: must hold a state dict (names and tensors); it holds '
            f'{"an empty dict" if value == {} else type(value).__name__.lower()}.'
        )
    if not member and all(isinstance(item, Tensor) for item in value.values()):
        if not all(isinstance(name, str) for name in value):
            raise CheckpointError(f'{path}: it has a dict whose keys are not text.')
        return '', value
    found = dict(_nested(value)) if is_wanted is not None else {}
    if member:
        if member in found:
            return member, found[member]
        raise CheckpointError(
            f'{path}: has no state dict {member!r}; it has {", ".join(found) or "none"}.'
        )
    wanted = {
        keys: state
        for keys, state in found.items()
        if is_wanted is not None and is_wanted(list(state))
    }
    if len(wanted) > 1 and len({tuple(state.items()) for state in wanted.values()}) == 1:
        wanted = dict([next(iter(wanted.items()))])  # the same tensors under several keys
    if len(wanted) == 1:
        return next(iter(wanted.items()))
    if wanted:
        raise CheckpointError(
            f'{path}: has several state dicts of a model: {", ".join(wanted)}. State which one is '
            f'wanted: --member {next(iter(wanted))}'
        )
    name, item = next((n, i) for n, i in value.items() if not isinstance(i, Tensor))
    if not isinstance(name, str):
        raise CheckpointError(f'{path}: it has a dict whose keys are not text.')
    raise CheckpointError(
        f'{path}: must hold names and tensors only, or a state dict of this model inside; {name!r} '
        f'is a {type(item).__name__.lower()}. Save the state dict alone with torch.save.'
    )


def _nested(value: dict, keys: str = '', depth: int = 0) -> Iterator[tuple[str, dict]]:
    """Yields the keys and content of every dict of names and tensors within a dict."""
    own = {name: item for name, item in value.items() if isinstance(item, Tensor)}
    if own and len(own) == len(value) and all(isinstance(name, str) for name in own):
        yield keys, value
    for name, item in value.items():
        if isinstance(item, dict) and isinstance(name, str) and depth < _DEPTH:
            yield from _nested(item, f'{keys}.{name}' if keys else name, depth + 1)


def _step(content: dict) -> int | None:
    found = [content.get(key) for key in _STEP_KEYS]
    return next((one for one in found if type(one) is int and one >= 0), None)


def _storage_bytes(
    file: Any,
    mapped: np.ndarray,
    info: zipfile.ZipInfo | None,
    name: str,
    storage: Storage,
    check_crc: bool,
    path: str,
) -> np.ndarray:
    if info is None:
        raise CheckpointError(f'{path}: the entry {name} with bytes of a tensor is missing.')
    file.seek(max(info.header_offset, 0))
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or header[:4] != b'PK\x03\x04':
        raise CheckpointError(f'{path}: the zip entry {name} has no header: damaged file.')
    fields = _LOCAL_HEADER.unpack(header)
    start = info.header_offset + _LOCAL_HEADER.size + fields[9] + fields[10]
    expected = storage.numel * storage.dtype.itemsize
    if info.file_size != expected or start + expected > len(mapped):
        raise CheckpointError(
            f'{path}: the entry {name} must hold {expected} bytes; it has {info.file_size}, and '
            f'{max(len(mapped) - start, 0)} are left in the file.'
        )
    if check_crc:
        _check_crc(file, start, info, path)
    return mapped[start : start + expected]


def _check_crc(file: Any, start: int, info: zipfile.ZipInfo, path: str) -> None:
    # Reads the file rather than the mapping, whose pages would count as memory in use.
    file.seek(start)
    crc, left = 0, info.file_size
    while left:
        chunk = file.read(min(left, _CHUNK))
        if not chunk:
            break
        crc, left = zlib.crc32(chunk, crc), left - len(chunk)
    if left or crc != info.CRC:
        raise CheckpointError(
            f'{path}: the bytes of {info.filename} do not match their checksum: the file is '
            f'damaged. Copy or download it again.'
        )


def _view(raw: np.ndarray, name: str, tensor: Tensor, path: str) -> np.ndarray:
    storage, shape, strides = tensor.storage, tensor.shape, tensor.strides
    numel = math.prod(shape)
    last = tensor.offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=False))
    fits = (
        len(shape) == len(strides)
        and min((tensor.offset, *shape, *strides)) >= 0
        # Fewer elements than the storage has: no tensor that repeats its bytes endlessly.
        and numel <= storage.numel
        and (numel == 0 or last < storage.numel)
    )
    if not fits:
        raise CheckpointError(
            f'{path}: the tensor {name} reaches outside of its storage: offset {tensor.offset}, '
            f'shape {shape}, strides {strides} of {storage.numel} elements.'
        )
    # Not ndarray.view: the start of an entry need not be a multiple of the element size.
    flat = np.frombuffer(raw, dtype=storage.dtype)[tensor.offset :]
    if numel == 0:
        return flat[:0].reshape(shape)
    strides = [step * storage.dtype.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(flat, shape, strides, writeable=False)
