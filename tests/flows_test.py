"""Looped flows: times, noisy answers, the sampler; early exit gives what each puzzle alone gets."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax import eval_step, losses, partitioning, train_state
from hrm_jax.config import ExperimentConfig
from hrm_jax.errors import CheckpointError, ConfigError
from hrm_jax.inference import early_exit
from hrm_jax.interop import tensor_names
from hrm_jax.model import draws, flows
from tests import combinations_test, commands

OPEN = 1


@pytest.fixture(scope='module', autouse=True)
def _compiled():
    with commands.quick_compiles():
        yield


def experiment(**model) -> ExperimentConfig:
    config = combinations_test.experiment('flow')
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **model))


def test_times_rise_and_begin_as_stated():
    for kind, mean_of_first in (('sorted', 1 / 18), ('random_start', 1 / 2)):
        config = experiment(flow_times=kind).model
        times = flows.initial(config, 2000, jax.random.key(0)).times
        assert times.shape == (2000, 17)
        assert ((times >= 0) & (times < 1)).all()
        assert (jnp.diff(times, axis=1) >= 0).all()
        assert times[:, 0].mean() == pytest.approx(mean_of_first, abs=0.02)
    # From its start on the rest is uniform.
    rest = (times[:, 1:] - times[:, :1]) / (1 - times[:, :1])
    assert rest.mean() == pytest.approx(0.5, abs=0.01)
    noise = flows.initial(config, 2000, jax.random.key(0)).x
    assert noise.std() == pytest.approx(config.vocab_size**-0.5, rel=0.02)


def test_what_a_training_step_denoises():
    config = experiment().model
    inputs, labels = jnp.array([[2, OPEN, OPEN, 3]] * 2), jnp.array([[2, 4, -100, 3]] * 2)
    start = flows.initial(config, 2, jax.random.key(0))
    answer = start.replace(step=jnp.array([0, 3]), predicted=jnp.full((2, 4, 5), 0.2))

    def point(train_step):
        key = jax.random.key(1)
        return flows.interpolant(config, answer, inputs, labels, key, train_step)

    early, late = point(0), point(config.flow_pseudotarget_steps)
    np.testing.assert_array_equal(early.time, [answer.times[0, 0], answer.times[1, 3]])
    for found in (early, late):  # given cells stay
        np.testing.assert_array_equal(found.x[:, [0, 3]].argmax(-1), inputs[:, [0, 3]])
        np.testing.assert_array_equal(found.x[:, [0, 3]].sum(-1), 1)
    share = early.time[:, None]
    for cell, token in ((1, 4), (2, 0)):  # a cell without a label counts as padding
        truth = jax.nn.one_hot(token, 5)
        wanted = (1 - share) * answer.x[:, cell] + share * truth
        np.testing.assert_allclose(early.x[:, cell], wanted, rtol=1e-6)
    # After the ramp the step before takes the place of the answer, where there is one.
    np.testing.assert_array_equal(late.x[0], early.x[0])
    wanted = (1 - share[1]) * answer.x[1, 1] + share[1] * 0.2
    np.testing.assert_allclose(late.x[1, 1], wanted, rtol=1e-6)


@pytest.mark.parametrize('noise', [0.0, 1.5])
def test_the_sampler_ends_at_the_last_prediction(noise):
    config = dataclasses.replace(experiment().model, flow_steps=3, flow_noise=noise)
    inputs = jnp.array([[2, OPEN, OPEN, 3]])
    answer = flows.initial(config, 1, jax.random.key(0))
    np.testing.assert_allclose(answer.times[0], [0, 1 / 3, 2 / 3, 1], rtol=1e-6)
    for number in range(3):
        key = jax.random.key(number)
        point = flows.sampler_point(config, answer, inputs, key)
        back = max(1 - noise / 3, 0)
        assert point.time[0] == pytest.approx(back * number / 3)
        logits = jax.random.normal(key, (1, 4, 5))
        before = answer
        answer = flows.moved(config, answer, point, inputs, logits)
        predicted = losses.stablemax(logits)
        share = (answer.times[0, number + 1] - point.time) / (1 - point.time)
        wanted = point.x + share * (predicted - point.x)
        np.testing.assert_allclose(answer.x[:, 1:3], wanted[:, 1:3], atol=1e-6)
        np.testing.assert_array_equal(answer.x[:, [0, 3]].argmax(-1), inputs[:, [0, 3]])
        # Going back by this much noise keeps the standard deviation on the line to the answer.
        if noise == 0:
            np.testing.assert_array_equal(point.x[:, 1:3], before.x[:, 1:3])
    np.testing.assert_allclose(answer.x[:, 1:3], predicted[:, 1:3], atol=1e-6)
    chosen = flows.with_given(config, inputs, logits).argmax(-1)
    np.testing.assert_array_equal(chosen, answer.x.argmax(-1))


def test_noise_that_is_added_makes_up_for_the_step_back():
    config = dataclasses.replace(experiment().model, flow_steps=4, flow_noise=2.0)
    rows = 4000
    inputs, truth = jnp.full((rows, 4), OPEN), jax.nn.one_hot(3, 5)
    answer = flows.initial(config, rows, jax.random.key(0))
    # Where the sample is on the line from noise to the answer, it stays on it.
    answer = answer.replace(
        x=(1 - answer.times[:, 2, None, None]) * answer.x + answer.times[:, 2, None, None] * truth,
        step=jnp.full(rows, 2),
    )
    point = flows.sampler_point(config, answer, inputs, jax.random.key(1))
    assert point.time[0] == pytest.approx(0.25)
    assert (point.x - 0.25 * truth).std() == pytest.approx(0.75 * 5**-0.5, rel=0.02)


def test_early_exit_gives_what_each_puzzle_alone_gets():
    config = combinations_test.experiment('flow')
    mesh = partitioning.make_mesh(jax.devices()[:1])
    weights = train_state.create(config, mesh).weights
    puzzles = combinations_test.batch()
    fixed = dataclasses.replace(config, act=dataclasses.replace(config.act, halting='fixed'))
    worker = early_exit.Worker(fixed, mesh, slots=2, queue=4)
    parts = [answers for answers, _ in worker.answer(weights, [puzzles], seed=7)]
    order = np.argsort(np.concatenate([part.number for part in parts]))
    found = np.concatenate([part.predictions for part in parts])[order]
    result = eval_step.make_eval_step(config, mesh)(weights, puzzles, seed=7)
    np.testing.assert_array_equal(found, result.predictions)
    given = puzzles.inputs != OPEN
    np.testing.assert_array_equal(found[given], puzzles.inputs[given])


def test_a_key_is_asked_for():
    config = experiment().model
    with pytest.raises(ValueError, match='pass a key'):
        flows.initial(config, 1, None)
    assert draws.uniform(jax.random.split(jax.random.key(0), 3), (3, 2)).shape == (3, 2)


def test_what_does_not_go_together_is_refused():
    config = experiment()

    def with_section(name, **settings):
        section = dataclasses.replace(getattr(config, name), **settings)
        return dataclasses.replace(config, **{name: section})

    for section, settings, reason in (
        ('act', {'halting': 'q_learning'}, 'target of q_continue'),
        ('act', {'halt_max_steps': 18}, 'a time for every step'),
        ('loss', {'loss_type': 'softmax_cross_entropy'}, 'stablemax'),
        ('eval', {'depth_multiples': (2,)}, 'another eval.halt_max_steps'),
        ('model', {'flow_open_token': 5}, 'must be a token'),
    ):
        with pytest.raises(ConfigError, match=reason):
            with_section(section, **settings)
    with pytest.raises(CheckpointError, match='looped flows'):
        tensor_names.entries(config.model)
