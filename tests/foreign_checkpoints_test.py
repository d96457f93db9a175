"""Checkpoints of others: wrapped, nested, in pieces, with odd configurations; in every command."""

import argparse
import collections
import json
import pathlib

import jax
import ml_dtypes
import numpy as np
import pytest

from hrm_jax import Solver, tasks, train
from hrm_jax.cli import checkpoints, convert, solve, view
from hrm_jax.errors import CheckpointError
from hrm_jax.interop import formats, safetensors_io, torch_reader
from hrm_jax.interop.transformers_config import HrmConfig
from tests import commands, tiny_run, torch_files
from tests.torch_files import Tensor

# A model for 4x4 Sudokus: 6 tokens, 16 cells.
ARCH = {
    'name': 'hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1', 'H_cycles': 1, 'L_cycles': 1,
    'H_layers': 1, 'L_layers': 1, 'hidden_size': 16, 'num_heads': 2, 'expansion': 4,
    'pos_encodings': 'rope', 'puzzle_emb_ndim': 16, 'halt_max_steps': 3,
    'halt_exploration_prob': 0.1, 'loss': {'loss_type': 'stablemax_cross_entropy'},
}  # fmt: skip
RUN = {'arch': ARCH, 'data_path': 'data/sudoku-4x4', 'lr': 1e-4, 'epochs': 1, 'seed': 0,
       'global_batch_size': 8}  # fmt: skip
HF = {
    'model_type': 'hrm', 'vocab_size': 6, 'hidden_size': 16, 'num_hidden_layers': 1,
    'num_attention_heads': 2, 'intermediate_size': 256, 'max_position_embeddings': 16,
    'h_cycles': 1, 'l_cycles': 1, 'puzzle_emb_ndim': 16, 'num_puzzle_identifiers': 1,
    'halt_max_steps': 3, 'dtype': 'float32',
}  # fmt: skip
PREFIX = 'model.inner.'
PUZZLE = '1..2.......3....'


def _shapes():
    shapes = {'H_init': (16,), 'L_init': (16,), 'embed_tokens.embedding_weight': (6, 16),
              'lm_head.weight': (6, 16), 'q_head.weight': (2, 16), 'q_head.bias': (2,),
              'puzzle_emb.weights': (1, 16)}  # fmt: skip
    for level in 'HL':
        shapes |= {f'{level}_level.layers.0.self_attn.qkv_proj.weight': (48, 16),
                   f'{level}_level.layers.0.self_attn.o_proj.weight': (16, 16),
                   f'{level}_level.layers.0.mlp.gate_up_proj.weight': (512, 16),
                   f'{level}_level.layers.0.mlp.down_proj.weight': (16, 256)}  # fmt: skip
    return shapes


def _state(prefix=PREFIX, dtype=np.float32, seed=0):
    random = np.random.default_rng(seed)
    return {prefix + n: random.normal(size=s).astype(dtype) for n, s in _shapes().items()}


def _tensors(state, is_parameter=False):
    return collections.OrderedDict((n, Tensor(a, is_parameter)) for n, a in state.items())


def _write(folder, value, run=RUN, name='step_12'):
    folder.mkdir(exist_ok=True, parents=True)
    torch_files.save(value, folder / name)
    (folder / 'all_config.yaml').write_text(json.dumps(run))
    return folder


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    """The model as the original writes it."""
    folder = tmp_path_factory.mktemp('plain')
    return formats.load(_write(folder, _tensors(_state())), seq_len=16)


def _assert_is(saved, plain, rtol=0.0):
    for one, other in zip(
        jax.tree.leaves(saved.weights), jax.tree.leaves(plain.weights), strict=True
    ):
        np.testing.assert_allclose(np.float32(one), np.float32(other), rtol=rtol)


def _renamed(state, change):
    return {change(name): array for name, array in state.items()}


@pytest.mark.parametrize(
    ('change', 'prefix'),
    [
        (lambda n: f'module.{n}', f'module.{PREFIX}'),
        (lambda n: f'_orig_mod.module.{n}', f'_orig_mod.module.{PREFIX}'),
        (lambda n: f'module._orig_mod.module.{n}', f'module._orig_mod.module.{PREFIX}'),
        (lambda n: n.removeprefix('model.'), 'inner.'),
        (lambda n: n.removeprefix(PREFIX), ''),
        (lambda n: n.replace('model.inner.', 'model._orig_mod.inner.'), 'model._orig_mod.inner.'),
        # Wrapped parts: compiled levels, checkpointed or sharded layers.
        (lambda n: n.replace('_level.', '_level._orig_mod.'), PREFIX),
        (lambda n: n.replace('layers.0.', 'layers.0._checkpoint_wrapped_module.'), PREFIX),
        (lambda n: n.replace('inner.', 'inner._fsdp_wrapped_module.', 1)
         .replace('self_attn.', 'self_attn.module.'), f'{PREFIX}'),
    ],
)  # fmt: skip
def test_wrappers_are_found_in_any_order_and_depth(tmp_path, plain, change, prefix):
    state = _renamed(_state(), change)
    saved = formats.load(_write(tmp_path / 'a', _tensors(state)), seq_len=16)
    _assert_is(saved, plain)
    assert saved.meta['source']['prefix'] == prefix
    back = formats.save(saved, tmp_path / 'back', 'torch')
    again = torch_reader.read_torch(back)
    assert set(again) == {prefix + name for name in _shapes()}


def test_two_names_of_one_tensor_are_refused(tmp_path):
    state = _state() | {f'module.{PREFIX}q_head.bias': np.zeros(2, np.float32)}
    with pytest.raises(CheckpointError, match=r'two tensors are called q_head\.bias'):
        formats.load(_write(tmp_path / 'a', _tensors(state)), seq_len=16)


def _optimizer(state):
    moments = {
        k: {'step': Tensor(np.float32(3)), 'exp_avg': Tensor(array), 'betas': (0.9, 0.95)}
        for k, array in enumerate(state.values())
    }
    groups = [{'lr': 1e-4, 'params': list(range(len(state))), 'foreach': None}]
    return {'state': moments, 'param_groups': groups}


@pytest.mark.parametrize('protocol', [2, 4])
@pytest.mark.parametrize(
    'nest',
    [
        lambda m, o: {'model': m, 'optimizer': o, 'step': 34},
        lambda m, o: {'state_dict': m, 'global_step': 34, 'hyper_parameters': {'lr': 1e-4}},
        lambda m, o: {'iteration': 34, 'trainer': {'module': m, 'optim': o, 'best': None}},
        lambda m, o: {
            'args': argparse.Namespace(lr=1.0), 'model_state_dict': m, 'train_step': 34,
            'path': pathlib.PurePosixPath('x'), 'seen': {1, 2}, 'loss': np.float64(0.5),
            'counts': collections.Counter('ab'), 'history': [[1, 2.5], ['a', None]],
        },
    ],
)  # fmt: skip
def test_the_model_is_found_beside_optimizers_and_settings(tmp_path, plain, nest, protocol):
    state = _state()
    value = nest(_tensors(state, is_parameter=True), _optimizer(state))
    folder = tmp_path / 'a'
    folder.mkdir()
    torch_files.save(value, folder / 'last.ckpt', protocol)
    (folder / 'all_config.yaml').write_text(json.dumps(RUN))
    saved = formats.load(folder, seq_len=16)
    assert saved.step == 34
    _assert_is(saved, plain)


def test_several_models_in_a_file_must_be_told_apart(tmp_path, plain, capsys):
    value = {'model': _tensors(_state(seed=1)), 'ema': {'shadow': _tensors(_state())}}
    folder = _write(tmp_path / 'a', value)
    with pytest.raises(CheckpointError, match=r'several .*: model, ema\.shadow\..*--member model'):
        formats.load(folder, seq_len=16)
    _assert_is(formats.load(folder, seq_len=16, member='ema.shadow'), plain)
    flags = ['--seq-len', '16', '--member']
    assert commands.exit_code(convert.main, folder, tmp_path / 'b', *flags, 'ema.shadow') == 0
    _assert_is(formats.load(tmp_path / 'b'), plain)
    assert commands.exit_code(convert.main, folder, tmp_path / 'c', *flags, 'ema') == 1
    assert "no state dict 'ema'; it has model, ema.shadow" in capsys.readouterr().err
    same = {'model': value['model'], 'ema': value['model']}
    formats.load(_write(tmp_path / 'same', same), seq_len=16)


class _Evil:
    def __reduce__(self):
        return print, ('run',)


def test_nothing_beside_the_model_is_run(tmp_path, capsys):
    value = {'model': _tensors(_state()), 'callback': _Evil()}
    with pytest.raises(CheckpointError, match=r'asks for (__builtin__|builtins)\.print'):
        formats.load(_write(tmp_path / 'a', value), seq_len=16)
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize('dtype', [np.float64, np.float16, ml_dtypes.bfloat16])
def test_other_float_types_are_read_and_come_back(tmp_path, plain, dtype):
    state = _state(dtype=dtype)
    saved = formats.load(
        _write(tmp_path / 'a', _tensors(state)), seq_len=16, forward_dtype='float32'
    )
    _assert_is(saved, plain, rtol=0 if dtype is np.float64 else 0.01)
    back = torch_reader.read_torch(formats.save(saved, tmp_path / 'back', 'torch'))
    assert {str(a.dtype) for n, a in back.items() if 'init' not in n} == {np.dtype(dtype).name}


def test_numbers_beyond_float32_are_refused(tmp_path):
    state = _state(dtype=np.float64)
    state[f'{PREFIX}q_head.bias'][0] = 1e300
    with pytest.raises(CheckpointError, match=r'q_head\.bias has values that float32'):
        formats.load(_write(tmp_path / 'a', _tensors(state)), seq_len=16)


def _folder(folder, **changes):
    """A transformers-style folder; None leaves a key out, 'null' is null."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {'embed_tokens.embedding_weight': 'embed_tokens.weight',
             'puzzle_emb.weights': 'puzzle_emb.weight'}  # fmt: skip
    state = {PREFIX + names.get(n, n): a for n, a in _state('').items()}
    safetensors_io.write_safetensors(folder / 'model.safetensors', state)
    values = {k: v for k, v in (HF | changes).items() if v is not None}
    values = {k: None if v == 'null' else v for k, v in values.items()}
    (folder / 'config.json').write_text(json.dumps(values))
    return folder, state


def test_shards_of_torch_files_are_joined(tmp_path, plain):
    folder, state = _folder(tmp_path / 'a')
    (folder / 'model.safetensors').unlink()
    names = list(state)
    parts = {'pytorch_model-00001-of-00002.bin': names[:7],
             'pytorch_model-00002-of-00002.bin': names[7:]}  # fmt: skip
    for file, inside in parts.items():
        torch_files.save(_tensors({n: state[n] for n in inside}, True), folder / file)
    index = {'metadata': {}, 'weight_map': {n: f for f, inside in parts.items() for n in inside}}
    path = folder / 'pytorch_model.bin.index.json'
    path.write_text(json.dumps(index))
    _assert_is(formats.load(folder), plain)
    torch_files.save(_tensors(state), folder / 'pytorch_model.bin')  # one file: it is taken
    (folder / 'pytorch_model-00002-of-00002.bin').unlink()
    _assert_is(formats.load(folder), plain)
    (folder / 'pytorch_model.bin').unlink()
    with pytest.raises(CheckpointError, match=r'00002-of-00002\.bin, which is missing'):
        formats.load(folder)
    torch_files.save(_tensors({names[8]: state[names[8]]}), folder / list(parts)[1])
    with pytest.raises(CheckpointError, match=r'lacks .*which .*index\.json lists'):
        formats.load(folder)
    for wrong in ({'weight_map': None}, {'weight_map': {'a': 3}}, [], {'weight_map': []}):
        path.write_text(json.dumps(wrong))
        with pytest.raises(CheckpointError, match=r'index\.json'):
            formats.load(folder)


def test_hidden_files_are_those_of_other_programs(tmp_path, plain):
    folder = _write(tmp_path / 'a', _tensors(_state()))
    for name in ('._step_99', '.step_50', '.DS_Store', '._all_config.yaml'):
        (folder / name).write_bytes(b'\0\5\26\7')
    (folder / '.ipynb_checkpoints').mkdir()
    (folder / '.ipynb_checkpoints' / 'step_77').write_bytes(b'')
    _assert_is(formats.load(folder, seq_len=16), plain)


def test_the_length_of_a_puzzle_is_never_guessed(tmp_path, capsys):
    for path in ('data/sudoku-4x4', 'data/arc-aug', 'data/maze-30x30-hard', 'sudoku'):
        folder = _write(tmp_path / 'a', _tensors(_state()), RUN | {'data_path': path})
        with pytest.raises(CheckpointError, match='--seq-len'):
            formats.load(folder)
    saved = formats.load(
        _write(tmp_path / 'a', _tensors(_state()), RUN | {'arch': ARCH | {'seq_len': 16}})
    )
    assert saved.config.model.seq_len == 16
    with pytest.raises(CheckpointError, match='a puzzle has 16 cells; got --seq-len 81'):
        formats.load(tmp_path / 'a', seq_len=81)
    with pytest.raises(CheckpointError, match='--seq-len'):
        formats.load(_folder(tmp_path / 'hf', max_position_embeddings=None)[0])
    with pytest.raises(CheckpointError, match='do not show num_heads'):
        formats.load(_folder(tmp_path / 'hf', num_attention_heads=None)[0])
    # The data set that the configuration names states it, if it is at hand.
    data = tmp_path / 'sets' / 'sudoku-4x4' / 'train'
    data.mkdir(parents=True)
    (data / 'dataset.json').write_text(json.dumps({'seq_len': 16, 'vocab_size': 6}))
    run = RUN | {'data_path': str(data.parent)}
    assert formats.load(_write(tmp_path / 'b', _tensors(_state()), run)).config.model.seq_len == 16
    (data / 'dataset.json').write_text(json.dumps({'seq_len': 16, 'vocab_size': 7}))
    with pytest.raises(CheckpointError, match='--seq-len'):
        formats.load(tmp_path / 'b')


@pytest.mark.parametrize(
    'stated',
    [
        {'rope_theta': 5e5},
        {'rope_theta': None, 'rope_parameters': {'rope_type': 'default', 'rope_theta': 500000}},
        {'rope_theta': None, 'rope_scaling': {'type': 'default', 'rope_theta': 5e5}},
        {'rope_theta': 5e5, 'rope_scaling': 'null', 'rope_parameters': {'rope_theta': 5e5}},
    ],
)
def test_the_rotary_base_is_read_wherever_it_stands(tmp_path, stated):
    folder, _ = _folder(tmp_path / 'a', **stated)
    assert formats.load(folder).config.model.rope_theta == 5e5


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'rope_scaling': {'rope_type': 'linear', 'factor': 4.0}}, 'scales the rotary angles'),
        ({'rope_scaling': {'type': 'dynamic'}}, 'scales the rotary angles'),
        ({'rope_parameters': {'rope_type': 'yarn', 'rope_theta': 1e4}}, 'scales the rotary'),
        ({'rope_parameters': {'full_attention': {'rope_theta': 1e4}}}, 'full_attention'),
        ({'rope_parameters': {'rope_theta': 1e4, 'partial_rotary_factor': 0.5}}, 'partial_rotary'),
        ({'rope_theta': 1e4, 'rope_parameters': {'rope_theta': 5e5}}, 'stated twice'),
        ({'rope_parameters': [1]}, 'rope_parameters must be an object'),
        ({'hidden_act': 'gelu'}, "hidden_act='gelu' may change"),
        ({'sliding_window': 8}, 'sliding_window=8 may change'),
        ({'tie_word_embeddings': True}, 'tie_word_embeddings=True may change'),
        ({'embedding_multiplier': 2.0}, 'embedding_multiplier'),
        ({'quantization_config': {'bits': 4}}, 'quantization_config'),
        ({'hidden_size': '16'}, "hidden_size must be int; got '16'"),
        ({'num_attention_heads': [2]}, 'num_attention_heads must be int'),
        ({'rope_theta': 'large'}, 'rope_theta must be float'),
        ({'h_cycles': 1.5}, 'h_cycles must be int'),
        ({'dtype': 3}, 'dtype must be str'),
        ({'vocab_size': True}, 'vocab_size must be int'),
        ({'hrm_jax': [1]}, 'hrm_jax must be an object'),
    ],
)  # fmt: skip
def test_what_would_change_the_numbers_is_not_ignored(tmp_path, capsys, changes, message):
    folder, _ = _folder(tmp_path / 'a', **changes)
    assert commands.exit_code(convert.main, folder, tmp_path / 'b') == 1
    error = capsys.readouterr().err
    assert message in error
    assert 'config.json' in error
    assert error.count('\n') == 1


def test_what_changes_nothing_is_accepted(tmp_path):
    harmless = {
        'architectures': ['HrmForCausalLM'], 'transformers_version': '5.0.0', 'top_k': 5,
        '_name_or_path': 'x', 'hidden_act': 'silu', 'attention_bias': False, 'rope_scaling': 'null',
        'torch_dtype': 'null', 'tie_word_embeddings': False, 'attention_dropout': 0.0,
    }  # fmt: skip
    config = formats.load(_folder(tmp_path / 'a', **harmless)[0]).config
    assert config.model.rope_theta == 10000.0
    assert HrmConfig.from_dict(HF | {'my_note': ''}).extra == {'my_note': ''}


@pytest.mark.parametrize('text', ['[1, 2]', 'null', '{"a": ', '"text"', '[' * 5000, '\xff'])
def test_odd_json_is_one_line_with_the_file(tmp_path, capsys, text):
    folder, _ = _folder(tmp_path / 'a')
    (folder / 'config.json').write_text(text, encoding='latin-1')
    assert commands.exit_code(convert.main, folder, tmp_path / 'b') == 1
    error = capsys.readouterr().err
    assert 'config.json' in error
    assert error.count('\n') == 1


@pytest.mark.parametrize(
    ('arch', 'message'),
    [
        ({'hidden_size': 'big'}, "hidden_size must be int; got 'big'"),
        ({'expansion': [4]}, 'expansion must be float'),
        ({'mlp_t': 'yes'}, 'mlp_t must be bool'),
        ({'rope_scaling': 4.0}, 'rope_scaling=4.0 may change what the model computes'),
        ({'qk_norm': True}, 'qk_norm=True may change'),
        ({'puzzle_emb_ndim': '${.hidden}'}, r'the file has no arch.hidden'),
        ({'puzzle_emb_ndim': '${.puzzle_emb_ndim}'}, 'leads to itself'),
        ({'hidden_size': '${oc.env:DIM}'}, 'outside of the file'),
        ({'hidden_size': '${....x}'}, 'outside of the file'),
    ],
)
def test_odd_settings_of_an_original_are_one_line(tmp_path, capsys, arch, message):
    folder = _write(tmp_path / 'a', _tensors(_state()), RUN | {'arch': ARCH | arch})
    assert commands.exit_code(convert.main, folder, tmp_path / 'b', '--seq-len', 16) == 1
    error = capsys.readouterr().err
    assert message in error
    assert 'all_config.yaml' in error
    assert error.count('\n') == 1


def test_interpolations_take_the_value_and_type_of_what_they_name(tmp_path, plain):
    arch = ARCH | {
        'puzzle_emb_ndim': '${.hidden_size}', 'hidden_size': '${arch.width}', 'width': '${..dim}',
        'pos_encodings': '${.kind}', 'kind': 'ro${.tail}', 'tail': 'pe', 'causal': False,
    }  # fmt: skip
    arch = {n: v for n, v in arch.items() if n not in ('width', 'kind', 'tail')}
    run = RUN | {'dim': 16, 'arch': arch | {'hidden_size': '${dim}', 'pos_encodings': 'ro${tail}'}}
    folder = _write(tmp_path / 'a', _tensors(_state()), run | {'tail': 'pe'})
    _assert_is(formats.load(folder, seq_len=16), plain)
    # The file of an architecture alone, as the original's repository has it.
    (folder / 'all_config.yaml').unlink()
    lines = [f'{n}: {v}' for n, v in ARCH.items() if n != 'loss']
    text = '\n'.join(lines).replace('puzzle_emb_ndim: 16', 'puzzle_emb_ndim: ${.hidden_size}')
    (tmp_path / 'arch.yaml').write_text(text)
    _assert_is(formats.load(folder, config=str(tmp_path / 'arch.yaml'), seq_len=16), plain)
    (tmp_path / 'cfg.yaml').write_text('defaults: [arch: hrm_v1, _self_]\nlr: 1e-4\n')
    with pytest.raises(CheckpointError, match='only names other files'):
        formats.load(folder, config=str(tmp_path / 'cfg.yaml'), seq_len=16)


@pytest.fixture(scope='module')
def everywhere(tmp_path_factory, plain):
    """The same model in every format, and in a run of ours that was moved."""
    root = tmp_path_factory.mktemp('everywhere')
    data = _sudokus(root / 'data')
    _write(root / 'torch', _tensors(_state()), RUN | {'arch': ARCH | {'seq_len': 16}})
    _folder(root / 'hf')
    formats.save(plain, root / 'one.safetensors', 'safetensors')
    formats.save(plain, root / 'ours', 'orbax')
    settings = {'model': plain.config.to_dict()['model'], 'train': {'max_steps': 1},
                'optimizer': {'lr': 1e-9, 'puzzle_emb_lr': 0.0, 'ema_decay': 0.0}}  # fmt: skip
    config = tiny_run.config(data, **settings)
    with commands.quick_compiles():
        train.train(config, root / 'before', str(root / 'ours'), log=lambda _: None)
    (root / 'before').rename(root / 'run')
    return root


def _sudokus(folder):
    from data_builders import sudoku

    sudoku.build(str(folder), source='generated', size=4, train_count=60, test_count=9, show=False)
    return folder


FORMATS = ('torch', 'torch/step_12', 'hf', 'one.safetensors', 'ours', 'run')


@pytest.mark.parametrize('name', FORMATS)
def test_every_command_takes_every_format(everywhere, tmp_path, capsys, name):
    path, data = everywhere / name, str(everywhere / 'data')
    logged = []
    with commands.quick_compiles():
        solver = Solver.from_checkpoint(path, log=logged.append)
        expected = Solver.from_checkpoint(everywhere / 'ours', log=lambda _: None)
        assert isinstance(solver.task, tasks.TASKS['sudoku'])
        own = 'run' in name
        assert bool(logged) != own
        assert own or 'task: sudoku (inferred from 6 tokens and 16 cells; --task' in logged[0]
        [one], [other] = solver.solve([PUZZLE]), expected.solve([PUZZLE])
        assert one.text == other.text
        assert one.confidence == pytest.approx(other.confidence, rel=1e-3)
        other_task = Solver.from_checkpoint(path, task='maze', log=logged.append)
        assert isinstance(other_task.task, tasks.TASKS['maze'])
        assert commands.exit_code(solve.main, '--checkpoint', path, PUZZLE) == 0
        assert 'unsolved' in capsys.readouterr().out
        code = commands.exit_code(
            view.main, path, '--data', data, '-o', tmp_path / 'x.html', '--count', 2
        )
        assert code == 0
    assert (tmp_path / 'x.html').stat().st_size > 1000
    assert commands.exit_code(checkpoints.main, 'inspect', path) == 0
    assert '"seq_len": 16' in capsys.readouterr().out
    assert commands.exit_code(checkpoints.main, 'verify', path) == 0
    code, text = commands.run(
        tmp_path / 'out.txt', '--mode=eval', f'--workdir={path}', f'--config.data.path={data}'
    )
    assert code == 0, text
    assert 'eval/all/exact_accuracy' in text


def test_a_run_knows_itself(everywhere, tmp_path):
    """Evaluating and resuming need the folder alone; config.json is a configuration."""
    run = everywhere / 'run'
    code, text = commands.run(tmp_path / 'o', '--mode=eval', f'--workdir={run}')
    assert code == 0, text
    more = '--config.train.max_steps=2'
    code, text = commands.run(tmp_path / 'o', f'--workdir={run}', more)
    assert code == 0, text
    assert 'resumed from step 1' in text
    new = tmp_path / 'new'
    code, text = commands.run(
        tmp_path / 'o', f'--config={run}/config.json', f'--workdir={new}', more
    )
    assert code == 0, text
    assert 'new run in' in text
    first, second = (json.loads((f / 'config.json').read_text()) for f in (run, new))
    assert first == second
    code, text = commands.run(tmp_path / 'o', f'--workdir={tmp_path / "nothing"}')
    assert code == 2
    assert 'or the folder of a run with --workdir' in text
    (new / 'config.json').write_text('{"model": 3}')
    code, text = commands.run(tmp_path / 'o', f'--workdir={new}')
    assert code == 2
    assert 'config.json' in text
    assert 'Traceback' not in text


def test_infers_only_what_the_sizes_show():
    for sizes, name in (((6, 16), 'sudoku'), ((11, 81), 'sudoku'), ((8, 36), 'sudoku'),
                        ((12, 900), 'arc'), ((6, 900), 'maze'), ((5, 400), 'pathfinding'),
                        ((11, 80), ''), ((40, 100), ''), ((12, 100), 'sudoku')):  # fmt: skip
        assert tasks.infer(*sizes) == name
