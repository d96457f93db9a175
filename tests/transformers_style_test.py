"""Tests of HrmConfig, HrmModel and HrmForCausalLM, and of fine-tuning on other puzzles."""

import dataclasses
import json
import pathlib
import re
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hrm_jax
from hrm_jax import HrmConfig, HrmForCausalLM, HrmModel, partitioning
from hrm_jax.checkpoint import compatible, weights_only
from hrm_jax.config import ExperimentConfig
from hrm_jax.errors import CheckpointError, ConfigError
from hrm_jax.interop import formats, safetensors_io

CONFIG = {
    'model_type': 'hrm', 'vocab_size': 11, 'hidden_size': 16, 'num_hidden_layers': 1,
    'num_attention_heads': 2, 'intermediate_size': 256, 'max_position_embeddings': 16,
    'h_cycles': 1, 'l_cycles': 1, 'puzzle_emb_ndim': 16, 'num_puzzle_identifiers': 3,
    'halt_max_steps': 3, 'torch_dtype': 'float32', 'architectures': ['HrmForCausalLM'],
}  # fmt: skip
IDS = jnp.asarray(np.random.default_rng(0).integers(1, 11, (2, 16)), jnp.int32)


@pytest.fixture(scope='module')
def model():
    made = HrmForCausalLM(HrmConfig.from_dict(CONFIG), seed=1)
    # Weights as after training: not all rows halt alike, and puzzles differ.
    keys = jax.random.split(jax.random.key(2), 2)
    kernel = jax.random.normal(keys[0], (16, 2))
    made.weights = made.weights.replace(
        params=made.weights.params | {'q_head': {'kernel': kernel, 'bias': jnp.zeros(2)}},
        puzzle_table=jax.random.normal(keys[1], (3, 16)),
    )
    return made


def _folder(tmp_path, inner=256, **changes):
    """A transformers-style folder, written with names and shapes of its own."""
    random = np.random.default_rng(0)
    shapes = {'H_init': (16,), 'L_init': (16,), 'embed_tokens.weight': (11, 16),
              'lm_head.weight': (11, 16), 'q_head.weight': (2, 16), 'q_head.bias': (2,),
              'puzzle_emb.weight': (3, 16)}  # fmt: skip
    for level in ('H_level', 'L_level'):
        shapes |= {f'{level}.layers.0.self_attn.qkv_proj.weight': (48, 16),
                   f'{level}.layers.0.self_attn.o_proj.weight': (16, 16),
                   f'{level}.layers.0.mlp.gate_up_proj.weight': (2 * inner, 16),
                   f'{level}.layers.0.mlp.down_proj.weight': (16, inner)}  # fmt: skip
    state = {f'model.inner.{n}': random.normal(size=s).astype('f4') for n, s in shapes.items()}
    folder = tmp_path / 'theirs'
    folder.mkdir()
    safetensors_io.write_safetensors(folder / 'model.safetensors', state, {'format': 'pt'})
    values = {k: v for k, v in (CONFIG | changes).items() if v is not None}
    (folder / 'config.json').write_text(json.dumps(values))
    return folder, state


def test_a_folder_of_theirs_loads_runs_and_comes_back(tmp_path):
    folder, state = _folder(tmp_path)
    loaded = HrmForCausalLM.from_pretrained(folder)
    assert loaded.experiment.model.forward_dtype == 'float32'
    assert np.isfinite(loaded(IDS).logits).all()
    loaded.save_pretrained(tmp_path / 'again')
    again, _ = safetensors_io.read_safetensors(tmp_path / 'again' / 'model.safetensors')
    assert set(again) == set(state)
    assert all(again[name].tobytes() == array.tobytes() for name, array in state.items())
    config = json.loads((tmp_path / 'again' / 'config.json').read_text())
    for name, value in CONFIG.items():
        assert config['dtype' if name == 'torch_dtype' else name] == value
    assert 'HrmForCausalLM.from_pretrained' in (tmp_path / 'again' / 'README.md').read_text()
    HrmModel.from_pretrained(folder).save_pretrained(tmp_path / 'bare')  # prefix without model.
    bare, _ = safetensors_io.read_safetensors(tmp_path / 'bare' / 'model.safetensors')
    assert set(bare) == {name.removeprefix('model.') for name in state}
    np.testing.assert_array_equal(
        HrmModel.from_pretrained(tmp_path / 'bare')(IDS).logits, loaded(IDS).logits
    )


@pytest.mark.parametrize(
    ('inner', 'stated', 'expected'),
    [(256, 256, 0), (512, 512, 512), (64, 64, 64), (512, None, 512)],
)
def test_inner_sizes_by_either_rule(tmp_path, inner, stated, expected):
    folder, _ = _folder(tmp_path, inner, intermediate_size=stated)
    config = HrmForCausalLM.from_pretrained(folder).experiment
    assert (config.model.intermediate_size, config.model.mlp_dim) == (expected, inner)


def test_the_inner_size_of_the_wrong_rule_is_refused(tmp_path):
    folder, _ = _folder(tmp_path, 256, intermediate_size=512)
    with pytest.raises(CheckpointError, match=r'inner size of 512.*has 256.*gate_up_proj'):
        HrmForCausalLM.from_pretrained(folder)


def test_config_defaults_and_round_trip(tmp_path):
    assert hrm_jax.HrmConfig is HrmConfig
    default = HrmConfig()
    assert (default.h_layers, default.intermediate_size, default.dtype) == (4, 2048, 'bfloat16')
    assert HrmConfig(intermediate_size=1536).to_experiment().model.intermediate_size == 0
    assert default.to_experiment().model.mlp_dim == 2048
    tiny = HrmConfig(h_layers=2)
    tiny.save_pretrained(tmp_path)
    assert HrmConfig.from_pretrained(tmp_path) == tiny
    shared = ExperimentConfig.from_dict({
        'model': {'levels': 'shared', 'H_layers': 0, 'vocab_size': 5, 'seq_len': 9,
                  'gradient_window': 'last_cycle', 'num_puzzle_identifiers': 2},
        'act': {'halting': 'halt_only'}, 'optimizer': {'lr': 3e-4},
    })  # fmt: skip
    text = HrmConfig.from_experiment(shared).to_json_string()
    assert HrmConfig.from_dict(json.loads(text)).to_experiment() == shared
    with pytest.raises(CheckpointError, match='model_type'):
        HrmConfig.from_dict({'model_type': 'llama'})


def test_one_call_is_one_act_step(model):
    out = model(IDS, [0, 1], output_hidden_states=True)
    assert out.logits.shape == (2, 16, 11)
    assert out.loss is None
    assert [state.shape for state in out.hidden_states] == [(2, 16, 16)] * 3
    assert out.carry.steps.tolist() == [1, 1]
    assert out.carry.halted.tolist() == [False, False]  # eval: at the last step only
    # Unfinished rows go on with their puzzle and do not look at the new one.
    second = model(IDS[::-1], [1, 0], carry=out.carry)
    np.testing.assert_array_equal(second.carry.batch.inputs, IDS)
    third = model(IDS, carry=second.carry)
    assert third.carry.halted.all()
    fresh = model(IDS[::-1], [1, 0], carry=third.carry)
    np.testing.assert_array_equal(fresh.logits, model(IDS[::-1], [1, 0]).logits)
    assert not np.allclose(model(IDS, [0, 1]).logits, model(IDS, [2, 1]).logits)


def test_the_loss_does_not_shift_the_labels(model):
    labels = jnp.argmax(model(IDS).logits, -1)
    right, shifted = model(IDS, labels=labels), model(IDS, labels=jnp.roll(labels, 1, axis=1))
    assert right.loss < shifted.loss
    halves = [float(model(IDS[i : i + 1], labels=labels[i : i + 1]).loss) for i in (0, 1)]
    np.testing.assert_allclose(right.loss, np.mean(halves), rtol=1e-5)
    masked = model(IDS, labels=labels.at[:, 3].set(-100)).loss
    assert masked != right.loss


def test_training_with_a_carry_learns(model):
    labels = (IDS % 9) + 1
    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(params, state, carry, key):
        def loss(params):
            out = model(IDS, labels=labels, carry=carry, params=params, train=True, rng=key)
            return out.loss, out.carry

        (value, carry), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, carry, value

    params, carry = model.weights.params, model.initial_carry({'input_ids': IDS})
    state, values = optimizer.init(params), []
    for i in range(12):
        params, state, carry, value = step(params, state, carry, jax.random.key(i))
        values.append(float(value))
    assert values[-1] < 0.7 * values[0]
    with pytest.raises(ValueError, match='rng'):
        model(IDS, labels=labels, train=True)
    rows = jax.grad(lambda table: model(IDS, [2, 2], labels, puzzle_table=table).loss)(
        model.weights.puzzle_table
    )
    assert np.abs(rows[2]).max() > 0
    assert np.abs(rows[:2]).max() == 0


def test_short_and_long_rows(model):
    padded = jnp.pad(IDS[:, :10], ((0, 0), (0, 6)))
    np.testing.assert_array_equal(model(IDS[:, :10]).logits, model(padded).logits)
    with pytest.warns(UserWarning, match='is dropped'):
        cut = model(jnp.pad(IDS, ((0, 0), (0, 3)))).logits
    np.testing.assert_array_equal(cut, model(IDS).logits)
    with pytest.raises(ValueError, match=r'\[boards, cells\]'):
        model(IDS[0])


def test_generate_fills_the_board_and_stops_where_q_says(model):
    ids = jnp.asarray(np.random.default_rng(1).integers(1, 11, (32, 16)), jnp.int32)
    puzzles = jnp.arange(32) % 3
    first = model(ids, puzzles)
    model = HrmForCausalLM.from_saved(model.saved())
    # Half of the rows shall halt at the first step.
    bias = jnp.stack([-jnp.median(first.q_halt_logits - first.q_continue_logits), 0.0])
    params = model.weights.params
    params = params | {'q_head': params['q_head'] | {'bias': bias}}
    model.weights = model.weights.replace(params=params)
    out = model.generate(ids, puzzles, max_new_tokens=5, return_dict_in_generate=True)
    assert out.sequences.shape == ids.shape
    assert set(out.steps.tolist()) <= {1, 2, 3}
    assert len(set(out.steps.tolist())) > 1  # otherwise this test shows nothing
    carry = None
    for number in range(1, 4):
        step = model(ids, puzzles, carry=carry)
        carry = step.carry
        rows = out.steps == number
        np.testing.assert_array_equal(out.sequences[rows], step.logits.argmax(-1)[rows])
        np.testing.assert_allclose(out.q_halt_logits[rows], step.q_halt_logits[rows], atol=1e-5)
        stops = (step.q_halt_logits > step.q_continue_logits) | (number == 3)
        assert not (stops & (out.steps > number)).any()
    np.testing.assert_array_equal(model.generate(ids, puzzles), out.sequences)
    assert model.generate(ids, max_steps=1).shape == ids.shape


def test_types_and_devices(model, tmp_path):
    model.save_pretrained(tmp_path)
    config = {'dtype': 'bfloat16'}
    full = HrmForCausalLM.from_pretrained(tmp_path, **config)
    half = HrmForCausalLM.from_pretrained(
        tmp_path, param_dtype='bfloat16', mesh=partitioning.make_mesh(), **config
    )
    assert jax.tree.leaves(half.weights.params)[0].dtype == jnp.bfloat16
    np.testing.assert_array_equal(
        np.float32(half(IDS, [0, 1]).logits), np.float32(full(IDS, [0, 1]).logits)
    )


@pytest.mark.parametrize('choice', ['mean', 'zeros', 'overlap'])
@pytest.mark.parametrize('rows', [2, 5])
def test_tables_of_another_size(model, tmp_path, choice, rows):
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r'has 3 rows, .* mean .* zeros, or overlap'):
        HrmForCausalLM.from_pretrained(tmp_path, num_puzzle_identifiers=rows)
    other = HrmForCausalLM.from_pretrained(
        tmp_path, num_puzzle_identifiers=rows, puzzle_table=choice
    )
    old = np.asarray(model.weights.puzzle_table)
    expected = np.zeros((rows, 16), np.float32)
    if choice == 'mean':
        expected[:] = old.mean(0)
    if choice == 'overlap':
        expected[: min(rows, 3)] = old[:rows]
    np.testing.assert_allclose(other.weights.puzzle_table, expected, atol=1e-6)
    assert other.config.num_puzzle_identifiers == rows
    with pytest.raises(ValueError, match='must be one of error'):
        compatible.resize_table(old, rows, 'median')


def test_uploads_what_save_pretrained_writes(model, monkeypatch):
    calls = []

    class HfApi:
        def __init__(self, token=None):
            calls.append(token)

        def create_repo(self, repo_id, private, exist_ok):
            calls.append((repo_id, private))

        def upload_folder(self, folder_path, repo_id, commit_message):
            import os

            calls.append(sorted(os.listdir(folder_path)))
            return 'https://address'

    monkeypatch.setitem(sys.modules, 'huggingface_hub', types.SimpleNamespace(HfApi=HfApi))
    assert model.push_to_hub('me/hrm', private=True) == 'https://address'
    assert calls == [None, ('me/hrm', True), ['README.md', 'config.json', 'model.safetensors']]


def test_frozen_weights_train_the_table_only(tmp_path):
    from hrm_jax import train_step
    from hrm_jax.run import plan, start
    from tests import tiny_run

    data = tiny_run.write_dataset(tmp_path / 'data')
    values = tiny_run.values(data, optimizer={'freeze_weights': True, 'ema_decay': 0.0})
    config = ExperimentConfig.from_dict(values)
    source = HrmForCausalLM(dataclasses.replace(
        config, model=config.model.for_dataset(
            vocab_size=tiny_run.VOCAB, seq_len=tiny_run.CELLS, num_puzzle_identifiers=4)
    ), seed=5)  # fmt: skip
    table = source.weights.puzzle_table + 1
    source.weights = source.weights.replace(puzzle_table=table)
    other = weights_only.write_model(tmp_path / 'other', source.saved())
    workdir = tmp_path / 'run'

    made = plan.make_plan(config)
    with pytest.raises(CheckpointError, match='has 4 rows, but the data has 1'):
        start.begin(made, workdir, str(other), print)
    config = ExperimentConfig.from_dict(tiny_run.values(
        data, optimizer={'freeze_weights': True, 'ema_decay': 0.0},
        train={'puzzle_table': 'mean', **values['train']},
    ))  # fmt: skip
    made = plan.make_plan(config)
    state = start.begin(made, workdir, str(other), print).state
    np.testing.assert_array_equal(state.weights.puzzle_table, np.ones((1, 16)))
    before = jax.tree.map(np.asarray, state.weights.params)
    step = train_step.make_train_step(made.config, made.total_steps, made.mesh)
    batch = next(iter_batches(made))
    state, _ = step(state, batch)
    jax.tree.map(np.testing.assert_array_equal, state.weights.params, before)
    assert (np.asarray(state.weights.puzzle_table) != 1).all()
    with pytest.raises(CheckpointError, match=r'weights only.*--checkpoint'):
        start.begin(made, tmp_path / 'other', '', print)
    with pytest.raises(ConfigError, match='freeze_weights'):
        ExperimentConfig.from_dict(
            {'model': {'puzzle_emb_ndim': 0}, 'optimizer': {'freeze_weights': True}}
        )


def iter_batches(made):
    from hrm_jax.data import pipeline

    rows = pipeline.train_iterator(made.train_data, made.config.train.global_batch_size, 0)
    for batch in rows:
        yield partitioning.put_global(batch, made.mesh)


def test_the_examples_of_the_documentation_run(tmp_path, monkeypatch, capsys):
    text = (pathlib.Path(__file__).parent.parent / 'docs/python_api.md').read_text()
    examples = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    assert len(examples) >= 4
    monkeypatch.chdir(tmp_path)
    config = HrmConfig.from_dict(CONFIG | {'max_position_embeddings': 81})
    HrmForCausalLM(config).save_pretrained('runs/theirs')
    names = {}
    for example in examples:
        exec(example, names)
    assert capsys.readouterr().out.count('[') > 9
    assert names['model'].weights.puzzle_table.shape == (50, 16)
    assert np.isfinite(names['loss'])


def test_formats_take_a_saved_model(model, tmp_path):
    model.save_pretrained(tmp_path / 'hf')
    saved = formats.load(tmp_path / 'hf')
    assert saved.meta['source']['naming'] == 'transformers'
    path = formats.save(saved, tmp_path / 'torch', 'torch')
    again = HrmForCausalLM.from_pretrained(path)
    np.testing.assert_array_equal(again(IDS, [0, 2]).logits, model(IDS, [0, 2]).logits)
