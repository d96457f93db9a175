"""Weights of EqR, SIC and URM: what tensors show; the rest is asked for and never guessed."""

import dataclasses

import jax
import ml_dtypes
import numpy as np
import pytest

from hrm_jax import eval_step, partitioning, train_state
from hrm_jax.checkpoint.store import SavedModel
from hrm_jax.config import ActConfig, ExperimentConfig, ModelConfig
from hrm_jax.errors import CheckpointError
from hrm_jax.interop import (
    architecture,
    formats,
    original_config,
    presets,
    safetensors_io,
    state_dict,
    transformers_style,
)
from hrm_jax.model import hrm, puzzle_table, starts

SIZES = {
    'vocab_size': 5, 'seq_len': 4, 'num_puzzle_identifiers': 1, 'hidden_size': 8, 'num_heads': 2,
    'H_layers': 0, 'L_layers': 1, 'forward_dtype': 'float32', 'puzzle_emb_ndim': 0,
    'levels': 'shared', 'gradient_window': 'last_cycle', 'H_cycles': 3, 'L_cycles': 6,
    'block': 'token_mixing', 'pos_encodings': 'none',
}  # fmt: skip
EQR = {'initial_state': 'random', 'update_rate': 0.8, 'update_noise': 0.05, 'low_start_std': 8.0}
URM = {'levels': 'single', 'block': 'attention', 'pos_encodings': 'rope', 'puzzle_emb_ndim': 8,
       'gated_unit': 'conv_swiglu', 'conv_dtype': 'bfloat16', 'H_cycles': 2, 'num_heads': 1,
       'L_layers': 2}  # fmt: skip
SIC = {'register_tokens': 1, 'head_bias': True, 'gated_unit': 'sigmoid_rms'}


def saved_model(**model) -> SavedModel:
    config = ExperimentConfig(
        model=ModelConfig(**SIZES | model), act=ActConfig(halting='halt_only', halt_max_steps=4)
    )
    state = train_state.create(config, partitioning.make_mesh(jax.devices()[:1]))
    weights = jax.tree.map(np.asarray, state.weights)
    return SavedModel(0, weights, None, config, {})


def bare(saved: SavedModel, path) -> str:
    """A file with the tensors in the original's names and nothing else."""
    tensors = state_dict.to_official(saved.weights, saved.config.model, prefix='model.inner.')
    safetensors_io.write_safetensors(path / 'weights.safetensors', tensors)
    return str(path / 'weights.safetensors')


def assert_equal_weights(got: SavedModel, want: SavedModel, but: str = ''):
    for (path, one), (_, other) in zip(
        *(jax.tree_util.tree_flatten_with_path(s.weights)[0] for s in (got, want)), strict=True
    ):
        if not but or but not in jax.tree_util.keystr(path):
            np.testing.assert_array_equal(one, other)


def test_eqr_asks_for_what_its_tensors_do_not_show(tmp_path):
    saved = saved_model(**EQR)
    path = bare(saved, tmp_path)
    with pytest.raises(CheckpointError, match='update_rate, update_noise, high_start_std, low_'):
        formats.load(path)
    loaded = formats.load(path, preset='eqr')
    assert_equal_weights(loaded, saved)
    model = loaded.config.model
    assert (model.initial_state, model.update_rate, model.update_noise) == ('random', 0.95, 0.01)
    assert (model.levels, model.H_cycles, model.L_cycles) == ('shared', 3, 6)
    assert loaded.config.act.halting == 'halt_only'
    for other in ('sic', 'cgar'):
        with pytest.raises(CheckpointError, match=r"initial_state='fixed', but .* 'random'"):
            formats.load(path, preset=other)


def test_the_configuration_of_eqr_is_read_and_written(tmp_path):
    saved = saved_model(**EQR)
    written = formats.save(saved, tmp_path / 'step_7', 'torch')
    values = original_config.read_mapping(tmp_path / original_config.FILE_NAME)
    assert values['arch']['lambda_'] == 0.8
    assert values['arch']['L_init_std'] == 8.0
    loaded = formats.load(written)
    assert_equal_weights(loaded, saved)
    assert loaded.config.model == saved.config.model
    with pytest.raises(CheckpointError, match='leave out --preset eqr'):
        formats.load(written, preset='eqr')
    del values['arch']['noise_scale']
    original_config.write_yaml(tmp_path / original_config.FILE_NAME, values)
    with pytest.raises(CheckpointError, match='do not show update_noise'):
        formats.load(written)


def test_sic_is_read_under_its_own_names(tmp_path):
    saved = saved_model(**SIC)
    saved.weights.params['q_head']['kernel'] = np.stack([np.arange(8.0), np.zeros(8)], 1).astype(
        np.float32
    )
    path = bare(saved, tmp_path)
    names = set(safetensors_io.read_safetensors(path)[0])
    assert 'model.inner.reasoning.0.attn.up_proj.weight' in names
    with pytest.raises(CheckpointError, match='gated_unit'):
        formats.load(path)
    loaded = formats.load(path, preset='sic')
    assert_equal_weights(loaded, saved)
    model = loaded.config.model
    assert (model.gated_unit, model.register_tokens, model.seq_len) == ('sigmoid_rms', 1, 4)
    assert (model.H_cycles, model.L_cycles, model.head_bias) == (6, 9, True)


def urm_tensors(layers=2, dim=32, vocab=5, inner=256) -> dict[str, np.ndarray]:
    """Random tensors under the names of UbiquantAI/URM models/urm/urm.py."""
    shapes = {
        'init_hidden': (dim,), 'embed_tokens.embedding_weight': (vocab, dim),
        'lm_head.weight': (vocab, dim), 'q_head.weight': (2, dim), 'q_head.bias': (2,),
        'puzzle_emb.weights': (1, dim),
    }  # fmt: skip
    for i in range(layers):
        shapes |= {f'layers.{i}.{name}': shape for name, shape in {
            'self_attn.qkv_proj.weight': (3 * dim, dim), 'self_attn.o_proj.weight': (dim, dim),
            'mlp.gate_up_proj.weight': (2 * inner, dim), 'mlp.down_proj.weight': (dim, inner),
            'mlp.dwconv.weight': (inner, 1, 2), 'mlp.dwconv.bias': (inner,),
        }.items()}  # fmt: skip
    rng = np.random.default_rng(0)
    return {
        f'_orig_mod.model.inner.{name}': rng.normal(0, 0.3, shape).astype(
            ml_dtypes.bfloat16 if 'dwconv' in name else np.float32
        )
        for name, shape in shapes.items()
    }


def urm_step(tensors, tokens_S, cycles: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits and Q of one ACT step on one board, by the original's formulas; one head."""
    p = {name.removeprefix('_orig_mod.model.inner.'): np.asarray(x, np.float64)
         for name, x in tensors.items()}  # fmt: skip
    dim = len(p['init_hidden'])
    silu = lambda x: x / (1 + np.exp(-x))  # noqa: E731
    norm = lambda x: x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)  # noqa: E731
    x = np.concatenate([p['puzzle_emb.weights'], p['embed_tokens.embedding_weight'][tokens_S]])
    x *= np.sqrt(dim)
    angles = np.arange(len(x))[:, None] * 10000.0 ** -(np.arange(0, dim, 2) / dim)
    cos, sin = np.tile(np.cos(angles), 2), np.tile(np.sin(angles), 2)

    def rotated(v):
        half = np.concatenate([-v[:, dim // 2 :], v[:, : dim // 2]], 1)
        return v * cos + half * sin

    h = np.broadcast_to(p['init_hidden'], x.shape)
    for _ in range(cycles):
        h = h + x
        for i in range(2):
            q, k, v = np.split(h @ p[f'layers.{i}.self_attn.qkv_proj.weight'].T, 3, 1)
            scores = np.exp(rotated(q) @ rotated(k).T / np.sqrt(dim))
            mixed = scores / scores.sum(1, keepdims=True) @ v
            h = norm(h + mixed @ p[f'layers.{i}.self_attn.o_proj.weight'].T)
            gate, up = np.split(h @ p[f'layers.{i}.mlp.gate_up_proj.weight'].T, 2, 1)
            u, w = silu(gate) * up, p[f'layers.{i}.mlp.dwconv.weight'][:, 0]
            earlier = np.concatenate([np.zeros_like(u[:1]), u[:-1]])
            u = silu(p[f'layers.{i}.mlp.dwconv.bias'] + w[:, 0] * earlier + w[:, 1] * u)
            h = norm(h + u @ p[f'layers.{i}.mlp.down_proj.weight'].T)
    return h[1:] @ p['lm_head.weight'].T, h[0] @ p['q_head.weight'].T + p['q_head.bias']


def test_urm_is_read_under_its_own_names(tmp_path):
    tensors = urm_tensors()
    path = tmp_path / 'weights.safetensors'
    safetensors_io.write_safetensors(path, tensors)
    with pytest.raises(CheckpointError, match='do not show num_heads, H_cycles, L_cycles'):
        formats.load(path, seq_len=4)
    with pytest.raises(CheckpointError, match=r"with gated_unit='swiglu', but .* 'conv_swiglu'"):
        presets.settings('cgar', architecture.infer_model(state_dict.unify_names(tensors)[0]) | {
            'levels': architecture.Finding('shared', ''),
            'block': architecture.Finding('token_mixing', ''),
        })  # fmt: skip
    loaded = formats.load(path, preset='urm', seq_len=4, forward_dtype='float32')
    model = loaded.config.model
    assert (model.levels, model.L_layers, model.gated_unit) == ('single', 2, 'conv_swiglu')
    assert (model.H_cycles, model.L_cycles, model.prefix_len) == (2, 6, 1)
    assert (model.conv_dtype, loaded.config.act.halting) == ('bfloat16', 'halt_only')
    for name, array in state_dict.to_state(loaded).items():
        assert array.dtype == tensors[name].dtype
        np.testing.assert_array_equal(array, tensors[name])

    # Two cycles: random weights amplify rounding from each to the next.
    few = {'num_heads': 1, 'L_cycles': 1, 'conv_dtype': 'forward'}
    model = dataclasses.replace(model, **few)
    inputs = np.array([[1, 2, 3, 4]])
    weights = state_dict.from_official(tensors, model)
    rows = puzzle_table.puzzle_rows(weights, np.zeros(1, np.int32))
    _, got = hrm.act_step(model, weights, starts.fresh_latent(model, weights, 1), inputs, rows)
    logits, q = urm_step(tensors, inputs[0], cycles=2)
    np.testing.assert_allclose(got.logits[0], logits, atol=1e-4)
    np.testing.assert_allclose([got.q_halt[0], got.q_continue[0]], q, atol=1e-4)


def test_the_configuration_of_urm_is_read_and_written(tmp_path):
    saved = saved_model(**URM)
    written = formats.save(saved, tmp_path / 'step_7', 'torch')
    values = original_config.read_mapping(tmp_path / original_config.FILE_NAME)
    assert values['arch']['name'] == 'urm.urm@URM'
    assert (values['arch']['num_layers'], values['arch']['loops']) == (2, 4)
    loaded = formats.load(written)
    assert_equal_weights(loaded, saved)
    assert loaded.config.model == saved.config.model
    assert loaded.config.act == saved.config.act
    # As its pretrain.py writes them: what its class ignores is no reason to refuse.
    values['arch'] |= {'profile': True, 'loop_deltas': [0, 8], 'ema': True, 'ema_rate': 0.999}
    original_config.write_yaml(tmp_path / original_config.FILE_NAME, values)
    assert formats.load(written).config.model == saved.config.model


@pytest.mark.parametrize('kind', ['safetensors', 'huggingface'])
@pytest.mark.parametrize('model', [EQR, SIC, URM], ids=['eqr', 'sic', 'urm'])
def test_formats_that_keep_our_configuration_keep_these_models(tmp_path, model, kind):
    saved = saved_model(**model)
    loaded = formats.load(formats.save(saved, tmp_path / 'out', kind))
    assert_equal_weights(loaded, saved)
    assert loaded.config.model == saved.config.model


def test_what_no_original_has_is_refused(tmp_path):
    # Two states; URM has one.
    urm = saved_model(gated_unit='conv_swiglu', block='attention', pos_encodings='rope')
    with pytest.raises(CheckpointError, match='no original has such a parameter'):
        formats.save(urm, tmp_path / 'step_1', 'torch')
    damped = saved_model(update_rate=0.5)
    with pytest.raises(CheckpointError, match='update_rate'):
        formats.save(damped, tmp_path / 'step_1', 'torch')
    assert not list(tmp_path.iterdir())


def test_models_with_draws_run_without_a_key_in_the_style_of_transformers(tmp_path):
    """Rows draw by their number, steps by theirs: a call for a call, and ``generate`` alike."""
    saved = saved_model(**EQR)
    written = formats.save(saved, tmp_path / 'out', 'huggingface')
    model = transformers_style.HrmForCausalLM.from_pretrained(written)
    inputs = np.array([[1, 2, 3, 4], [4, 3, 2, 1]])
    first = model(inputs)
    second = model(inputs, carry=first.carry)
    assert float(np.abs(first.logits - second.logits).max()) > 1e-4
    np.testing.assert_array_equal(first.logits, model(inputs).logits)
    want = eval_step.answers(
        saved.config, saved.weights, inputs, np.zeros(2, np.int32), [1, 2], jax.random.key(0)
    )
    np.testing.assert_allclose(first.logits, want[0].logits, atol=1e-5)
    np.testing.assert_allclose(second.logits, want[1].logits, atol=1e-5)
