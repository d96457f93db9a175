"""Random starts, damping and noise of the state; positions on a board; overrides to evaluate."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax import act, eval_step, partitioning, train_state, train_step
from hrm_jax.config import (
    ActConfig,
    EvalConfig,
    ExperimentConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)
from hrm_jax.errors import ConfigError
from hrm_jax.model import draws, hrm, layers, recursion, starts
from hrm_jax.types import Batch, LatentState

SIZES = {
    'vocab_size': 5, 'seq_len': 4, 'num_puzzle_identifiers': 2, 'hidden_size': 8, 'num_heads': 1,
    'L_layers': 1, 'forward_dtype': 'float32', 'puzzle_emb_ndim': 0, 'levels': 'shared',
    'gradient_window': 'last_cycle', 'H_cycles': 2, 'L_cycles': 2,
}  # fmt: skip
KEY = jax.random.key(3)


def experiment(rows: int = 3, evaluation: EvalConfig = EvalConfig(), **model) -> ExperimentConfig:
    return ExperimentConfig(
        model=ModelConfig(**SIZES | model),
        act=ActConfig(halting='halt_only', halt_max_steps=3),
        optimizer=OptimizerConfig(lr=1e-2, lr_warmup_steps=0),
        train=TrainConfig(global_batch_size=rows),
        eval=evaluation,
    )


def batch_of(rows: int) -> Batch:
    inputs = np.random.default_rng(0).integers(1, 5, (rows, 4), np.int32)
    return Batch(inputs, inputs[:, ::-1].copy(), np.zeros(rows, np.int32))


def test_every_update_is_damped_and_gets_noise_of_its_own():
    """By hand: an update adds 1 to the state and what is injected; rate 1/4."""

    def update(_params, state, inject, _key):
        return state + inject + 1

    schedule = recursion.Schedule(H_cycles=1, L_cycles=2, gradient_window='full', rate=0.25)
    start = LatentState(high=jnp.full((1, 1, 1), 2.0), low=jnp.zeros((1, 1, 1)))
    x = jnp.full((1, 1, 1), 1.0)
    # low: .25 (0 + 3 + 1) = 1, then .75 + .25 (1 + 4) = 2; high: .75 * 2 + .25 (2 + 2 + 1) = 2.75
    done = recursion.unroll_cycles(update, update, (None, None), start, x, schedule)
    assert (done.low.item(), done.high.item()) == (2.0, 2.75)

    noisy = dataclasses.replace(schedule, noise=0.5)
    keys = recursion.Keys(noise=KEY)
    done = recursion.unroll_cycles(update, update, (None, None), start, x, noisy, keys)
    first, second, third = (
        0.5 * draws.normal(draws.fold(draws.fold(KEY, 0), n), (1, 1, 1)) for n in range(3)
    )
    low = 0.75 * (1 + first) + 0.25 * (1 + first + 4) + second
    high = 0.75 * 2 + 0.25 * (2 + low + 1) + third
    np.testing.assert_allclose(done.low, low, rtol=1e-6)
    np.testing.assert_allclose(done.high, high, rtol=1e-6)


def test_off_is_the_plain_update_bit_for_bit():
    config = experiment()
    weights = train_state.create(config, partitioning.make_mesh(jax.devices()[:1])).weights
    start = starts.fresh_latent(config.model, weights, 3)
    outputs = [
        hrm.act_step(config.model, weights, start, batch_of(3).inputs, None, key)[1].logits
        for key in (None, KEY)
    ]
    np.testing.assert_array_equal(*outputs)


def test_starts_are_drawn_with_their_deviations_and_without_constants():
    model = ModelConfig(**SIZES | {
        'initial_state': 'random', 'high_start_std': 1.0, 'low_start_std': 8.0, 'seq_len': 900,
    })  # fmt: skip
    config = dataclasses.replace(experiment(), model=model)
    weights = train_state.create(config, partitioning.make_mesh(jax.devices()[:1])).weights
    assert not weights.constants
    start = starts.fresh_latent(model, weights, 16, KEY)
    assert float(start.high.std()) == pytest.approx(1, rel=0.02)
    assert float(start.low.std()) == pytest.approx(8, rel=0.02)
    assert float(jnp.abs(start.high).max()) <= 2 / 0.87962566103423978
    assert abs(np.corrcoef(start.high.ravel(), start.low.ravel())[0, 1]) < 0.02
    with pytest.raises(ValueError, match='pass a key'):
        starts.fresh_latent(model, weights, 16)


def test_only_rows_that_begin_take_a_new_start():
    config = experiment(initial_state='random')
    mesh = partitioning.make_mesh(jax.devices()[:1])
    state = train_state.create(config, mesh)
    batch = batch_of(3)
    carry = act.initial_carry(starts.empty_latent(config.model, 3), batch)
    held = jax.tree.map(lambda x: x + 7, carry.latent)
    carry = dataclasses.replace(carry, latent=held, halted=jnp.array([True, False, True]))
    new = act.refill(carry, batch, starts.initial_latent(config.model, state.weights, 3, KEY))
    drawn = starts.fresh_latent(config.model, state.weights, 3, KEY)
    for name in ('high', 'low'):
        got, fresh = getattr(new.latent, name), getattr(drawn, name)
        np.testing.assert_array_equal(got[1], getattr(held, name)[1])
        np.testing.assert_array_equal(got[::2], fresh[::2])
        assert not np.array_equal(got[0], got[2])


def test_noise_before_a_step_is_on_the_chosen_state():
    config = experiment()
    weights = train_state.create(config, partitioning.make_mesh(jax.devices()[:1])).weights
    start = starts.fresh_latent(config.model, weights, 3)
    inputs = batch_of(3).inputs
    step_key = draws.key_of('step_noise', KEY)
    for number, name in enumerate(('high', 'low')):
        model = dataclasses.replace(config.model, **{f'{name}_step_noise': 0.3})
        got = hrm.act_step(model, weights, start, inputs, None, KEY)[1].logits
        noise = 0.3 * draws.normal(draws.fold(step_key, number), start.high.shape)
        moved = start.replace(**{name: getattr(start, name) + noise})
        want = hrm.act_step(config.model, weights, moved, inputs, None)[1].logits
        np.testing.assert_allclose(got, want, atol=1e-6)
        assert float(jnp.abs(got - hrm.act_step(
            config.model, weights, start, inputs, None)[1].logits).max()) > 1e-3  # fmt: skip


def test_a_new_draw_changes_no_other():
    assert len(set(draws._NUMBERS.values())) == len(draws._NUMBERS)
    model = ModelConfig(**SIZES | {'initial_state': 'random'})
    noisy = dataclasses.replace(model, update_noise=0.1, high_step_noise=0.1)
    weights = train_state.create(
        dataclasses.replace(experiment(), model=model), partitioning.make_mesh(jax.devices()[:1])
    ).weights
    begun = [starts.fresh_latent(m, weights, 3, KEY).high for m in (model, noisy)]
    np.testing.assert_array_equal(*begun)


def test_evaluation_has_settings_of_its_own_and_rows_draw_by_their_number():
    evaluation = EvalConfig(random_start=True, low_start_std=2.0, update_rate=0.9, update_noise=0.5)
    config = experiment(4, evaluation)
    assert config.model.initial_state == 'fixed'
    model = config.inference_model
    assert (model.low_start_std, model.update_rate, model.update_noise) == (2.0, 0.9, 0.5)
    assert model.high_start_std == config.model.high_start_std
    mesh = partitioning.make_mesh(jax.devices()[:1])
    weights = train_state.create(config, mesh).weights
    batch = batch_of(4)
    evaluate = eval_step.make_eval_step(config, mesh, with_logits=True)
    whole = evaluate(weights, batch, 5, 10).logits
    part = jax.tree.map(lambda x: x[2:], batch)
    np.testing.assert_allclose(evaluate(weights, part, 5, 12).logits, whole[2:], atol=1e-5)
    assert float(jnp.abs(evaluate(weights, batch, 6, 10).logits - whole).max()) > 1e-3
    still = eval_step.make_eval_step(experiment(4), mesh, with_logits=True)
    np.testing.assert_array_equal(
        still(weights, batch, 5, 10).logits, still(weights, batch, 6, 0).logits
    )
    sweep = eval_step.make_depth_sweep(config, mesh, 2)(weights, batch)
    assert np.isfinite(sweep.lm_loss).all()


@pytest.mark.parametrize('window', ['one_step', 'last_cycle', 'full'])
def test_train_steps_with_every_draw_repeat_and_follow_the_seed(window):
    config = experiment(
        initial_state='random', update_rate=0.9, update_noise=0.1, high_step_noise=0.1,
        low_step_noise=0.1, gradient_window=window,
    )  # fmt: skip
    mesh = partitioning.make_mesh(jax.devices()[:1])
    step = train_step.make_train_step(config, 10, mesh)

    def losses(rng):
        state = train_state.create(config, mesh).replace(rng=jax.random.key(rng))
        seen = []
        for _ in range(3):
            state, sums = step(state, batch_of(3))
            seen.append(float(sums.lm_loss))
        return seen

    seen = losses(0)
    assert seen == losses(0)
    assert np.isfinite(seen).all()
    assert (np.abs(np.subtract(seen, losses(1))) > 1e-4).all()


def test_positions_on_a_board():
    """The first half of the channels turns with the row, the second with the column."""
    tables = layers.board_rotary_tables((2, 3), 1, 8, 10000.0)
    x = jnp.ones((1, 7, 1, 8))
    turned = layers.rotate_on_board(x, *tables)[0, :, 0]
    np.testing.assert_allclose(turned[0], 1, rtol=1e-6)  # the slot of the prefix
    for cell in range(6):
        for half, position in enumerate(divmod(cell, 3)):
            for pair, frequency in enumerate((1.0, 0.01)):
                cos, sin = np.cos(position * frequency), np.sin(position * frequency)
                first, second = turned[1 + cell, 4 * half + pair + np.array([0, 2])]
                np.testing.assert_allclose((first, second), (cos - sin, cos + sin), rtol=1e-5)


@pytest.mark.parametrize(('changes', 'message'), [
    ({'update_rate': 0.0}, 'update_rate must be above 0'),
    ({'update_noise': -0.1}, 'update_noise must not be negative'),
    ({'pos_encodings': 'rope2d', 'seq_len': 6}, 'board_width'),
    ({'pos_encodings': 'rope2d', 'seq_len': 6, 'board_width': 4}, 'board_width'),
    ({'pos_encodings': 'rope2d', 'seq_len': 4, 'num_heads': 4}, 'multiple of 4'),
    ({'block': 'sru', 'levels': 'separate', 'H_cycles': 1, 'L_cycles': 1, 'H_layers': 1,
      'gradient_window': 'full', 'update_noise': 0.1}, 'cells of a recurrence'),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**SIZES | changes)


def test_overrides_of_the_evaluation_are_refused_when_they_are_set():
    with pytest.raises(ConfigError, match=r'eval\.random_start=True'):
        experiment(evaluation=EvalConfig(high_start_std=1.0))
    recurrent = {'block': 'sru', 'levels': 'separate', 'H_cycles': 1, 'L_cycles': 1,
                 'H_layers': 1, 'gradient_window': 'full'}  # fmt: skip
    with pytest.raises(ConfigError, match='cells of a recurrence'):
        experiment(evaluation=EvalConfig(update_noise=0.1), **recurrent)
