"""Tests of conversions between formats, and of what is refused."""

import dataclasses
import json
import os
import pathlib
import sys
import types
import zipfile

import jax
import ml_dtypes
import numpy as np
import pytest

from hrm_jax.checkpoint import weights_only
from hrm_jax.cli import checkpoints, convert
from hrm_jax.config import ModelConfig
from hrm_jax.errors import CheckpointError
from hrm_jax.interop import (
    formats,
    hub,
    report,
    safetensors_io,
    tensor_names,
    torch_reader,
    torch_writer,
)
from hrm_jax.model import hrm, puzzle_table, starts
from tests import commands

FIXTURES = pathlib.Path(__file__).resolve().parent / 'fixtures'
CORE = ('rope', 'learned', 'no_puzzle_emb', 'puzzle_emb_pad', 'cycles_3x4')
VARIANTS = (
    'trm_att', 'trm_mlp_t', 'trm_att_learned_len0', 'trm_att_actcont', 'trm_singlez', 'trm_hier6',
    'trm_baseline', 'trm_repo_hrm_mlp_t', 'hrm_sru_v2', 'hrm_srupp_v3',
)  # fmt: skip
RUN_TOO = ('trm_att', 'trm_mlp_t', 'hrm_sru_v2', 'hrm_srupp_v3')  # the rest: experiments.parity
ARCH = {
    'name': 'hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1', 'H_cycles': 2, 'L_cycles': 1,
    'H_layers': 2, 'L_layers': 1, 'hidden_size': 16, 'num_heads': 2, 'expansion': 4,
    'pos_encodings': 'rope', 'puzzle_emb_ndim': 16, 'halt_max_steps': 4, 'seq_len': 81,
    'halt_exploration_prob': 0.1, 'loss': {'loss_type': 'softmax_cross_entropy'},
}  # fmt: skip
RUN = {'arch': ARCH, 'data_path': 'data/sudoku-extreme-1k', 'lr': 1e-4, 'epochs': 10,
       'eval_interval': 5, 'global_batch_size': 8}  # fmt: skip


def _state(prefix='_orig_mod.model.inner.', init_dtype=ml_dtypes.bfloat16):
    """A checkpoint as the original writes it, of the architecture ARCH, with random numbers."""
    random = np.random.default_rng(0)
    shapes = {'H_init': (16,), 'L_init': (16,), 'embed_tokens.embedding_weight': (11, 16),
              'lm_head.weight': (11, 16), 'q_head.weight': (2, 16), 'q_head.bias': (2,),
              'puzzle_emb.weights': (3, 16)}  # fmt: skip
    for layer in ('H_level.layers.0', 'H_level.layers.1', 'L_level.layers.0'):
        shapes |= {f'{layer}.self_attn.qkv_proj.weight': (48, 16),
                   f'{layer}.self_attn.o_proj.weight': (16, 16),
                   f'{layer}.mlp.gate_up_proj.weight': (512, 16),
                   f'{layer}.mlp.down_proj.weight': (16, 256)}  # fmt: skip
    state = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    state |= {name: state[name].astype(init_dtype) for name in ('H_init', 'L_init')}
    return {prefix + name: array for name, array in state.items()}


def _write(folder, state=None, run=None):
    folder.mkdir(exist_ok=True)
    torch_writer.write_torch(folder / 'step_12', state or _state())
    (folder / 'all_config.yaml').write_text(json.dumps(run or RUN))  # JSON is YAML
    return folder


def _assert_same_states(actual, expected):
    assert list(actual) == list(expected)
    for name, array in expected.items():
        assert actual[name].dtype == array.dtype, name
        assert actual[name].shape == array.shape, name
        assert actual[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize('prefix', ['_orig_mod.model.inner.', 'model.inner.'])
@pytest.mark.parametrize('way', ['orbax', 'huggingface', 'safetensors'])
def test_torch_to_another_format_and_back_gives_the_same_bytes(tmp_path, capsys, way, prefix):
    source = _write(tmp_path / 'source', _state(prefix))
    middle = tmp_path / ('model.safetensors' if way == 'safetensors' else 'middle')
    assert commands.exit_code(convert.main, source, middle, '--format', way, '--verify') == 0
    flags = [] if way == 'orbax' else ['--prefix', prefix]  # orbax remembers it
    back = tmp_path / 'back' / 'step_12'
    assert commands.exit_code(convert.main, middle, back, *flags, '--verify') == 0
    assert capsys.readouterr().out.count('verified: 19 tensors') == 2
    _assert_same_states(torch_reader.read_torch(back), _state(prefix))
    first, second = formats.load(source), formats.load(tmp_path / 'back')
    assert second.step == 12
    assert dataclasses.replace(second.config, name='') == dataclasses.replace(first.config, name='')


def test_types_of_a_source_come_back(tmp_path):
    state = {name: array.astype(ml_dtypes.bfloat16) for name, array in _state().items()}
    saved = formats.load(_write(tmp_path / 'a', state))
    assert {leaf.dtype for leaf in jax.tree.leaves(saved.weights.params)} == {np.dtype(np.float32)}
    weights_only.write_model(tmp_path / 'ours', saved)
    formats.save(formats.load(tmp_path / 'ours'), tmp_path / 'step_9', 'torch')
    _assert_same_states(torch_reader.read_torch(tmp_path / 'step_9'), state)


def test_the_configuration_follows(tmp_path):
    run = RUN | {'arch': ARCH | {'rms_norm_eps': 1e-6}, 'lr_warmup_steps': 7.0, 'ema': True}
    config = formats.load(_write(tmp_path / 'a', run=run)).config
    assert (config.model.seq_len, config.model.vocab_size) == (81, 11)
    assert config.model.num_puzzle_identifiers == 3
    assert config.model.forward_dtype == 'bfloat16'
    assert config.model.rms_norm_eps == 1e-6
    assert (config.act.halt_max_steps, config.loss.loss_type) == (4, 'softmax_cross_entropy')
    assert (config.optimizer.lr_warmup_steps, config.optimizer.ema_decay) == (7, 0.999)
    assert config.train.global_batch_size == 8


def _without(name):
    return {key: value for key, value in _state().items() if not key.endswith(name)}


def _with(name, array):
    return _state() | {'_orig_mod.model.inner.' + name: array}


@pytest.mark.parametrize(
    ('state', 'arch', 'message'),
    [
        (_without('q_head.bias'), {}, r'missing: q_head\.bias'),
        (_without('embed_tokens.embedding_weight'), {}, r'embed_tokens\.embedding_weight is missi'),
        (_with('extra.weight', np.zeros(2, np.float32)), {}, r'not known: extra\.weight'),
        (_with('lm_head.weight', np.zeros((11, 8), np.float32)), {}, r'lm_head\.weight must have'),
        (_with('lm_head.weight', np.zeros((11, 16), np.int32)), {}, r'lm_head\.weight must be flo'),
        (
            _with('puzzle_emb.weights', np.zeros(3, np.float32)),
            {},
            r'puzzle_emb\.weights must have',
        ),
        (_state() | {'other.q_head.bias': np.zeros(2, np.float32)}, {}, r'other\.q_head\.bias'),
        (None, {'H_layers': 3}, 'H_layers=3, but the checkpoint has 2.*H_level.layers.1'),
        (None, {'hidden_size': 32}, 'hidden_size=32, but the checkpoint has 16'),
        (None, {'expansion': 40}, r'inner size of 512.*L_level|inner size of 512.*H_level'),
        (None, {'puzzle_emb_ndim': 32}, 'puzzle_emb_ndim=32, but'),
        (None, {'pos_encodings': 'learned'}, r'embed_pos\.embedding_weight is missing'),
        (None, {'mlp_t': True}, "block='token_mixing', but the checkpoint has 'attention'"),
        (None, {'num_heads': None}, 'do not show num_heads'),
        (None, {'num_heads': 3}, 'multiple of model.num_heads'),
        (None, {'forward_dtype': 'float8'}, 'forward_dtype must be one of'),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(tmp_path, capsys, state, arch, message):
    source = _write(tmp_path / 'a', state, RUN | {'arch': ARCH | arch})
    for destination in ('ours', 'out/step_12', 'x.safetensors'):
        assert commands.exit_code(convert.main, source, tmp_path / destination) == 1
        error = capsys.readouterr().err
        with pytest.raises(AssertionError, match=message):
            raise AssertionError(error)
        assert error.count('\n') == 1
    assert os.listdir(tmp_path) == ['a']


def test_damaged_sources_write_nothing(tmp_path, capsys):
    source = _write(tmp_path / 'a')
    whole = (source / 'step_12').read_bytes()
    (source / 'step_12').write_bytes(whole[: len(whole) // 2])
    assert commands.exit_code(convert.main, source, tmp_path / 'ours') == 1
    assert 'truncated' in capsys.readouterr().err
    with zipfile.ZipFile(source / 'step_12', 'w') as archive:
        archive.writestr('a/data.pkl', b'\x80\x02cposix\nsystem\nX\x05\0\0\0touch\x85R.')
    assert commands.exit_code(convert.main, source, tmp_path / 'ours') == 1
    assert 'refused, its pickle asks for posix.system' in capsys.readouterr().err
    (source / 'step_12').write_bytes(whole)
    (source / 'all_config.yaml').write_text('arch: [')
    assert commands.exit_code(convert.main, source, tmp_path / 'ours') == 1
    assert 'neither YAML nor JSON' in capsys.readouterr().err
    assert commands.exit_code(convert.main, tmp_path / 'nothing', tmp_path / 'ours') == 1
    assert 'no such file' in capsys.readouterr().err
    assert commands.exit_code(convert.main, tmp_path, tmp_path / 'ours') == 1
    assert 'has no checkpoint' in capsys.readouterr().err
    assert os.listdir(tmp_path) == ['a']


def test_existing_files_are_kept_unless_told(tmp_path, capsys):
    source = _write(tmp_path / 'a')
    for kind in ('torch', 'huggingface', 'safetensors'):
        arguments = [str(source), str(tmp_path / kind), '--format', kind]
        assert commands.exit_code(convert.main, *arguments) == 0
        assert commands.exit_code(convert.main, *arguments) == 1
        assert 'exists already' in capsys.readouterr().err
        assert commands.exit_code(convert.main, *arguments, '--overwrite') == 0
    saved = formats.load(source)
    weights_only.write_model(tmp_path / 'ours', saved)
    with pytest.raises(CheckpointError, match='exists already'):
        weights_only.write_model(tmp_path / 'ours', saved)


def test_rotary_models_need_the_number_of_cells(tmp_path):
    arch = {name: value for name, value in ARCH.items() if name != 'seq_len'}
    # The name of a data set shows nothing: 4x4 Sudokus are data/sudoku-4x4 too.
    source = _write(tmp_path / 'a', run=RUN | {'arch': arch})
    with pytest.raises(CheckpointError, match='--seq-len'):
        formats.load(source)
    assert formats.load(source, seq_len=9).config.model.seq_len == 9
    (source / 'all_config.yaml').unlink()
    with pytest.raises(CheckpointError, match=r'do not show num_heads.*no configuration'):
        formats.load(source)


def test_large_tables_are_written_in_pieces(tmp_path, monkeypatch):
    saved = formats.load(_write(tmp_path / 'a'))
    table = np.arange(700 * 16, dtype=np.float32).reshape(700, 16)
    monkeypatch.setattr(weights_only, '_LARGE_BYTES', 2**10)
    monkeypatch.setattr(weights_only, '_PIECE_BYTES', 2**12)
    weights = saved.weights.replace(puzzle_table=table)
    large = dataclasses.replace(saved, weights=weights)
    path = weights_only.write_model(tmp_path / 'ours', large)
    np.testing.assert_array_equal(weights_only.read_model(path).weights.puzzle_table, table)
    assert os.listdir(tmp_path / 'ours' / 'checkpoints') == ['12']

    def fail(*_):
        raise OSError('no space left')

    monkeypatch.setattr(weights_only, '_replace_array', fail)
    with pytest.raises(OSError, match='no space'):
        weights_only.write_model(tmp_path / 'other', large)
    assert os.listdir(tmp_path / 'other' / 'checkpoints') == []
    with pytest.raises(CheckpointError):
        weights_only.read_model(tmp_path / 'other')


def test_parameters_without_a_name_are_not_lost(tmp_path):
    saved = formats.load(_write(tmp_path / 'a'))
    params = dict(saved.weights.params) | {'novelty': {'kernel': np.ones(2, np.float32)}}
    changed = dataclasses.replace(saved, weights=saved.weights.replace(params=params))
    with pytest.raises(CheckpointError, match='novelty/kernel'):
        formats.save(changed, tmp_path / 'b', 'torch')
    for change, message in (
        ({'gradient_window': 'full'}, r"gradient_window: 'full' and 'one_step'"),
        ({'initial_state': 'learned'}, 'initial_state'),
        ({'q_head': False}, 'path finders'),
    ):
        model = dataclasses.replace(saved.config.model, **change)
        act = dataclasses.replace(saved.config.act, halting='fixed')
        loss = dataclasses.replace(saved.config.loss, q_weight=0.0)
        config = dataclasses.replace(saved.config, model=model, act=act, loss=loss)
        changed = dataclasses.replace(saved, config=config)
        if 'initial_state' in change:
            weights = saved.weights.replace(params=saved.weights.params | saved.weights.constants)
            changed = dataclasses.replace(changed, weights=weights)
        with pytest.raises(CheckpointError, match=message):
            formats.save(changed, tmp_path / 'b', 'torch')
    assert os.listdir(tmp_path) == ['a']


def test_verification_finds_a_difference(tmp_path):
    saved = formats.load(_write(tmp_path / 'a'))
    path = formats.save(saved, tmp_path / 'x.safetensors', 'safetensors')
    assert 'equal bit for bit' in report.verify(saved, path)
    q_head = saved.weights.params['q_head']
    q_head['bias'] = q_head['bias'] + np.float32(1e-6)
    with pytest.raises(CheckpointError, match=r'q_head\.bias differs'):
        report.verify(saved, path)


def test_the_file_of_a_folder(tmp_path):
    _write(tmp_path / 'a')
    for name in ('step_3', 'step_12_all_preds.0', 'optimizer.pt'):
        (tmp_path / 'a' / name).write_bytes(b'')
    assert formats.find(tmp_path / 'a').path == str(tmp_path / 'a' / 'step_12')
    for name in ('step_3', 'step_12'):
        (tmp_path / 'a' / name).unlink()
    (tmp_path / 'a' / 'step_12_all_preds.0').rename(tmp_path / 'a' / 'checkpoint')  # on the hub
    assert formats.find(tmp_path / 'a').path == str(tmp_path / 'a' / 'checkpoint')


def test_averages_are_exported(tmp_path):
    saved = formats.load(_write(tmp_path / 'a'))
    average = jax.tree.map(lambda x: x + 1, saved.weights.params)
    path = formats.save(dataclasses.replace(saved, ema=average), tmp_path / 'b', 'orbax')
    again = formats.load(path)
    name = '_orig_mod.model.inner.q_head.bias'
    for use_ema, shift in ((True, 1), (False, 0)):
        out = formats.save(again, tmp_path / f'step_{shift}', 'torch', use_ema=use_ema)
        np.testing.assert_array_equal(torch_reader.read_torch(out)[name], _state()[name] + shift)


def test_checkpoint_tool(tmp_path, capsys):
    source = _write(tmp_path / 'a')
    saved = formats.load(source)
    formats.save(dataclasses.replace(saved, step=0), tmp_path / 'zero', 'torch')
    assert formats.load(tmp_path / 'zero').step == 0
    formats.save(saved, tmp_path / 'ours', 'orbax')
    assert commands.exit_code(checkpoints.main, 'list', tmp_path / 'ours') == 0
    assert '12' in capsys.readouterr().out
    assert commands.exit_code(checkpoints.main, 'list', source) == 0
    assert 'step_12' in capsys.readouterr().out
    assert commands.exit_code(checkpoints.main, 'inspect', tmp_path / 'ours') == 0
    text = capsys.readouterr().out
    for part in ('step: 12', '"seq_len": 81', '"hidden_size": 16', 'params/lm_head/kernel'):
        assert part in text
    assert commands.exit_code(checkpoints.main, 'compare', source, tmp_path / 'ours') == 0
    q_head = saved.weights.params['q_head']
    q_head['bias'] = q_head['bias'] + np.float32(0.5)
    formats.save(saved, tmp_path / 'other', 'orbax')
    assert commands.exit_code(checkpoints.main, 'compare', source, tmp_path / 'other') == 1
    assert 'params/q_head/bias: 100.0% of the values differ, at most 0.5' in capsys.readouterr().out
    assert commands.exit_code(checkpoints.main, 'list', tmp_path) == 1
    assert 'has no checkpoints' in capsys.readouterr().err


def test_hub_ids_without_a_network(tmp_path, monkeypatch, capsys):
    class LocalEntryNotFoundError(Exception):
        pass

    def download(*_, **__):
        raise LocalEntryNotFoundError('three\nlines\nof text')

    fake = types.SimpleNamespace(snapshot_download=download)
    monkeypatch.setitem(sys.modules, 'huggingface_hub', fake)
    assert (
        commands.exit_code(convert.main, 'sapientinc/HRM-checkpoint-ARC-2', tmp_path / 'ours') == 1
    )
    error = capsys.readouterr().err
    assert error.count('\n') == 1
    assert 'hf download sapientinc/HRM-checkpoint-ARC-2 --local-dir DIR' in error
    source = _write(tmp_path / 'a')
    fake.snapshot_download = lambda name, revision, allow_patterns: str(source)
    assert hub.local_path('sapientinc/HRM-checkpoint-ARC-2') == str(source)
    assert (
        commands.exit_code(convert.main, 'sapientinc/HRM-checkpoint-ARC-2', tmp_path / 'ours') == 0
    )


def _fixture(name):
    folder = FIXTURES / ('core' if name.startswith('forward') else 'variants')
    config = json.loads((folder / f'{name}.json').read_text())['config']
    return folder, config, np.load(folder / f'{name}.npz')


def _write_original(path, name):
    """Writes a checkpoint of the original: its file (kept of one), or one with its tensors."""
    folder = FIXTURES / 'core'
    if (folder / f'{name}.pt').exists():
        path.write_bytes((folder / f'{name}.pt').read_bytes())
        return
    bfloat16 = name == 'forward_bf16'  # the weights of another, initial states as bfloat16
    arrays = np.load(folder / f'{"forward_rope" if bfloat16 else name}.weights.npz')
    state = {key: arrays[key] for key in arrays.files}
    if bfloat16:
        state |= {k: state[k].astype(ml_dtypes.bfloat16) for k in state if k.endswith('_init')}
    torch_writer.write_torch(path, state)


def _differences(saved, arrays, batch, step_name, first, q_names):
    """Largest differences of logits and Q over the recorded ACT steps."""
    model, weights = saved.config.model, saved.weights
    rows = puzzle_table.puzzle_rows(weights, arrays[f'{batch}/puzzle_identifiers'])
    inputs = arrays[f'{batch}/inputs']
    latent = starts.fresh_latent(model, weights, len(inputs))
    worst, number = 0.0, first
    step = jax.jit(lambda z: hrm.act_step(model, weights, z, inputs, rows))
    while f'{step_name}{number}/logits' in arrays:
        latent, outputs = step(latent)
        expected = [arrays[f'{step_name}{number}/{name}'] for name in ('logits', *q_names)]
        actual = (outputs.logits, outputs.q_halt, outputs.q_continue)
        worst = max(worst, *(np.abs(a - e).max() for a, e in zip(actual, expected, strict=True)))
        number += 1
    assert number > first + 2
    return worst


@pytest.mark.parametrize('name', CORE)
def test_original_checkpoints_give_the_recorded_outputs(tmp_path, name):
    _, config, arrays = _fixture(f'forward_{name}')
    (tmp_path / 'all_config.yaml').write_text(json.dumps(config))
    source = tmp_path / 'step_1'
    _write_original(source, f'forward_{name}')
    formats.save(formats.load(tmp_path), tmp_path / 'ours', 'orbax')
    saved = formats.load(tmp_path / 'ours')
    names = ('q_halt_logits', 'q_continue_logits')
    assert _differences(saved, arrays, 'batch', 'step', 1, names) < 1e-4
    formats.save(saved, tmp_path / 'back', 'torch')
    back = torch_reader.read_torch(tmp_path / 'back' / 'step_1')
    _assert_same_states(back, torch_reader.read_torch(source))
    assert 'torch' not in sys.modules


def test_the_bfloat16_checkpoint_step_by_step(tmp_path):
    _, config, arrays = _fixture('forward_bf16')
    (tmp_path / 'all_config.yaml').write_text(json.dumps(config))
    _write_original(tmp_path / 'step_1', 'forward_bf16')
    saved = formats.load(tmp_path)
    model, weights = saved.config.model, saved.weights
    assert model.forward_dtype == 'bfloat16'
    rows = puzzle_table.puzzle_rows(weights, arrays['batch/puzzle_identifiers'])
    latent = starts.fresh_latent(model, weights, 4)
    step = jax.jit(lambda z: hrm.act_step(model, weights, z, arrays['batch/inputs'], rows))
    for number in range(1, 5):
        _, outputs = step(latent)
        expected = arrays[f'step{number}/logits']
        # Logits reach 4 in size, where bfloat16 counts in steps of 1/64 to 1/32.
        np.testing.assert_allclose(
            np.float32(outputs.logits), expected, rtol=0, atol=0.04, err_msg=f'step {number}'
        )
        for q, name in ((outputs.q_halt, 'q_halt'), (outputs.q_continue, 'q_continue')):
            np.testing.assert_allclose(q, arrays[f'step{number}/{name}_logits'], rtol=0, atol=0.04)
        dtype = np.dtype(ml_dtypes.bfloat16)
        latent = dataclasses.replace(
            latent,
            high=arrays[f'step{number}/z_H'].astype(dtype),
            low=arrays[f'step{number}/z_L'].astype(dtype),
        )


@pytest.mark.parametrize('name', VARIANTS)
def test_relatives_convert(tmp_path, name):
    _, config, arrays = _fixture(name)
    params = {key[len('param/') :]: arrays[key] for key in arrays.files if key[:6] == 'param/'}
    prefix = '_orig_mod.model.'
    state = {prefix + key: array for key, array in params.items()}
    _write(tmp_path / 'a', state, config)
    formats.save(formats.load(tmp_path / 'a'), tmp_path / 'ours', 'orbax')
    saved = formats.load(tmp_path / 'ours')
    formats.save(saved, tmp_path / 'b', 'torch')
    _assert_same_states(torch_reader.read_torch(tmp_path / 'b' / 'step_12'), state)
    formats.save(saved, tmp_path / 'hf', 'huggingface')
    for folder in ('b', 'hf'):  # the configuration went through all_config.yaml, config.json
        again = formats.load(tmp_path / folder)
        assert again.config.model == saved.config.model
        assert again.config.act == saved.config.act
    window = 'last_cycle' if name.startswith('trm') else 'full'
    window = {'trm_repo_hrm_mlp_t': 'one_step', 'trm_baseline': 'full'}.get(name, window)
    assert saved.config.model.gradient_window == window
    if name in RUN_TOO:
        worst = _differences(again, arrays, 'in/eval', 'eval/step', 0, ('q_halt', 'q_continue'))
        assert worst < 3e-4


def test_names_and_shapes_of_the_full_size_model():
    shapes = json.loads((FIXTURES / 'core' / 'full_size_shapes.json').read_text())['sudoku']
    model = ModelConfig(vocab_size=11, seq_len=81, num_puzzle_identifiers=1)
    expected = [(name, tuple(shape)) for name, shape, _, _ in shapes['state_dict']]
    prefix = '_orig_mod.model.inner.'
    assert [(prefix + entry.name, entry.shape) for entry in tensor_names.entries(model)] == expected


def test_a_safetensors_file_carries_its_configuration(tmp_path):
    saved = formats.load(_write(tmp_path / 'a'))
    path = formats.save(saved, tmp_path / 'x.safetensors', 'safetensors')
    _, metadata = safetensors_io.read_safetensors(path)
    assert json.loads(metadata['hrm_jax'])['model']['hidden_size'] == 16
    assert formats.load(path).config == saved.config
