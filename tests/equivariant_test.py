"""A symbol axis: renaming the symbols renames the answer, in training and evaluation."""

import collections
import dataclasses
import functools
import importlib
import json
import typing

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import flop_counts
from hrm_jax import act, anchors, eval_step, train_state, train_step
from hrm_jax.config import (
    ActConfig,
    EvalConfig,
    ExperimentConfig,
    LossConfig,
    ModelConfig,
    RolloutConfig,
    TrainConfig,
)
from hrm_jax.config import model as model_config
from hrm_jax.errors import CheckpointError, ConfigError
from hrm_jax.interop import architecture, formats, original_config, state_dict, tensor_names
from hrm_jax.model import attention, flops, starts, symbols
from hrm_jax.tasks import Arc, Maze, Sudoku
from hrm_jax.types import Batch, Outputs, Weights
from tests import commands, torch_files

SIZES = {
    'vocab_size': 6, 'seq_len': 9, 'num_puzzle_identifiers': 1, 'hidden_size': 16, 'num_heads': 2,
    'H_cycles': 2, 'L_cycles': 1, 'H_layers': 0, 'L_layers': 1, 'puzzle_emb_ndim': 0,
    'intermediate_size': 32, 'gradient_window': 'last_cycle', 'forward_dtype': 'float32',
    'symbol_heads': 2, 'symbol_head_size': 4,
}  # fmt: skip
FIELDS = {'levels': 'shared', 'symbol_input': 'roles'}
SE_RRM = {'levels': 'single', 'symbol_exchange': 'attention', 'q_head': False,
          'q_confidence': True, 'added_tokens': 2}  # fmt: skip
KINDS = {
    'se_rrm': {**SE_RRM, 'pos_encodings': 'rope2d_whole'},
    'se_rrm_learned': {**SE_RRM, 'pos_encodings': 'learned'},
    'fields_mixing': {**FIELDS, 'symbol_exchange': 'mean', 'block': 'token_mixing',
                      'pos_encodings': 'none'},
    'fields_attention': {**FIELDS, 'symbol_exchange': 'attention_to_others',
                         'pos_encodings': 'rope2d'},
    'two_low_states': {**FIELDS, 'symbol_exchange': 'mean', 'low_states': 2},
}  # fmt: skip
PERM = jnp.array([0, 1, 4, 2, 5, 3])  # new token of every token


@pytest.fixture(scope='module', autouse=True)
def _compiled():
    with commands.quick_compiles():
        yield


def experiment(kind: str, act_config: ActConfig | None = None, **model) -> ExperimentConfig:
    model = ModelConfig(**{**SIZES, **KINDS[kind], **model})
    halting = 'halt_only' if model.q_head else 'random'
    return ExperimentConfig(
        model=model,
        act=act_config or ActConfig(halting=halting, halt_max_steps=3),
        train=TrainConfig(global_batch_size=4),
    )


def weights_of(config: ExperimentConfig) -> Weights:
    init = jax.jit(lambda key: nn.unbox(train_state.init_variables(config, key)))
    variables = init(jax.random.key(0))
    params = dict(variables['params'])
    if config.model.q_head:  # zeros at the start
        params['q_head'] = jax.tree.map(lambda x: x + 0.1, params['q_head'])
    return Weights(params, variables['constants'], None)


def puzzles(rows: int = 4, cells: int = 9) -> Batch:
    rng = np.random.default_rng(0)
    labels = rng.integers(2, 6, (rows, cells)).astype(np.int32)
    inputs = np.where(rng.random((rows, cells)) < 0.4, labels, 1).astype(np.int32)
    return jax.tree.map(jnp.asarray, Batch(inputs, labels, np.zeros(rows, np.int32)))


def largest_difference(one, two) -> float:
    return float(jnp.abs(one - two).max() / jnp.abs(one).max())


@pytest.mark.parametrize('kind', KINDS)
def test_renaming_the_symbols_renames_the_answer(kind):
    config = experiment(kind)
    weights, batch = weights_of(config), puzzles()
    renamed = batch.replace(inputs=PERM[batch.inputs], labels=PERM[batch.labels])

    @jax.jit
    def both(batch):
        fresh = starts.fresh_latent(config.model, weights, 4)
        carry = dataclasses.replace(act.initial_carry(fresh, batch), halted=jnp.zeros(4, bool))

        def loss(params):
            moved = weights.replace(params=params)
            return train_step.step_loss(config, moved, None, carry, jnp.zeros(4, jnp.int32))

        (value, (after, outputs, *_)), grads = jax.value_and_grad(loss, has_aux=True)(
            weights.params
        )
        [answers] = eval_step.answers(config, weights, batch.inputs, batch.puzzle_identifiers, [2])
        return value, outputs, answers, grads, after.latent.high

    plain, other = both(batch), both(renamed)
    assert largest_difference(plain[0], other[0]) < 1e-5
    for one, two in zip(plain[1:3], other[1:3], strict=True):  # training, evaluation
        real = one.logits[..., 2:]
        assert largest_difference(real, two.logits[..., PERM[2:]]) < 1e-4
        assert largest_difference(one.q_halt, two.q_halt) < 1e-4
        assert float(jnp.abs(real - two.logits[..., 2:]).max()) > 1e-3  # it does rename something
    for one, two in zip(jax.tree.leaves(plain[3]), jax.tree.leaves(other[3]), strict=True):
        scale = float(jnp.abs(one).max())
        np.testing.assert_allclose(one, two, atol=1e-3 * scale + 1e-7)


def test_symbols_of_their_own_differ():
    config = experiment('se_rrm', shared_symbols=False)
    weights, batch = weights_of(config), puzzles()

    def logits(inputs):
        found = eval_step.answers(config, weights, inputs, batch.puzzle_identifiers, [1])
        return found[0].logits

    one, two = logits(batch.inputs), logits(PERM[batch.inputs])
    assert largest_difference(one[..., 2:], two[..., PERM[2:]]) > 0.01


@pytest.mark.parametrize('kind', ['se_rrm', 'fields_attention'])
def test_one_set_of_weights_serves_every_size_of_board(kind):
    small = experiment(kind)
    model = dataclasses.replace(small.model, seq_len=16, vocab_size=8)
    large = dataclasses.replace(small, model=model)
    weights = weights_of(small)
    shapes = [jax.tree.map(jnp.shape, w.params) for w in (weights, weights_of(large))]
    assert shapes[0] == shapes[1]
    batch = puzzles(2, 16)
    [found] = eval_step.answers(large, weights, batch.inputs, batch.puzzle_identifiers, [1])
    assert found.logits.shape == (2, 16, 8)


def test_attention_of_uniform_weights_is_the_mean():
    config = experiment('fields_attention').model
    x = jax.random.normal(jax.random.key(0), (2, 4, 9, 16))
    exchange = symbols.EXCHANGES['attention_to_others'](config)
    params = nn.unbox(exchange.init(jax.random.key(1), x))['params']
    params['qk_proj'] = jax.tree.map(jnp.zeros_like, params['qk_proj'])
    mean = symbols.EXCHANGES['mean'](config)
    matrix = {'v_proj': {'kernel': params['v_proj']['kernel'].reshape(16, 16)}}
    np.testing.assert_allclose(
        exchange.apply({'params': params}, x), mean.apply({'params': matrix}, x), atol=1e-5
    )


def test_nobody_attends_to_itself():
    q = jax.random.normal(jax.random.key(0), (1, 3, 1, 4))
    v = jnp.eye(3)[None, :, None]
    weights = attention.attend_to_others(q, q, v)[0, :, 0]
    np.testing.assert_array_equal(jnp.diagonal(weights), 0)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)


def test_the_table_of_exchanges_has_exactly_the_values_of_its_choice():
    assert {'none', *symbols.EXCHANGES} == set(typing.get_args(model_config.SymbolExchange))


def test_the_flops_of_an_unknown_exchange_are_refused():
    model = experiment('fields_mixing').model
    object.__setattr__(model, 'symbol_exchange', 'novelty')
    with pytest.raises(NotImplementedError, match='symbol_exchange=novelty are not counted'):
        flops.block_forward(model)


@pytest.mark.parametrize('kind', ['se_rrm', 'fields_mixing', 'fields_attention'])
def test_the_count_by_hand_is_that_of_the_programs_dots(kind):
    config = experiment(
        kind, H_cycles=1, L_cycles=1, hidden_size=64, intermediate_size=0, unroll_cycles=True
    )
    config = dataclasses.replace(config, train=TrainConfig(global_batch_size=1))
    for program in flop_counts.programs(config).values():
        counted, _ = program.optimized()
        assert counted / program.by_hand == pytest.approx(1, abs=0.005)


def test_lots_decide_who_stops():
    config = ActConfig(halting='random', halt_max_steps=4, halt_exploration_prob=0.3)
    least = act.exploration_min_steps(jax.random.key(0), 2000, config)
    assert set(np.unique(least)) == {0, 4}
    assert 0.26 < float((least == 0).mean()) < 0.34
    steps = jnp.array([1, 1, 4])
    outputs = Outputs(jnp.zeros((3, 1, 2)), jnp.ones(3), jnp.zeros(3))
    stops = act.halt(outputs, steps, jnp.array([0, 4, 4]), config)
    assert stops.tolist() == [True, False, True]
    # Inference draws no lots.
    stops = act.halt(outputs, steps, act.inference_min_steps(steps, config), config)
    assert stops.tolist() == [False, False, True]


def test_evaluation_starts_from_the_fixed_state_unless_told_otherwise():
    config = experiment(
        'fields_mixing', initial_state='random_in_training', start_distribution='normal'
    )
    weights = weights_of(config)
    key = jax.random.key(3)
    drawn = starts.fresh_latent(config.model, weights, 2, key).high
    assert float(jnp.abs(drawn).max()) > 2.3  # beyond where the usual distribution is truncated
    fixed = starts.fresh_latent(config.inference_model, weights, 2, key).high
    np.testing.assert_array_equal(fixed, jnp.broadcast_to(weights.constants['H_init'], fixed.shape))
    restarts = dataclasses.replace(config, eval=EvalConfig(random_start=True))
    again = starts.fresh_latent(restarts.inference_model, weights, 2, key).high
    np.testing.assert_array_equal(again, drawn)


def test_dropout_at_inference_does_not_depend_on_the_company():
    config = experiment('se_rrm', attention_dropout=0.5, dropout_at_inference=True)
    weights, batch = weights_of(config), puzzles()
    key = jax.random.key(0)

    def logits(rows, first):
        inputs, ids = batch.inputs[rows], batch.puzzle_identifiers[rows]
        return eval_step.answers(config, weights, inputs, ids, [1], key, first)[0].logits

    together, alone = logits(slice(0, 4), 0), logits(slice(2, 3), 2)
    np.testing.assert_allclose(together[2], alone[0], rtol=1e-4, atol=1e-4)
    assert largest_difference(logits(slice(0, 4), 7), together) > 0.01


def test_anchors_corrupt_no_given_cell_and_teach():
    batch = puzzles()
    everything = jnp.zeros(batch.inputs.shape)
    answers = anchors.corrupt(batch, jnp.ones(4), everything, everything + 9, 2)
    np.testing.assert_array_equal(answers, jnp.where(batch.inputs == 1, 9, batch.labels))
    config = experiment('fields_mixing', initial_state='random_in_training')
    config = dataclasses.replace(config, loss=LossConfig(anchor_weight=1.0, anchor_share=0.5))
    weights = weights_of(config)

    @functools.partial(jax.jit, static_argnums=0)
    def step(weight):
        loss = dataclasses.replace(config.loss, anchor_weight=weight)
        changed = dataclasses.replace(config, loss=loss)
        carry = act.initial_carry(starts.fresh_latent(config.inference_model, weights, 4), batch)
        least = jnp.zeros(4, jnp.int32)

        def value(params):
            moved = weights.replace(params=params)
            return train_step.step_loss(changed, moved, None, carry, least, jax.random.key(1))

        return jax.value_and_grad(value, has_aux=True)(weights.params)

    ((with_, (_, outputs, *_)), grads), ((without, (_, same, *_)), _) = step(2.0), step(0.0)
    np.testing.assert_array_equal(outputs.logits, same.logits)
    alone = anchors.loss(config, weights, batch, None, jax.random.key(1))
    np.testing.assert_allclose(with_ - without, 2 * alone, rtol=1e-4)
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(grads))


def test_the_task_states_which_tokens_are_symbols():
    assert (Sudoku.first_symbol, Arc.first_symbol, Maze.first_symbol) == (2, 2, None)
    sizes = {'vocab_size': 6, 'seq_len': 9, 'num_puzzle_identifiers': 1}
    model = experiment('fields_mixing').model
    assert model.for_dataset(**sizes, first_symbol=3).num_symbols == 3
    assert experiment('se_rrm').model.for_dataset(**sizes, first_symbol=3).num_symbols == 6
    assert ModelConfig().for_dataset(**sizes, first_symbol=3).first_symbol == 2  # not asked for


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'symbol_exchange': 'none'}, 'set model.symbol_exchange'),
        ({'q_head': True}, 'takes the place of the Q head'),
        ({'symbol_heads': 0}, 'model.symbol_heads must be greater than 0'),
        ({'shared_symbols': False, 'symbol_input': 'roles'}, 'one set of vectors'),
        ({'first_symbol': 5, 'symbol_input': 'roles'}, 'needs two symbols or more'),
        ({'puzzle_emb_ndim': 16, 'puzzle_emb_len': 1}, 'adds the puzzle vector to every cell'),
        ({'register_tokens': 1}, 'adds the puzzle vector to every cell'),
        ({'levels': 'shared', 'chains': 2}, 'a state for every symbol and position.*chains=2'),
        ({'running_mean': True}, 'a state for every symbol and position.*running_mean=True'),
        ({'flow': True}, 'a state for every symbol and position.*flow=True'),
    ],
)
def test_what_contradicts_a_symbol_axis_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        experiment('se_rrm', **changes)


def test_a_probability_does_not_choose_among_chains():
    with pytest.raises(ConfigError, match='chains answers with the chain that halts'):
        ModelConfig(q_head=False, q_confidence=True, chains=2)


def test_rollouts_take_the_confidence_but_no_lots():
    config = experiment('se_rrm', attention_dropout=0.5, dropout_at_inference=True)

    def rollouts(select, config=config):
        return dataclasses.replace(config, eval=EvalConfig(rollouts=RolloutConfig(2, select)))

    assert rollouts('q').eval.rollouts.on  # masks make the chains differ
    with pytest.raises(ConfigError, match='halting=random only halts at the last step'):
        rollouts('halted_vote')
    with pytest.raises(ConfigError, match='needs chains that differ'):
        rollouts('q', experiment('se_rrm'))


COUNTS = {
    'sudoku_digit_field_128': 623_362,
    'sudoku_digit_field': 1_057_922,
    'sudoku_digit_field_256': 1_967_618,
    'sudoku_se_rrm': 1_970_176,
}


@pytest.mark.parametrize('name', COUNTS)
def test_sizes_of_the_published_models(name):
    config = ExperimentConfig.from_dict(importlib.import_module(f'configs.{name}').get_config())
    model = config.model.for_dataset(vocab_size=11, seq_len=81, num_puzzle_identifiers=1)
    config = dataclasses.replace(config, model=model)
    boxed = jax.eval_shape(lambda key: train_state.init_variables(config, key), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(boxed['params'])) == COUNTS[name]


def _original(config: ExperimentConfig, tmp_path, vocabulary: bool = True):
    """A folder as SE-RRM's training leaves it, and its tensors."""
    weights = weights_of(config)
    tensors = state_dict.to_official(weights, config.model)
    torch_files.save(
        collections.OrderedDict((n, torch_files.Tensor(a, False)) for n, a in tensors.items()),
        tmp_path / 'step_7',
    )
    model = config.model
    arch = {
        'name': 'recursive_reasoning.trm_equi@SERRM', 'H_cycles': 2, 'L_cycles': 1, 'H_layers': 0,
        'L_layers': 1, 'hidden_size': 16, 'num_heads': 2, 'head_dim': 8, 'num_heads_t': 2,
        'head_dim_t': 4, 'expansion': 4, 'add_tokens': 2, 'dropout': 0.2, 'halt_max_steps': 3,
        'halt_exploration_prob': 0.1, 'puzzle_emb_ndim': 0, 'forward_dtype': 'float32',
        'pos_encodings': {'rope2d_whole': 'rope2d'}.get(model.pos_encodings, 'learned'),
        'equivariant_symbols': model.shared_symbols,
    }  # fmt: skip
    arch |= {'vocab_size': 6} if vocabulary else {}
    (tmp_path / 'all_config.yaml').write_text(json.dumps({'arch': arch, 'epochs': 1}))
    return weights, tensors


@pytest.mark.parametrize(('kind', 'shared'), [('se_rrm', True), ('se_rrm_learned', False)])
def test_weights_of_se_rrm_convert_both_ways(tmp_path, kind, shared):
    config = experiment(kind, shared_symbols=shared, intermediate_size=0)
    weights, tensors = _original(config, tmp_path)
    saved = formats.load(tmp_path, seq_len=9)
    assert jax.tree.structure(saved.weights.params) == jax.tree.structure(weights.params)
    for one, two in zip(
        jax.tree.leaves(saved.weights), jax.tree.leaves(weights), strict=True
    ):  # fmt: skip
        np.testing.assert_array_equal(one, two)
    model = saved.config.model
    assert architecture.differences(
        dataclasses.replace(model, dropout_at_inference=False), config.model
    ) == []  # fmt: skip
    assert (model.attention_dropout, model.dropout_at_inference) == (0.2, True)
    assert saved.config.act.halting == 'random'
    again = state_dict.to_state(saved)
    assert list(again) == list(tensors)
    back = original_config.to_original(saved.config)['arch']
    stated = json.loads((tmp_path / 'all_config.yaml').read_text())['arch']
    skipped = {'loss', 'rope_theta', 'rms_norm_eps'}
    assert {k: v for k, v in back.items() if k not in skipped} == {
        k: v for k, v in stated.items() if k != 'vocab_size'
    } | {'pos_encodings': stated['pos_encodings']}


def test_a_number_of_symbols_that_nothing_shows_is_asked_for(tmp_path):
    _original(experiment('se_rrm', intermediate_size=0), tmp_path, vocabulary=False)
    with pytest.raises(CheckpointError, match='set vocab_size there'):
        formats.load(tmp_path, seq_len=9)


def test_digit_fields_have_no_names_elsewhere():
    with pytest.raises(CheckpointError, match=r"only SE-RRM has .* block='token_mixing'"):
        tensor_names.entries(experiment('fields_mixing').model)
