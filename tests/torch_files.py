"""Writes files as torch.save does, with anything beside the tensors; needs no torch."""

import collections
import io
import pathlib
import pickle
import sys
import types
import zipfile

import numpy as np

_KINDS = {
    'float64': 'DoubleStorage', 'float32': 'FloatStorage', 'bfloat16': 'BFloat16Storage',
    'float16': 'HalfStorage', 'int64': 'LongStorage', 'int32': 'IntStorage',
}  # fmt: skip


class Tensor:
    """A tensor, or a parameter, of the values of an array."""

    def __init__(self, array: np.ndarray, is_parameter: bool = False):
        self.array, self.is_parameter = np.array(array, order='C'), is_parameter


class _Storage:
    def __init__(self, array: np.ndarray, key: str):
        self.array, self.key = array, key


class _Pickler(pickle.Pickler):
    """Pickles tensors as torch does: a call of a rebuilding function with a storage's key."""

    def __init__(self, buffer: io.BytesIO, protocol: int, torch: types.SimpleNamespace):
        super().__init__(buffer, protocol)
        self._torch, self.storages = torch, []

    def persistent_id(self, value):
        if isinstance(value, _Storage):
            kind = getattr(self._torch.torch, _KINDS[str(value.array.dtype)])
            return 'storage', kind, value.key, 'cpu', value.array.size
        return None

    def reducer_override(self, value):
        if not isinstance(value, Tensor):
            return NotImplemented
        hooks = collections.OrderedDict()
        if value.is_parameter:
            return self._torch.parameter, (Tensor(value.array), True, hooks)
        storage = _Storage(value.array, str(len(self.storages)))
        self.storages.append(value.array)
        strides = tuple(step // value.array.itemsize for step in value.array.strides)
        return self._torch.tensor, (storage, 0, value.array.shape, strides, False, hooks)


def _stand_in() -> tuple[types.SimpleNamespace, dict[str, types.ModuleType]]:
    """Modules whose classes and functions have torch's names, so that they can be pickled."""
    torch, utils = types.ModuleType('torch'), types.ModuleType('torch._utils')
    for name in _KINDS.values():
        setattr(torch, name, type(name, (), {'__module__': 'torch', '__qualname__': name}))
    made = {}
    for name in ('_rebuild_tensor_v2', '_rebuild_parameter'):

        def function(*_arguments):
            raise AssertionError

        function.__module__, function.__qualname__ = 'torch._utils', name
        setattr(utils, name, function)
        made[name] = function
    torch._utils = utils
    names = types.SimpleNamespace(
        torch=torch, tensor=made['_rebuild_tensor_v2'], parameter=made['_rebuild_parameter']
    )
    return names, {'torch': torch, 'torch._utils': utils}


def save(value: object, path: pathlib.Path, protocol: int = 2) -> pathlib.Path:
    """Writes ``value``, in which tensors are ``Tensor``; returns the path."""
    names, modules = _stand_in()
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        buffer = io.BytesIO()
        pickler = _Pickler(buffer, protocol, names)
        pickler.dump(value)
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as archive:
        archive.writestr('archive/data.pkl', buffer.getvalue())
        archive.writestr('archive/byteorder', 'little')
        for number, array in enumerate(pickler.storages):
            archive.writestr(f'archive/data/{number}', array.tobytes())
    return path
