"""Tests of the readers and writers of torch and safetensors files."""

import io
import os
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from hrm_jax.errors import CheckpointError
from hrm_jax.interop import safetensors_io, torch_pickle, torch_reader, torch_writer

# Written by torch.save (2.13.0): a view with strides, shared storages, module versions.
TINY = os.path.join(os.path.dirname(__file__), 'fixtures', 'torch_tiny.pt')


def _state():
    return {
        'z.weight': np.arange(12, dtype=np.float32).reshape(3, 4),
        'a.init': np.arange(5).astype(ml_dtypes.bfloat16),
        'scalar': np.array(3, np.int64),
        'b.transposed': np.arange(6, dtype=np.float64).reshape(2, 3).T,
        'empty': np.zeros((0, 4), np.float16),
    }


def _assert_same(actual, expected):
    for name, array in expected.items():
        assert actual[name].dtype == array.dtype, name
        assert actual[name].shape == array.shape, name
        assert actual[name].tobytes() == array.tobytes(), name


def test_reads_what_torch_wrote():
    state = torch_reader.read_torch(TINY)
    base = np.arange(24, dtype=np.float32)
    expected = {
        'a_bf16': np.array([1.0, -2.5, 3e-3]).astype(ml_dtypes.bfloat16),
        'b_f32': np.arange(6, dtype=np.float32).reshape(2, 3) / 4,
        'c_view': base[4:20].reshape(4, 4).T,
        'd_shares': base[:2],
        'e_int': np.array(7),
        'f_empty': np.zeros((0, 3), np.float32),
        'g_half': np.array([0.5], np.float16),
        'h_param': np.ones((2, 2)),
    }
    assert list(state) == list(expected)
    _assert_same(state, expected)
    assert not state['b_f32'].flags.writeable


@pytest.mark.parametrize('kind', ['torch', 'safetensors'])
def test_round_trip_keeps_names_types_and_bytes(tmp_path, kind):
    path = tmp_path / 'step_7'
    if kind == 'torch':
        torch_writer.write_torch(path, _state())
        again = torch_reader.read_torch(path)
        assert list(again) == list(_state())
    else:
        safetensors_io.write_safetensors(path, _state(), {'format': 'pt'})
        again, metadata = safetensors_io.read_safetensors(path)
        assert metadata == {'format': 'pt'}
    _assert_same(again, _state())
    assert os.listdir(tmp_path) == ['step_7']


@pytest.mark.torch
def test_torch_reads_what_we_wrote(tmp_path):
    import torch

    torch_writer.write_torch(tmp_path / 'step_7', _state())
    loaded = torch.load(tmp_path / 'step_7', weights_only=True)
    assert list(loaded) == list(_state())
    np.testing.assert_array_equal(loaded['b.transposed'].numpy(), _state()['b.transposed'])
    assert loaded['a.init'].dtype == torch.bfloat16


@pytest.mark.torch
def test_we_read_what_torch_writes(tmp_path):
    import torch

    torch.manual_seed(0)
    base = torch.arange(24, dtype=torch.float32)
    state = {
        **torch.nn.Linear(5, 3).state_dict(prefix='_orig_mod.'),
        'view': base[4:20].reshape(4, 4).T,
        'shared': base[:2],
        'bfloat16': torch.randn(7).bfloat16(),
        'empty': torch.zeros(0, 3, dtype=torch.float16),
        'scalar': torch.tensor(7),
        'flags': torch.tensor([True, False]),
    }
    torch.save(state, tmp_path / 'step_3')
    loaded = torch_reader.read_torch(tmp_path / 'step_3')
    assert list(loaded) == list(state)
    for name, tensor in state.items():
        bits = tensor.detach().contiguous()
        assert str(tensor.dtype) == f'torch.{loaded[name].dtype.name}', name
        assert loaded[name].shape == tuple(tensor.shape), name
        assert loaded[name].tobytes() == bytes(bits.reshape(-1).view(torch.uint8).numpy()), name


def test_safetensors_library_reads_ours_and_we_read_its(tmp_path):
    numpy_api = pytest.importorskip('safetensors.numpy')
    safetensors_io.write_safetensors(tmp_path / 'ours', _state())
    _assert_same(numpy_api.load_file(tmp_path / 'ours'), _state())
    contiguous = {name: np.ascontiguousarray(array) for name, array in _state().items()}
    contiguous['scalar'] = _state()['scalar']
    numpy_api.save_file(contiguous, tmp_path / 'theirs')
    _assert_same(safetensors_io.read_safetensors(tmp_path / 'theirs')[0], _state())


def test_unwritable_type_leaves_the_old_file(tmp_path):
    path = tmp_path / 'step_1'
    path.write_bytes(b'old')
    for write in (torch_writer.write_torch, safetensors_io.write_safetensors):
        with pytest.raises(CheckpointError, match=r'bad\.key'):
            write(path, {'bad.key': np.zeros(2, np.complex64)})
    assert path.read_bytes() == b'old'
    assert os.listdir(tmp_path) == ['step_1']


class _Calls:
    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def _rebuild(offset=0, shape=(3,), strides=(1,), key='0', numel=12, kind='FloatStorage'):
    """The pickle of {'w': tensor} with the fields of a tensor as given."""
    P, W = pickle, torch_writer
    return b''.join([
        P.PROTO, b'\x02', P.EMPTY_DICT, W._text('w'), W._global(torch_pickle.REBUILD_TENSOR),
        P.MARK, P.MARK, W._text('storage'), W._global(f'torch {kind}'), W._text(key),
        W._text('cpu'), W._integer(numel), P.TUPLE, P.BINPERSID, W._integer(offset),
        W._integers(shape), W._integers(strides), P.NEWFALSE, P.NONE, P.TUPLE, P.REDUCE,
        P.SETITEM, P.STOP,
    ])  # fmt: skip


def _archive(pickled, *, data=b'\0' * 48, compression=zipfile.ZIP_STORED, extra=()):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', compression) as archive:
        archive.writestr('x/data.pkl', pickled)
        archive.writestr('x/data/0', data)
        for name, content in extra:
            archive.writestr(name, content)
    return buffer.getvalue()


def _flip(content, needle):
    at = content.index(needle)
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


GOOD = _archive(_rebuild(), data=bytes(range(48)))


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (_archive(pickle.dumps(_Calls(os.system, 'touch PWNED'), 2)), r'(posix|nt)\.system'),
        (_archive(pickle.dumps(_Calls(os.system, 'touch PWNED'), 4)), r'(posix|nt)\.system'),
        (_archive(pickle.dumps({'w': _Calls(eval, 'open("PWNED", "w")')}, 2)), 'eval'),
        (_archive(b'\x80\x02(S"touch PWNED"\nios\nsystem\n.'), 'opcode'),
        (_archive(_rebuild(kind='ComplexFloatStorage')), 'torch.ComplexFloatStorage'),
        (_archive(_rebuild(offset=10)), 'tensor w reaches outside'),
        (_archive(_rebuild(strides=(6,))), 'tensor w reaches outside'),
        (_archive(_rebuild(strides=(-1,), offset=5)), 'tensor w reaches outside'),
        (_archive(_rebuild(shape=(10**12,), strides=(0,))), 'tensor w reaches outside'),
        (_archive(_rebuild(shape=(2, 2))), 'tensor w reaches outside'),
        (_archive(_rebuild(key='1')), 'x/data/1 with bytes of a tensor is missing'),
        (_archive(_rebuild(key='../../secret')), 'is missing'),
        (_archive(_rebuild(numel=13)), 'must hold 52 bytes; it has 48'),
        (_archive(_rebuild(), compression=zipfile.ZIP_DEFLATED), 'compressed'),
        (_archive(_rebuild(), extra=[('x/byteorder', b'big')]), 'little endian'),
        (_archive(_rebuild(), extra=[('y/data.pkl', b'.')]), 'exactly one data.pkl'),
        (_archive(pickle.dumps({'model': {'w': 1}}, 2)), "'model' is a dict"),
        (_archive(pickle.dumps({}, 2)), 'an empty dict'),
        (_archive(pickle.dumps({(1, 2): 3}, 2)), 'keys are not text'),
        (_archive(b'\x80\x02r\xff\xff\xff\x7f.'), 'malformed'),
        (_archive(b'\x80\x02}'), 'malformed|no end'),
        (_flip(GOOD, bytes(range(8, 40))), 'checksum'),
        (GOOD[:-30], 'truncated'),
        (GOOD[: len(GOOD) // 2], 'truncated'),
        (GOOD[:20], 'truncated'),
        (b'', 'not a file of torch.save'),
        (pickle.dumps({'w': 1}, 2), 'bare pickle'),
    ],
    # An archive holds the time of day, and the processes of one run must find the same names.
    ids=lambda value: 'file' if isinstance(value, bytes) else None,
)
def test_refuses(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'step_1').write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        torch_reader.read_torch('step_1')
    assert os.listdir(tmp_path) == ['step_1']  # nothing was run


def test_the_good_archive_of_the_refusals_is_read(tmp_path):
    (tmp_path / 'step_1').write_bytes(GOOD)
    state = torch_reader.read_torch(tmp_path / 'step_1')
    assert state['w'].tobytes() == bytes(range(12))


def test_whatever_bytes_are_wrong_the_error_is_ours(tmp_path):
    random = np.random.default_rng(0)
    with open(TINY, 'rb') as file:
        good = file.read()
    program = good.index(b'\x80\x02ccollections')
    refused = 0
    for number in range(400):
        content = bytearray(good)
        # Half of them in the pickle, whose checksum is set right.
        within = (program, program + 600) if number % 2 else (0, len(content))
        for at in random.integers(*within, 2):
            content[at] = random.integers(256)
        if number % 2:
            parts = {}
            with zipfile.ZipFile(TINY) as archive:
                parts = {name: archive.read(name) for name in archive.namelist()}
            size = len(parts['torch_tiny/data.pkl'])
            parts['torch_tiny/data.pkl'] = bytes(content[program : program + size])
            with zipfile.ZipFile(tmp_path / 'x', 'w') as archive:
                for name, part in parts.items():
                    archive.writestr(name, part)
        else:
            (tmp_path / 'x').write_bytes(content)
        try:
            state = torch_reader.read_torch(tmp_path / 'x')
            assert all(array.nbytes < 1000 for array in state.values())
        except CheckpointError:
            refused += 1
    assert refused > 200


def _header(offsets, shape=(2,), dtype='F32', tail=b'\0' * 8):
    encoded = f'{{"w":{{"dtype":"{dtype}","shape":{list(shape)},"data_offsets":{offsets}}}}}'
    return struct.pack('<Q', len(encoded)) + encoded.encode() + tail


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'\xff' * 16, 'not a safetensors file'),
        (b'', 'not a safetensors file'),
        (_header([0, 8])[:-3], 'truncated: w'),
        (_header([0, 8], tail=b'\0' * 9), 'belong to no tensor'),
        (_header([4, 12], tail=b'\0' * 12), 'from 0'),
        (_header([0, 8], shape=(3,)), 'must take 12 bytes'),
        (_header([0, 8], shape=(-2, -1)), 'must take'),
        (_header([0, 8], dtype='F8_E4M3'), 'F8_E4M3'),
        (_header('"no"'), 'malformed'),
        (struct.pack('<Q', 2) + b'[]', 'JSON object'),
        (struct.pack('<Q', 2) + b'{,', 'not JSON'),
    ],
)
def test_refuses_bad_safetensors(tmp_path, content, message):
    (tmp_path / 'x').write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        safetensors_io.read_safetensors(tmp_path / 'x')
