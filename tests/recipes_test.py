"""Gated units, registers, losses, Muon, averages, curriculum, digits on the fly: right values."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hrm_jax import curriculum, losses, muon, optim, partitioning, train_state, train_step
from hrm_jax.config import (
    ActConfig,
    DataConfig,
    ExperimentConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)
from hrm_jax.data import augment, hints, metadata, pipeline, puzzles
from hrm_jax.errors import ConfigError
from hrm_jax.model import flops, hrm, layers, starts
from hrm_jax.types import IGNORE_LABEL_ID, Batch, Outputs

SIZES = {
    'vocab_size': 5, 'seq_len': 4, 'num_puzzle_identifiers': 2, 'hidden_size': 8, 'num_heads': 2,
    'L_layers': 1, 'forward_dtype': 'float32', 'puzzle_emb_ndim': 0, 'levels': 'shared',
    'gradient_window': 'last_cycle', 'H_cycles': 2, 'L_cycles': 2, 'mlp_multiple': 8,
}  # fmt: skip
URM = {'gated_unit': 'conv_swiglu', 'levels': 'single'}
SIC = {'gated_unit': 'sigmoid_rms', 'register_tokens': 2, 'head_bias': True,
       'block': 'token_mixing', 'pos_encodings': 'none'}  # fmt: skip


def one_device():
    return partitioning.make_mesh(jax.devices()[:1])


def experiment(model=None, **sections) -> ExperimentConfig:
    base = {
        'act': ActConfig(halting='halt_only', halt_max_steps=3),
        'train': TrainConfig(global_batch_size=2),
        'optimizer': OptimizerConfig(lr_warmup_steps=0),
    }
    return ExperimentConfig(model=ModelConfig(**SIZES | (model or {})), **base | sections)


def batch_of(rows: int = 2) -> Batch:
    inputs = np.random.default_rng(0).integers(1, 5, (rows, 4), np.int32)
    return Batch(inputs, inputs[:, ::-1].copy(), np.zeros(rows, np.int32))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gated(kind: str, gate_up, down, x, **more):
    config = ModelConfig(gated_unit=kind, rms_norm_eps=1e-5)
    params = {'gate_up_proj': {'kernel': gate_up}, 'down_proj': {'kernel': down}, **more}
    return layers.GatedUnit(config, gate_up.shape[-1]).apply({'params': params}, x)


def test_gated_units_by_hand():
    rng = np.random.default_rng(1)
    gate_up, down = rng.normal(size=(3, 2, 5)), rng.normal(size=(5, 3))
    x = rng.normal(size=(1, 4, 3))
    gate, up = x @ gate_up[:, 0], x @ gate_up[:, 1]
    product = gate * up
    scaled = product / np.sqrt((product**2).mean(-1, keepdims=True) + 1e-5)
    got = gated('sigmoid_rms', *map(jnp.asarray, (gate_up, down, x)))
    np.testing.assert_allclose(got, (sigmoid(gate) * scaled) @ down, rtol=1e-4, atol=1e-5)

    kernel, bias = rng.normal(size=(2, 5)), rng.normal(size=5)
    inner = sigmoid(gate) * gate * up
    earlier = np.concatenate([np.zeros((1, 1, 5)), inner[:, :-1]], 1)
    inner = kernel[0] * earlier + kernel[1] * inner + bias
    conv = {'conv': {'kernel': jnp.asarray(kernel), 'bias': jnp.asarray(bias)}}
    got = gated('conv_swiglu', *map(jnp.asarray, (gate_up, down, x)), **conv)
    np.testing.assert_allclose(got, (sigmoid(inner) * inner) @ down, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('model', [URM, SIC], ids=['urm', 'sic'])
def test_the_short_pass_gives_the_q_of_the_whole_one(model):
    config = experiment(model)
    weights = train_state.create(config, one_device()).weights
    head = {'kernel': jnp.ones((8, 2)), 'bias': jnp.zeros(2)}
    weights = weights.replace(params={**weights.params, 'q_head': head})
    latent = starts.fresh_latent(config.model, weights, 2)
    inputs = batch_of().inputs
    outputs = hrm.act_step(config.model, weights, latent, inputs, None)[1]
    short = hrm.next_q(config.model, weights, latent, inputs, None)[0]
    np.testing.assert_allclose(short, outputs.q_halt, atol=1e-5)
    assert outputs.logits.shape == (2, 4, 5)


def test_registers_stand_before_the_cells_and_learn():
    config = experiment(SIC)
    model = config.model
    assert (model.prefix_len, model.total_len, model.has_puzzle_table) == (2, 6, False)
    weights = train_state.create(config, one_device()).weights
    assert weights.puzzle_table is None
    registers = weights.params['register_tokens']
    inputs = batch_of().inputs
    core = hrm.HRM(model).bind({'params': weights.params, 'constants': weights.constants})
    x = core.embed(inputs, None)
    np.testing.assert_allclose(x[1, :2], registers * 8**0.5, rtol=1e-6)
    latent = starts.fresh_latent(model, weights, 2)

    def total(params):
        moved = weights.replace(params=params)
        return hrm.act_step(model, moved, latent, inputs, None)[1].logits.std()

    assert float(jnp.abs(jax.grad(total)(weights.params)['register_tokens']).min()) > 0
    with pytest.raises(ConfigError, match='puzzle_emb_ndim must be 0'):
        ModelConfig(register_tokens=1)


def test_the_convolution_is_counted():
    plain, conv = (ModelConfig(**SIZES | {'gated_unit': g}) for g in ('swiglu', 'conv_swiglu'))
    more = flops.block_forward(conv) - flops.block_forward(plain)
    assert more == 2 * plain.total_len * 2 * plain.mlp_dim


def test_label_smoothing_and_weights_of_steps_by_hand():
    logits = jnp.log(jnp.array([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]]))
    labels = jnp.array([[0, IGNORE_LABEL_ID]])
    plain, rest = -np.log(0.5), -np.log([0.5, 0.25, 0.25]).mean()
    got = losses.softmax_cross_entropy(logits, labels, 0.2)
    np.testing.assert_allclose(got, [[0.8 * plain + 0.2 * rest, 0]], rtol=1e-6)

    config = LossConfig(loss_type='softmax_cross_entropy', q_weight=0.5, step_decay=0.7)
    outputs = Outputs(jnp.repeat(logits, 2, 0), jnp.zeros(2), jnp.zeros(2))
    args = jnp.repeat(labels, 2, 0), jnp.array([1, 3]), jnp.ones(2, bool), None, config
    loss, sums = losses.act_loss(outputs, *args)
    np.testing.assert_allclose(loss, plain * (1 + 0.49) + 0.5 * 2 * np.log(2), rtol=1e-5)
    np.testing.assert_allclose(sums.lm_loss, 2 * plain, rtol=1e-6)  # metrics are not weighted


def test_muon_takes_the_kernels_of_the_blocks_only():
    config = experiment({'qkv_bias': True, 'norm_scale': True, 'gated_unit': 'conv_swiglu'})
    params = train_state.create(config, one_device()).weights.params
    labels = muon.groups(params, OptimizerConfig().muon_skip)
    block = labels['L_level']['layers_0']
    chosen = {'/'.join(str(e.key) for e in path): label for path, label in
              jax.tree_util.tree_flatten_with_path(labels)[0]}  # fmt: skip
    matrices = {name for name, label in chosen.items() if label == muon.MATRIX}
    assert matrices == {
        f'L_level/layers_0/{name}/kernel' for name in
        ('self_attn/qkv_proj', 'self_attn/o_proj', 'mlp/gate_up_proj', 'mlp/down_proj')
    }  # fmt: skip
    assert block['mlp']['conv']['kernel'] == muon.OTHER


def test_orthogonalized_matrices_keep_their_directions():
    """Many iterations bring the singular values near 1 and keep the singular vectors."""
    rng = np.random.default_rng(2)
    left, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    right, _ = np.linalg.qr(rng.normal(size=(6, 4)))
    x = left @ np.diag([1.0, 0.5, 0.3, 0.2]) @ right.T
    for matrix in (x, x.T):
        got = np.asarray(muon.orthogonalize(jnp.asarray(matrix)[None], 5, 'float32'))[0]
        values = np.diag(left.T @ (got if matrix is x else got.T) @ right)
        assert (np.abs(values - 1) < 0.35).all()


def test_heads_are_made_orthogonal_one_by_one():
    rng = np.random.default_rng(3)
    kernel = jnp.asarray(rng.normal(size=(8, 3, 2, 4)), jnp.float32)
    params = {'qkv_proj': {'kernel': kernel}}
    rule = muon.muon(lambda _: 1.0, weight_decay=0.0, dtype='float32')
    updates, _ = rule.update(params, rule.init(params), params)
    head = kernel[:, 1, 0].T[None]  # (head_dim, dim); the average is a share of it
    np.testing.assert_allclose(
        updates['qkv_proj']['kernel'][:, 1, 0],
        -muon.orthogonalize(head, 3, 'float32')[0].T,
        atol=1e-5,
    )


def test_rates_share_one_curve_and_may_count_from_zero():
    config = OptimizerConfig(
        name='muon', lr=1e-4, lr_warmup_steps=0, lr_min_ratio=0.0, schedule_start=0
    )
    rates = optim.schedules(config, 20)
    for number in (1, 2, 11):
        wave = 0.5 * (1 + np.cos(np.pi * (number - 1) / 20))
        np.testing.assert_allclose(rates['muon_lr'](number), 0.02 * wave, rtol=1e-5)
        np.testing.assert_allclose(rates['lr'](number), 1e-4 * wave, rtol=1e-5)
    assert 'muon_lr' not in optim.schedules(OptimizerConfig(), 20)


def test_an_average_that_starts_later():
    params = [{'w': jnp.float32(x)} for x in (1.0, 2.0, 4.0)]
    average = {'w': jnp.float32(0.0)}
    seen = []
    for number, new in enumerate(params, start=1):
        average = optim.update_average(average, new, 0.9, jnp.int32(number), 2)
        seen.append(float(average['w']))
    np.testing.assert_allclose(seen, [1.0, 2.0, 0.9 * 2 + 0.1 * 4], rtol=1e-6)


def test_a_model_learns_with_muon_and_its_state_keeps_its_form():
    config = experiment(
        SIC,
        optimizer=OptimizerConfig(name='muon', lr=1e-2, lr_warmup_steps=0, grad_clip_norm=1.0,
                                  ema_decay=0.9, ema_start_step=3),
        loss=LossConfig(loss_type='softmax_cross_entropy', label_smoothing=0.1),
    )  # fmt: skip
    mesh = one_device()
    state = train_state.create(config, mesh)
    like = jax.tree.structure(train_state.abstract(config, mesh))
    step = train_step.make_train_step(config, 40, mesh)
    seen = []
    for _ in range(20):
        state, sums = step(state, batch_of())
        seen.append(float(sums.lm_loss))
    assert jax.tree.structure(state) == like
    assert seen[-1] < 0.6 * seen[0]


def test_stages_begin_where_the_shares_say_and_evaluation_is_at_full_depth():
    config = experiment(
        {'H_cycles': 3, 'L_cycles': 6}, train=TrainConfig(global_batch_size=2, curriculum='cgar')
    )
    found = [(m.H_cycles, m.L_cycles) for m in curriculum.models(config)]
    assert found == [(1, 2), (2, 4), (3, 6)]
    np.testing.assert_allclose(curriculum.shares(config), [0.3, 0.3, 0.4])
    stages = [int(curriculum.stage(config, 10, jnp.int32(step))) for step in range(10)]
    assert stages == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]
    assert (config.inference_model.H_cycles, config.inference_model.L_cycles) == (3, 6)


def test_each_stage_is_the_step_of_a_model_with_its_cycles():
    """From any state: so a resumed run has the stage that the uninterrupted one has."""
    staged = experiment(train=TrainConfig(global_batch_size=2, curriculum='cgar'))
    state = train_state.create(staged, one_device())
    run = jax.jit(functools.partial(train_step.train_step, staged, 10))
    for number, model in zip((2, 5, 9), curriculum.models(staged), strict=True):
        plain = dataclasses.replace(staged, model=model, train=TrainConfig(global_batch_size=2))
        at = state.replace(step=jnp.int32(number))
        want = jax.jit(functools.partial(train_step.train_step, plain, 10))(at, batch_of())
        got = run(at, batch_of())
        np.testing.assert_allclose(got[1].lm_loss, want[1].lm_loss, rtol=1e-6)
        difference = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), got[0].carry.latent,
                                  want[0].carry.latent)  # fmt: skip
        assert max(jax.tree.leaves(difference)) < 1e-5


def test_what_recurrent_blocks_cannot_have_is_refused():
    model = {'block': 'sru', 'levels': 'separate', 'H_cycles': 1, 'L_cycles': 1, 'H_layers': 1,
             'gradient_window': 'full'}  # fmt: skip
    for sections in (
        {'optimizer': OptimizerConfig(name='muon')},
        {'train': TrainConfig(curriculum='cgar')},
    ):
        with pytest.raises(ConfigError, match=r'neither optimizer\.name=muon nor'):
            experiment(model, **sections)
    with pytest.raises(ConfigError, match='convolves over positions'):
        ModelConfig(**SIZES | SIC | {'gated_unit': 'conv_swiglu'})


def test_digits_are_permuted_and_the_quirk_permutes_the_blank():
    uniforms = np.array([[0.9, 0.1, 0.2, 0.3]])
    np.testing.assert_array_equal(
        augment.random_relabellings(uniforms, 4, 'correct'), [[0, 1, 3, 4, 5, 2]]
    )
    np.testing.assert_array_equal(
        augment.random_relabellings(uniforms, 4, 'sic'), [[0, 2, 3, 4, 1, 5]]
    )
    many = np.random.default_rng(0).random((4000, 4))
    blanks = augment.random_relabellings(many, 4, 'sic')[:, 1]
    np.testing.assert_allclose(np.bincount(blanks, minlength=5)[1:] / 4000, 0.25, atol=0.03)


def sudoku_set() -> puzzles.PuzzleDataset:
    solved = np.array([[2, 3, 4, 5], [4, 5, 2, 3], [3, 2, 5, 4], [5, 4, 3, 2]], np.uint8).ravel()
    labels = np.tile(solved, (3, 1))
    inputs = np.where(np.arange(16) % 3 > 0, labels, 1).astype(np.uint8)
    whole = np.arange(4)
    one = puzzles.PuzzleSet(inputs, labels, whole, whole, whole[:-1], np.zeros(3, np.int32))
    facts = metadata.DatasetMetadata(
        6, 16, 1, 3, 1.0, task='sudoku', sets=('all',), transform='none', held_out=0
    )
    return puzzles.PuzzleDataset(facts, {'all': one})


@pytest.mark.parametrize('augmentation', ['digits', 'digits_sic'])
def test_boards_stay_boards_and_every_process_draws_the_same(augmentation):
    dataset = sudoku_set()
    whole = pipeline.train_iterator(dataset, 32, 0, augmentation=augmentation, prefetch=False)
    part = pipeline.train_iterator(dataset, 32, 0, np.arange(5, 9), augmentation, prefetch=False)
    batch, own = next(whole), next(part)
    np.testing.assert_array_equal(own.inputs, batch.inputs[5:9])
    np.testing.assert_array_equal(own.labels, batch.labels[5:9])
    for question, answer in zip(batch.inputs, batch.labels, strict=True):
        board = answer.reshape(4, 4)
        boxes = board.reshape(2, 2, 2, 2).swapaxes(1, 2).reshape(4, 4)
        for lines in (board, board.T, boxes):
            assert (np.sort(lines, 1) == np.sort(lines[0])).all()
        given = np.isin(question, [1]) if augmentation == 'digits' else None
        if given is not None:
            assert given.sum() == 6
            np.testing.assert_array_equal(question[~given], answer[~given])
    assert len({row.tobytes() for row in batch.labels}) > 10  # of 3 equal boards
    blank_moved = (batch.labels == 1).any()
    assert blank_moved == (augmentation == 'digits_sic')


@pytest.mark.parametrize('augmentation', ['stored', 'digits_sic'])
def test_hints_on_the_fly_fill_in_some_empty_cells_of_some_boards(augmentation):
    dataset = sudoku_set()

    def batches(hint_prob, rows=slice(None)):
        return pipeline.train_iterator(
            dataset, 32, 0, rows, augmentation, prefetch=False, hint_prob=hint_prob
        )

    plain, half, always = (batches(prob) for prob in (0.0, 0.5, 1.0))
    part = batches(0.5, np.arange(5, 9))
    for _ in range(3):
        before, mixed, hinted, own = next(plain), next(half), next(always), next(part)
        np.testing.assert_array_equal(own.inputs, mixed.inputs[5:9])
        for batch in (mixed, hinted):
            np.testing.assert_array_equal(batch.labels, before.labels)
            filled = batch.inputs != before.inputs
            np.testing.assert_array_equal(batch.inputs[filled], batch.labels[filled])
            assert (batch.inputs != batch.labels).any(1).all()  # never all of the 6 empty cells
        count = (hinted.inputs != before.inputs).sum(1)
        assert set(count) == {1, 2, 3, 4, 5}
        has_hints = (mixed.inputs != before.inputs).any(1)
        assert 8 <= has_hints.sum() <= 24
        np.testing.assert_array_equal(mixed.inputs[has_hints], hinted.inputs[has_hints])
    resumed = batches(0.5)
    resumed.set_state(half.get_state())
    np.testing.assert_array_equal(next(resumed).inputs, next(half).inputs)


def test_hints_need_two_empty_cells_and_a_task_whose_questions_are_open_answers():
    labels = np.array([[2, 3, 4, 5]] * 3 + [[2, -100, -100, 5]])
    inputs = np.array([[2, 3, 4, 5], [1, 3, 4, 5], [1, 1, 4, 5], [2, 1, 1, 1]])
    mixed = hints.mixed(inputs, labels, 1.0, np.full((4, 6), 0.5))
    np.testing.assert_array_equal(mixed[[0, 1, 3]], inputs[[0, 1, 3]])
    assert (mixed[2] != inputs[2]).sum() == 1
    dataset = sudoku_set()
    other = dataclasses.replace(
        dataset, metadata=dataclasses.replace(dataset.metadata, task='maze')
    )
    with pytest.raises(ConfigError, match=r'data\.hint_prob=0\.5 fills in empty cells of Sudoku'):
        pipeline.train_iterator(other, 4, 0, hint_prob=0.5)
    with pytest.raises(ConfigError, match=r'data\.hint_prob and .* must be in .* got 2'):
        DataConfig(hint_prob=2.0)


def test_only_sudoku_has_digits():
    dataset = sudoku_set()
    other = dataclasses.replace(
        dataset, metadata=dataclasses.replace(dataset.metadata, task='maze')
    )
    with pytest.raises(ConfigError, match=r'data\.augmentation=digits needs'):
        pipeline.check_augmentation(other, 'digits')
    unchecked = dataclasses.replace(
        dataset, metadata=dataclasses.replace(dataset.metadata, held_out=None)
    )
    with pytest.raises(ConfigError, match='nobody has looked'):
        pipeline.check_augmentation(unchecked, 'digits')


def test_clipping_comes_before_both_optimizers():
    """A gradient a thousand times as large makes the same step."""
    config = OptimizerConfig(name='muon', lr_warmup_steps=0, grad_clip_norm=1.0)
    rule = optim.weight_optimizer(config, 10)
    params = {'mlp': {'down_proj': {'kernel': jnp.eye(3) + 0.1}}, 'lm_head': {'bias': jnp.ones(3)}}
    grads = jax.tree.map(lambda p: 10 * p, params)
    steps = [
        rule.update(jax.tree.map(lambda g, s=scale: s * g, grads), rule.init(params), params)[0]
        for scale in (1, 1000)
    ]
    for one, other in zip(*map(jax.tree.leaves, steps), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)
    assert isinstance(rule, optax.GradientTransformation)
