"""The pickle of a ``torch.save`` file, interpreted on symbols: nothing in it is ever run.

A pickle is a program for a small stack machine; unpickling a file from a stranger would let that
program call anything. Here its opcodes are only listed (``pickletools.genops``) and interpreted
symbolically: a global is a name to look up in a short table, never something imported or called,
so the worst a hostile file can do is be refused.
"""

from collections.abc import Iterable
import dataclasses
import pickletools
import re
from typing import Any, cast

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
REBUILD_PARAMETER = (
    'torch._utils _rebuild_parameter',
    'torch._utils _rebuild_parameter_with_state',
)
ALLOWED_GLOBALS = (ORDERED_DICT, REBUILD_TENSOR, *REBUILD_PARAMETER, *STORAGE_DTYPES)
# What training programs save beside the weights: settings, counters, states of optimizers. It
# becomes an object without content.
OPAQUE = re.compile(
    r'torch (Size|device|(b?float|u?int|complex|q?u?int)\d+|bool|strided)|torch\.torch_version .*'
    r'|collections (defaultdict|deque|Counter)|argparse Namespace|types SimpleNamespace'
    r'|numpy(\._?core)?(\.multiarray|\.numeric)? (scalar|dtype|ndarray|_reconstruct|_frombuffer)'
    r'|numpy\.dtypes \w+|_codecs encode|builtins (set|frozenset|list|dict|tuple|int|float|bool)'
    r'|__builtin__ (set|frozenset|list|dict|tuple|int|float|bool)|pathlib \w*Path'
    r'|omegaconf\..*|typing Any|enum \w+|datetime \w+'
)


@dataclasses.dataclass(frozen=True)
class Global:
    name: str


@dataclasses.dataclass(frozen=True)
class Storage:
    key: str
    dtype: np.dtype
    numel: int


@dataclasses.dataclass(frozen=True)
class Tensor:
    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass
class Opaque:
    """A value that is not looked into."""

    name: str


@dataclasses.dataclass(frozen=True)
class OddKey:
    """Stands for a key of a dict that is neither text nor a whole number."""

    text: str


_MARK = object()


def interpret(pickled: bytes, path: str) -> Any:
    """Runs the stack machine on symbols; see the pickle protocol in the standard library.

    Args:
      pickled: the program.
      path: of its file, for messages.

    Returns:
      dicts, lists, texts and numbers; tensors are ``Tensor``, the rest ``Opaque``.

    Raises:
      CheckpointError: it asks for anything but ``ALLOWED_GLOBALS`` and ``OPAQUE``, or is malformed.
    """

    def refuse(what: str) -> CheckpointError:
        return CheckpointError(
            f'{path}: refused, its pickle {what}. Only tensors are read here, nothing is run; '
            f'if you trust the file, save its plain state dict again with torch.save.'
        )

    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def pop_to_mark() -> list[Any]:
        items = []
        while (item := stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def set_items(target: Any, pairs: list[Any]) -> None:
        if isinstance(target, Opaque):
            return
        if not isinstance(target, dict) or len(pairs) % 2:
            raise refuse('sets items of something that is not a dict')
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            # Keys of other types, as in the states of optimizers, have no weights.
            target[key if isinstance(key, str | int) else OddKey(repr(key)[:80])] = value

    def extend(target: Any, items: list[Any]) -> None:
        if not isinstance(target, list | Opaque):
            raise refuse('appends to something that is not a list')
        if isinstance(target, list):
            target.extend(items)

    try:
        opcodes = cast(Iterable[tuple[Any, Any, Any]], pickletools.genops(pickled))
        for opcode, arg, _ in opcodes:
            match opcode.name:
                case 'PROTO' | 'FRAME':
                    pass
                case 'GLOBAL' | 'STACK_GLOBAL':
                    if opcode.name == 'STACK_GLOBAL':
                        attribute, module = stack.pop(), stack.pop()
                        if not isinstance(module, str) or not isinstance(attribute, str):
                            raise refuse('is malformed')
                        arg = f'{module} {attribute}'
                    if arg not in ALLOWED_GLOBALS and not OPAQUE.fullmatch(arg):
                        raise refuse(f'asks for {arg.replace(" ", ".")}')
                    stack.append(Global(arg))
                case 'MARK':
                    stack.append(_MARK)
                case 'EMPTY_TUPLE':
                    stack.append(())
                case 'EMPTY_DICT':
                    stack.append({})
                case 'EMPTY_LIST':
                    stack.append([])
                case 'EMPTY_SET':
                    stack.append(Opaque('set'))
                case 'APPEND':
                    item = stack.pop()
                    extend(stack[-1], [item])
                case 'APPENDS' | 'ADDITEMS':
                    items = pop_to_mark()
                    extend(stack[-1], items)
                case 'FROZENSET':
                    pop_to_mark()
                    stack.append(Opaque('frozenset'))
                case 'LIST':
                    stack.append(pop_to_mark())
                case 'POP':
                    stack.pop()
                case 'NONE':
                    stack.append(None)
                case 'NEWTRUE' | 'NEWFALSE':
                    stack.append(opcode.name == 'NEWTRUE')
                case (
                    'BININT' | 'BININT1' | 'BININT2' | 'LONG1' | 'LONG4' | 'BINFLOAT'
                    | 'BINUNICODE' | 'SHORT_BINUNICODE' | 'BINUNICODE8' | 'SHORT_BINSTRING'
                    | 'BINSTRING' | 'BINBYTES' | 'SHORT_BINBYTES' | 'BINBYTES8'
                ):  # fmt: skip
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
                case 'REDUCE' | 'NEWOBJ':
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
                    if not isinstance(stack[-1], dict | Opaque | Tensor):
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
    name = function.name if isinstance(function, Global) else None
    if name == ORDERED_DICT and args == ():
        return {}
    if name in REBUILD_PARAMETER and isinstance(args, tuple) and args:
        if not isinstance(args[0], Tensor):
            raise refuse('describes a parameter in an unknown way')
        return args[0]
    if name is not None and OPAQUE.fullmatch(name):
        return Opaque(name)
    if name != REBUILD_TENSOR or not isinstance(args, tuple) or len(args) not in (6, 7):
        raise refuse(f'calls {name or "something unnamed"} in an unknown way')
    storage, offset, shape, strides = args[:4]
    integers = (offset, *shape, *strides)
    if not (
        isinstance(storage, Storage)
        and isinstance(shape, tuple)
        and isinstance(strides, tuple)
        and all(type(value) is int for value in integers)
    ):
        raise refuse('describes a tensor in an unknown way')
    return Tensor(storage, offset, shape, strides)


def _storage(identifier: Any, refuse: Any) -> Storage:
    if not (isinstance(identifier, tuple) and len(identifier) == 5 and identifier[0] == 'storage'):
        raise refuse('has an unknown persistent id')
    _, kind, key, _, numel = identifier  # the fourth is the device that the tensor was on
    dtype = STORAGE_DTYPES.get(kind.name) if isinstance(kind, Global) else None
    if dtype is None or not isinstance(key, str) or type(numel) is not int:
        raise refuse('has an unknown persistent id')
    return Storage(key, dtype, numel)
