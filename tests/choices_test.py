"""A choice is a Literal of the configuration: whatever dispatches on it knows exactly its values.

No ``else`` stands for "all others": a value that a table does not know is an error, not another
model.
"""

import copy
import dataclasses
import itertools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hrm_jax import act, curriculum, evaluate, losses, muon, optim, partitioning
from hrm_jax.checkpoint import compatible, layout
from hrm_jax.cli import convert
from hrm_jax.config import (
    ActConfig,
    CheckpointConfig,
    EvalConfig,
    ExperimentConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
    sections,
    shipped,
)
from hrm_jax.config import model as model_config
from hrm_jax.errors import CheckpointError
from hrm_jax.inference import early_exit
from hrm_jax.interop import architecture, formats, presets, tensor_names
from hrm_jax.model import attention, blocks, draws, flops, layers, recursion, sru
from hrm_jax.types import LatentState, Outputs
from tests import adaptive_test

SIZES = {
    'vocab_size': 7, 'seq_len': 9, 'num_puzzle_identifiers': 3, 'hidden_size': 32, 'num_heads': 2,
    'H_layers': 1, 'L_layers': 1, 'puzzle_emb_ndim': 32,
}  # fmt: skip
RECURRENT = {'H_cycles': 1, 'L_cycles': 1, 'gradient_window': 'full'}
NOVELTY = 'novelty'  # a value that no Literal has
NAMED = ('attention', 'token_mixing', 'sru', 'srupp')  # blocks of the originals


def values_of(literal) -> tuple[str, ...]:
    return typing.get_args(literal)


def model_with(block: str, **settings) -> ModelConfig:
    own = RECURRENT if block in model_config.RECURRENT_BLOCKS else {}
    own = {'puzzle_emb_ndim': 0} if block == 'group_mixing' else own  # it has cells only
    return ModelConfig(**{**SIZES, **own, 'block': block, **settings})


def forced(section, **values):
    """A copy of a section whose values were not checked: as if they had joined the Literal."""
    section = copy.copy(section)
    for name, value in values.items():
        object.__setattr__(section, name, value)
    return section


@pytest.mark.parametrize(
    ('table', 'literal'),
    [
        ([*blocks.BLOCKS, *sru.HAS_ATTENTION], model_config.Block),
        (losses._TOKEN_LOSSES, sections.TokenLoss),
        (['auto', *attention._IMPLEMENTATIONS], model_config.Attention),
    ],
    ids=['blocks', 'token losses', 'attention'],
)
def test_a_table_has_exactly_the_values_of_its_choice(table, literal):
    assert sorted(table) == sorted(values_of(literal))


def test_recurrent_blocks_are_those_of_the_recurrent_level():
    assert set(model_config.RECURRENT_BLOCKS) == set(sru.HAS_ATTENTION)


def test_what_commands_offer_is_what_there_is():
    offered = {action.dest: action.choices for action in convert.parser()._actions}
    assert tuple(offered['puzzle_table']) == values_of(sections.PuzzleTableChoice)
    assert set(offered['format']) == {'auto', *formats.FORMATS}


def test_every_attention_says_what_it_needs():
    assert attention.resolve('auto', jnp.float32, 16) == 'xla'  # no accelerator takes it
    for name in attention._IMPLEMENTATIONS:
        assert (attention.obstacle(name, jnp.float32, 16) == '') == (name == 'xla')
    with pytest.raises(KeyError):
        attention.obstacle(NOVELTY, jnp.float32, 16)


def test_every_optimizer_is_another_one():
    params = {'w': {'kernel': jnp.array([[1.0, -2.0], [3.0, 0.5]])}}
    grads = {'w': {'kernel': jnp.array([[0.1, 0.2], [-0.3, 0.4]])}}
    moved = {}
    for name in values_of(sections.OptimizerName):
        config = OptimizerConfig(name=name, lr=0.1, lr_warmup_steps=0)
        update = optim.weight_optimizer(config, 10)
        state, moved[name] = update.init(params), params
        for scale in (1.0, 0.1, 3.0):
            scaled = jax.tree.map(lambda g, scale=scale: scale * g, grads)
            updates, state = update.update(scaled, state, moved[name])
            moved[name] = optax.apply_updates(moved[name], updates)
    for one, other in itertools.combinations(moved, 2):
        difference = jnp.abs(moved[one]['w']['kernel'] - moved[other]['w']['kernel'])
        assert float(difference.max()) > 1e-3, (one, other)
    with pytest.raises(ValueError, match=NOVELTY):
        optim.weight_optimizer(forced(OptimizerConfig(), name=NOVELTY), 10)


def test_every_gated_unit_is_another_one():
    x, found = jnp.linspace(-1, 1, 24).reshape(1, 3, 8), {}
    for kind in values_of(model_config.GatedUnit):
        unit = layers.GatedUnit(ModelConfig(gated_unit=kind), 4)
        found[kind] = unit.init_with_output(jax.random.key(0), x)[0]
    for one, other in itertools.combinations(found, 2):
        assert float(jnp.abs(found[one] - found[other]).max()) > 1e-3, (one, other)
    with pytest.raises(ValueError, match=NOVELTY):
        layers.GatedUnit(forced(ModelConfig(), gated_unit=NOVELTY), 4).init(jax.random.key(0), x)


def test_stages_and_scales_know_their_choices():
    for name in values_of(sections.Curriculum):
        config = ExperimentConfig(train=TrainConfig(curriculum=name))
        assert len(curriculum.models(config)) == {'none': 1, 'cgar': 3}[name]
    with pytest.raises(ValueError, match=NOVELTY):
        curriculum.models(forced(config, train=forced(TrainConfig(), curriculum=NOVELTY)))
    scales = [muon._scale(8, 2, name) for name in values_of(sections.MuonScale)]
    np.testing.assert_allclose(scales, [2, 0.2 * 8**0.5])
    with pytest.raises(ValueError, match=NOVELTY):
        muon._scale(8, 2, NOVELTY)


def test_every_preset_is_a_shipped_recipe():
    offered = {action.dest: action.choices for action in convert.parser()._actions}['preset']
    assert set(offered) == {'', *presets.PRESETS}
    assert set(presets.PRESETS.values()) <= set(shipped.names())


def test_every_halting_rule_is_another_one():
    # Rows: more sure to stop than to go on, but below 0; above 0, but less sure; at the last step.
    outputs = Outputs(
        logits=jnp.zeros((3, 1, 2)),
        q_halt=jnp.array([-1.0, 1.0, -3.0]),
        q_continue=jnp.array([-2.0, 2.0, 0.0]),
    )
    steps = jnp.array([2, 2, 4])
    stops = {}
    for name in values_of(sections.Halting):
        config = ActConfig(halting=name, halt_max_steps=4)
        least = jnp.array([0, 4, 4]) if name == 'random' else jnp.zeros(3, jnp.int32)
        stops[name] = act.halt(outputs, steps, least, config).tolist()
    assert stops == {
        'q_learning': [True, False, True],
        'halt_only': [False, True, True],
        'random': [True, False, True],
        'fixed': [False, False, True],
        'solved': [True, False, True],
    }
    for highest in (1, 4):
        config = forced(ActConfig(halt_max_steps=highest), halting=NOVELTY)
        with pytest.raises(ValueError, match=NOVELTY):
            act.halt(outputs, steps, jnp.zeros(3, jnp.int32), config)


def test_early_exit_is_tested_under_every_halting_rule():
    [mark] = [
        mark for mark in adaptive_test.test_answers_equal_those_of_each_puzzle_alone.pytestmark
        if mark.name == 'parametrize'
    ]  # fmt: skip
    tested = {values[0] for values in mark.args[1]}
    assert tested | {'solved'} == set(values_of(sections.Halting))  # solved: lattice_test.py


def test_every_halting_of_evaluations_has_its_step():
    config = dataclasses.replace(adaptive_test.make_config(), eval=EvalConfig(global_batch_size=4))
    mesh = partitioning.make_mesh(jax.devices()[:1])

    def made(halting):
        section = forced(config.eval, halting=halting)
        return evaluate.make_step(dataclasses.replace(config, eval=section), mesh)

    adaptive = {
        name: isinstance(made(name), early_exit.Worker)
        for name in values_of(sections.EvalHalting)
    }  # fmt: skip
    assert adaptive == {'max': False, 'adaptive': True}
    with pytest.raises(ValueError, match=NOVELTY):
        made(NOVELTY)


def test_every_gradient_window_lets_gradients_through_elsewhere():
    def update(params, state, inject, key):
        del key
        return params * state + (0 if inject is None else inject)

    def z(params, window):
        schedule = recursion.Schedule(
            H_cycles=2, L_cycles=2, gradient_window=window, closing_update=False,
            straight_through=False, unroll=True,
        )  # fmt: skip
        latent = LatentState(high=jnp.ones((1, 1, 1)), low=jnp.ones((1, 1, 1)))
        found = recursion.unroll_cycles(
            update, update, (params, params), latent, jnp.ones((1, 1, 1)), schedule
        )
        return found.high.sum()

    windows = values_of(model_config.GradientWindow)
    gradients = [float(jax.grad(z)(jnp.float32(2.0), window)) for window in windows]
    assert len({float(z(jnp.float32(2.0), window)) for window in windows}) == 1
    assert len(set(gradients)) == len(windows)
    with pytest.raises(ValueError, match=NOVELTY):
        z(jnp.float32(2.0), NOVELTY)


def test_every_initializer_draws_other_numbers():
    def drawn(model):
        made = (layers.kernel_initializer(model, 32), layers.embedding_initializer(model, 32))
        return [init(jax.random.key(0), (2048,), jnp.float32) for init in made]

    spreads = {}
    for name in values_of(model_config.Initializer):
        pair = np.asarray(drawn(model_with('attention', initializer=name))) * 32**0.5
        spreads[name] = tuple(round(float(x), 1) for n in pair for x in (abs(n).max(), n.std()))
    assert len(set(spreads.values())) == len(spreads)
    with pytest.raises(ValueError, match=NOVELTY):
        drawn(forced(model_with('attention'), initializer=NOVELTY))


@pytest.mark.parametrize('block', values_of(model_config.Block))
def test_the_flops_of_every_block_are_counted(block):
    model = model_with(block)
    others = {flops.block_forward(model_with(b)) for b in values_of(model_config.Block)}
    assert len(others) == len(values_of(model_config.Block))
    assert 0 < flops.q_values(model) <= flops.act_step(model)
    assert flops.train_step(model, ActConfig()) > 2 * flops.block_forward(model)


def test_the_flops_of_an_unknown_block_are_refused():
    model = forced(model_with('attention'), block=NOVELTY)
    for count in (flops.block_forward, flops._first_position, flops.act_step, flops.q_values):
        with pytest.raises(NotImplementedError, match=f'model.block={NOVELTY} are not counted'):
            count(model)


def tensors_of(model: ModelConfig) -> dict[str, np.ndarray]:
    return {
        entry.name: np.zeros(entry.shape, np.float32)
        for entry in tensor_names.entries(model)
    }  # fmt: skip


@pytest.mark.parametrize(
    ('block', 'levels'),
    [
        (block, levels)
        for block in values_of(model_config.Block)
        for levels in values_of(model_config.Levels)
        if levels == 'separate' or block not in model_config.RECURRENT_BLOCKS
    ],
)
def test_the_tensors_of_every_architecture_tell_which_one_it_is(block, levels):
    model = model_with(block, levels=levels)
    if block not in NAMED:  # a block of our own: refused by name
        with pytest.raises(CheckpointError, match=repr(block)):
            tensors_of(model)
        return
    tensors = tensors_of(model)
    assert len(tensors) == len(tensor_names.entries(model))  # no name twice
    found = architecture.infer_model(tensors)
    stated = {
        name: getattr(model, name)
        for name in ('seq_len', 'num_heads', 'H_cycles', 'L_cycles', 'pos_encodings',
                     'gradient_window', 'forward_dtype')
    }  # fmt: skip
    again = architecture.complete_model(stated, found, 'here')
    assert (found['block'].value, found['levels'].value) == (block, levels)
    assert architecture.differences(model, again) == []


def test_the_tensors_of_an_unknown_block_have_no_names(monkeypatch):
    message = f"no original has the block '{NOVELTY}'"
    model = forced(model_with('attention'), block=NOVELTY)
    with pytest.raises(CheckpointError, match=message):
        tensor_names.entries(model)
    with pytest.raises(CheckpointError, match=message):
        tensor_names.entries(forced(model, q_head=False))
    monkeypatch.setattr(model_config, 'RECURRENT_BLOCKS', ('sru', 'srupp', NOVELTY))
    with pytest.raises(CheckpointError, match=message):
        tensor_names.entries(forced(model_with('sru'), block=NOVELTY))


def test_an_unknown_block_is_not_taken_for_another_one():
    tensors = {
        name.replace('self_attn', NOVELTY): array
        for name, array in tensors_of(model_with('attention')).items()
    }
    with pytest.raises(CheckpointError, match=f'block of this checkpoint is unknown.*{NOVELTY}'):
        architecture.infer_model(tensors)


def test_every_choice_for_the_puzzle_table_gives_another_table():
    table = np.arange(6, dtype=np.float32).reshape(3, 2)
    choices = [c for c in values_of(sections.PuzzleTableChoice) if c != 'error']
    tables = {compatible.resize_table(table, 4, choice).tobytes() for choice in choices}
    assert len(tables) == len(choices)
    with pytest.raises(CheckpointError, match='has 3 rows'):
        compatible.resize_table(table, 4, 'error')


def test_both_directions_of_a_metric():
    scores = {
        mode: [layout.score({'x': x}, CheckpointConfig(best_metric='x', best_mode=mode))
               for x in (1.0, 2.0)]
        for mode in values_of(sections.Direction)
    }  # fmt: skip
    assert scores == {'max': [1.0, 2.0], 'min': [-1.0, -2.0]}


def test_no_two_draws_share_a_number():
    numbers = list(draws._NUMBERS.values())
    assert len(set(numbers)) == len(numbers)


def test_every_literal_is_checked_where_it_is_set():
    """A field that is a choice refuses what the Literal does not have."""
    refused = 0
    for section in dataclasses.fields(ExperimentConfig):
        made = getattr(ExperimentConfig(), section.name)
        if not dataclasses.is_dataclass(made):
            continue
        for name, hint in typing.get_type_hints(type(made)).items():
            is_many = typing.get_origin(hint) is tuple
            kind = typing.get_args(hint)[0] if is_many else hint
            if typing.get_origin(kind) is typing.Literal:
                value = (NOVELTY,) if is_many else NOVELTY
                with pytest.raises(ValueError, match=f'{section.name}.{name} must be one of'):
                    dataclasses.replace(made, **{name: value})
                refused += 1
    assert refused >= 15
