"""Reads the tensors of a ``torch.save`` file without torch and without running its pickle.

Such a file is an uncompressed zip: ``data.pkl`` describes the tensors and one entry per
storage holds their bytes. A pickle is a program for a small stack machine; unpickling a file
from a stranger would let that program call anything. Here its opcodes are only listed
(``pickletools.genops``) and interpreted symbolically: a global is a name to look up in a short
table, never something imported or called, so the worst a hostile file can do is be refused.

The storages are memory mapped: a tensor is a read-only view into the file, and nothing is read
before somebody looks at it.
"""

import dataclasses
import math
import os
import pickletools
import struct
from typing import Any
import zipfile
import zlib

import ml_dtypes
import numpy as np

from hrm_jax.errors import CheckpointError

# The name of a storage class in the pickle, and the type of its elements.
STORAGE_DTYPES = {
    'torch DoubleStorage': np.dtype(np.float64),
    'torch FloatStorage': np.dtype(np.float32),
    'torch HalfStorage': np.dtype(np.float16),
    'torch BFloat16Storage': np.dtype(ml_dtypes.bfloat16),
    'torch LongStorage': np.dtype(np.int64),
    'torch IntStorage': np.dtype(np.int32),
    'torch ShortStorage': np.dtype(np.int16),
    'torch CharStorage': np.dtype(np.int8),
    'torch ByteStorage': np.dtype(np.uint8),
    'torch BoolStorage': np.dtype(np.bool_),
}
ORDERED_DICT = 'collections OrderedDict'
REBUILD_TENSOR = 'torch._utils _rebuild_tensor_v2'
ALLOWED_GLOBALS = (ORDERED_DICT, REBUILD_TENSOR, *STORAGE_DTYPES)

# A state dict of a model of this family has some dozens of tensors, about 100 bytes each.
_MAX_PICKLE_BYTES = 64 * 2**20
_LOCAL_HEADER = struct.Struct('<4s5H3I2H')
_CHUNK = 8 * 2**20
# What zipfile raises for one damage or another.
_ZIP_ERRORS = (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError, struct.error)


@dataclasses.dataclass(frozen=True)
class _Global:
    name: str


@dataclasses.dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    numel: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


_MARK = object()


def read_torch(path: str | os.PathLike, *, check_crc: bool = True) -> dict[str, np.ndarray]:
    """Returns the tensors of a ``torch.save``d state dict, in the order of the file.

    Args:
      path: a zip file as torch writes since version 1.6 (``step_N`` of the original).
      check_crc: compares each storage with its checksum (one sequential read of the file).

    Returns:
      read-only arrays which are views of the memory-mapped file; bfloat16 as
      ``ml_dtypes.bfloat16``.

    Raises:
      CheckpointError: not such a file, cut short, damaged, compressed, not little
        endian, a pickle that uses anything but ``ALLOWED_GLOBALS``, a tensor that reaches
        outside of its storage, or anything but a flat dict of tensors.
      OSError: the file can not be opened.
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
        tensors = _state_dict(_interpret(pickled, path), path)
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
    return state


def is_torch_file(path: str | os.PathLike) -> bool:
    """Whether the file begins like a zip that torch wrote (its content is not checked)."""
    with open(path, 'rb') as file:
        return file.read(4) == b'PK\x03\x04'


def _open_zip(file: Any, path: str) -> zipfile.ZipFile:
    magic = file.read(4)
    if magic[:1] == b'\x80':
        raise CheckpointError(
            f'{path}: a bare pickle (torch before version 1.6), which can not be read without '
            f'running it. Load it once with torch and save it again with torch.save.'
        )
    if magic != b'PK\x03\x04':
        raise CheckpointError(f'{path}: not a file of torch.save (it does not begin as a zip).')
    try:
        return zipfile.ZipFile(file)
    except _ZIP_ERRORS as error:
        raise CheckpointError(
            f'{path}: the zip directory at the end of the file is missing or damaged ({error}): '
            f'the file was probably cut short. Copy or download it again.'
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
            f'{path}: the bytes must be little endian; the file says {order!r}. Save it again '
            f'on a little-endian machine.'
        )


def _interpret(pickled: bytes, path: str) -> Any:
    """Runs the stack machine on symbols; see the pickle protocol in the standard library."""

    def refuse(what: str) -> CheckpointError:
        return CheckpointError(
            f'{path}: refused, its pickle {what}. Only tensors are read here, nothing is run; '
            f'if you trust the file, save its plain state dict again with torch.save.'
        )

    stack: list[Any] = []
    memo: dict[Any, Any] = {}

    def pop_to_mark() -> list[Any]:
        items = []
        while (item := stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def set_items(target: Any, pairs: list[Any]) -> None:
        if not isinstance(target, dict) or len(pairs) % 2:
            raise refuse('sets items of something that is not a dict')
        if not all(isinstance(key, str) for key in pairs[::2]):
            raise refuse('has a dict whose keys are not text')
        target.update(zip(pairs[::2], pairs[1::2], strict=True))

    try:
        for opcode, arg, _ in pickletools.genops(pickled):
            match opcode.name:
                case 'PROTO' | 'FRAME':
                    pass
                case 'GLOBAL' | 'STACK_GLOBAL':
                    if opcode.name == 'STACK_GLOBAL':
                        attribute, module = stack.pop(), stack.pop()
                        if not isinstance(module, str) or not isinstance(attribute, str):
                            raise refuse('is malformed')
                        arg = f'{module} {attribute}'
                    if arg not in ALLOWED_GLOBALS:
                        raise refuse(f'asks for {str(arg).replace(" ", ".")}')
                    stack.append(_Global(arg))
                case 'MARK':
                    stack.append(_MARK)
                case 'EMPTY_TUPLE':
                    stack.append(())
                case 'EMPTY_DICT':
                    stack.append({})
                case 'EMPTY_LIST':
                    stack.append([])
                case 'NONE':
                    stack.append(None)
                case 'NEWTRUE' | 'NEWFALSE':
                    stack.append(opcode.name == 'NEWTRUE')
                case (
                    'BININT'
                    | 'BININT1'
                    | 'BININT2'
                    | 'LONG1'
                    | 'BINFLOAT'
                    | 'BINUNICODE'
                    | ('SHORT_BINUNICODE' | 'SHORT_BINSTRING')
                ):
                    stack.append(arg)
                case 'TUPLE':
                    stack.append(tuple(pop_to_mark()))
                case 'TUPLE1' | 'TUPLE2' | 'TUPLE3':
                    count = int(opcode.name[-1])
                    items = tuple(stack[-count:])
                    if len(items) < count or _MARK in items:
                        raise refuse('is malformed')
                    stack[-count:] = [items]
                case 'BINPUT' | 'LONG_BINPUT':
                    memo[arg] = stack[-1]
                case 'MEMOIZE':
                    memo[len(memo)] = stack[-1]
                case 'BINGET' | 'LONG_BINGET':
                    stack.append(memo[arg])
                case 'BINPERSID':
                    stack.append(_storage(stack.pop(), refuse))
                case 'REDUCE':
                    args = stack.pop()
                    stack.append(_reduce(stack.pop(), args, refuse))
                case 'SETITEM':
                    value, key = stack.pop(), stack.pop()
                    set_items(stack[-1], [key, value])
                case 'SETITEMS':
                    pairs = pop_to_mark()
                    set_items(stack[-1], pairs)
                case 'BUILD':
                    # The module versions (``_metadata``) of a state dict: of no use here.
                    stack.pop()
                    if not isinstance(stack[-1], dict):
                        raise refuse('gives attributes to something that is not a dict')
                case 'STOP':
                    if len(stack) == 1:
                        return stack[0]
                    raise refuse('is malformed')
                case name:
                    raise refuse(f'uses the opcode {name}')
    except (IndexError, KeyError, TypeError, AttributeError, RecursionError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise refuse(f'is malformed ({type(error).__name__}: {error})') from error
    raise refuse('has no end')


def _reduce(function: Any, args: Any, refuse: Any) -> Any:
    name = function.name if isinstance(function, _Global) else None
    if name == ORDERED_DICT and args == ():
        return {}
    if name != REBUILD_TENSOR or not isinstance(args, tuple) or len(args) not in (6, 7):
        raise refuse(f'calls {name or "something unnamed"} in an unknown way')
    storage, offset, shape, strides = args[:4]
    integers = (offset, *shape, *strides)
    if not (
        isinstance(storage, _Storage)
        and isinstance(shape, tuple)
        and isinstance(strides, tuple)
        and all(type(value) is int for value in integers)
    ):
        raise refuse('describes a tensor in an unknown way')
    return _Tensor(storage, offset, shape, strides)


def _storage(identifier: Any, refuse: Any) -> _Storage:
    if not (isinstance(identifier, tuple) and len(identifier) == 5 and identifier[0] == 'storage'):
        raise refuse('has an unknown persistent id')
    _, kind, key, _, numel = identifier  # the fourth is the device that the tensor lay on
    dtype = STORAGE_DTYPES.get(kind.name) if isinstance(kind, _Global) else None
    if dtype is None or not isinstance(key, str) or type(numel) is not int:
        raise refuse('has an unknown persistent id')
    return _Storage(key, dtype, numel)


def _state_dict(value: Any, path: str) -> dict[str, _Tensor]:
    if not isinstance(value, dict) or not value:
        raise CheckpointError(
            f'{path}: must hold a state dict (names and tensors); it holds '
            f'{"an empty dict" if value == {} else type(value).__name__}.'
        )
    for name, item in value.items():
        if not isinstance(name, str) or not isinstance(item, _Tensor):
            raise CheckpointError(
                f'{path}: must hold names and tensors only; {name!r} is a '
                f'{type(item).__name__}. If the weights lie deeper inside, save that state dict '
                f'alone with torch.save.'
            )
    return value


def _storage_bytes(
    file: Any,
    mapped: np.ndarray,
    info: zipfile.ZipInfo | None,
    name: str,
    storage: _Storage,
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


def _view(raw: np.ndarray, name: str, tensor: _Tensor, path: str) -> np.ndarray:
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
