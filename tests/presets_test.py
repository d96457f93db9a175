"""Weights of EqR and SIC: what tensors show, and that the rest is asked for and never guessed."""

import jax
import numpy as np
import pytest

from hrm_jax import eval_step, partitioning, train_state
from hrm_jax.checkpoint.store import SavedModel
from hrm_jax.config import ActConfig, ExperimentConfig, ModelConfig
from hrm_jax.errors import CheckpointError
from hrm_jax.interop import (
    formats,
    original_config,
    safetensors_io,
    state_dict,
    transformers_style,
)

SIZES = {
    'vocab_size': 5, 'seq_len': 4, 'num_puzzle_identifiers': 1, 'hidden_size': 8, 'num_heads': 2,
    'H_layers': 0, 'L_layers': 1, 'forward_dtype': 'float32', 'puzzle_emb_ndim': 0,
    'levels': 'shared', 'gradient_window': 'last_cycle', 'H_cycles': 3, 'L_cycles': 6,
    'block': 'token_mixing', 'pos_encodings': 'none',
}  # fmt: skip
EQR = {'initial_state': 'random', 'update_rate': 0.8, 'update_noise': 0.05, 'low_start_std': 8.0}
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


@pytest.mark.parametrize('kind', ['safetensors', 'huggingface'])
@pytest.mark.parametrize('model', [EQR, SIC], ids=['eqr', 'sic'])
def test_formats_that_keep_our_configuration_keep_these_models(tmp_path, model, kind):
    saved = saved_model(**model)
    loaded = formats.load(formats.save(saved, tmp_path / 'out', kind))
    assert_equal_weights(loaded, saved)
    assert loaded.config.model == saved.config.model


def test_what_no_original_has_is_refused(tmp_path):
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
