"""Early exit with slot refill gives every puzzle the answer that it gets alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax import act, eval_step, metrics, partitioning, train_state
from hrm_jax.config import ExperimentConfig
from hrm_jax.inference import early_exit
from hrm_jax.model import hrm, puzzle_table, starts
from hrm_jax.types import Batch

CELLS, VOCAB, PUZZLES, MOST = 9, 6, 23, 5


def make_config(**act_options):
    return ExperimentConfig.from_dict({
        'model': {
            'vocab_size': VOCAB, 'seq_len': CELLS, 'num_puzzle_identifiers': 4, 'H_cycles': 1,
            'L_cycles': 1, 'H_layers': 1, 'L_layers': 1, 'hidden_size': 16, 'num_heads': 2,
            'puzzle_emb_ndim': 16, 'forward_dtype': 'float32',
        },
        'act': {'halt_max_steps': MOST} | act_options,
    })  # fmt: skip


@pytest.fixture(scope='module')
def mesh():
    return partitioning.make_mesh(jax.devices()[:1])


@pytest.fixture(scope='module')
def puzzles():
    rng = np.random.default_rng(0)
    labels = rng.integers(1, VOCAB, (PUZZLES, CELLS)).astype(np.int32)
    labels[:, -1] = -100
    return Batch(
        inputs=rng.integers(1, VOCAB, (PUZZLES, CELLS)).astype(np.int32),
        labels=labels,
        puzzle_identifiers=rng.integers(0, 4, PUZZLES).astype(np.int32),
    )


@pytest.fixture(scope='module')
def weights(mesh, puzzles):
    """Fresh weights whose Q head tells puzzles and steps apart."""
    config = make_config()
    state = train_state.create(config, mesh)
    fresh = state.weights
    kernel = jax.random.normal(jax.random.key(1), fresh.params['q_head']['kernel'].shape)
    table = jax.random.normal(jax.random.key(2), fresh.puzzle_table.shape)

    def with_bias(bias):
        params = fresh.params | {'q_head': {'kernel': kernel, 'bias': jnp.asarray(bias)}}
        return fresh.replace(params=params, puzzle_table=table)

    unbiased = with_bias(jnp.zeros(2))
    [q] = eval_step.answers(config, unbiased, puzzles.inputs, puzzles.puzzle_identifiers, [2])
    # A puzzle halts where its logit is above what most others have.
    bias = [-np.quantile(logits, 0.7) for logits in (q.q_halt, q.q_continue)]
    return with_bias(jnp.array(bias))


def parts(puzzles, size):
    return [
        jax.tree.map(lambda x, s=start: x[s : s + size], puzzles)
        for start in range(0, len(puzzles.inputs), size)
    ]


def answer(config, mesh, weights, batches, slots, queue):
    worker = early_exit.Worker(config, mesh, slots, queue)
    answers, sums = zip(*worker.answer(weights, batches), strict=True)
    fields = [f.name for f in dataclasses.fields(early_exit.Answers)]
    joined = {n: np.concatenate([getattr(a, n) for a in answers]) for n in fields}
    order = np.argsort(joined['number'])
    total = jax.tree.map(lambda *x: np.sum(x), *sums)
    return {n: values[order] for n, values in joined.items()}, total


def alone(config, weights, puzzles):
    """Each puzzle by itself, step by step, until its own rule stops it."""

    @jax.jit
    def step(latent, inputs, ids, steps):
        rows = puzzle_table.puzzle_rows(weights, ids)
        latent, outputs = hrm.act_step(config.model, weights, latent, inputs, rows)
        halted = act.halt(
            outputs,
            jnp.full(1, steps),
            act.inference_min_steps(jnp.zeros(1, jnp.int32), config.act),
            config.act,
        )
        return latent, outputs, halted[0]

    found = {'predictions': [], 'q_halt': [], 'q_continue': [], 'steps': []}
    for one in parts(puzzles, 1):
        latent = starts.fresh_latent(config.model, weights, 1)
        for steps in range(1, MOST + 1):
            latent, outputs, halted = step(latent, one.inputs, one.puzzle_identifiers, steps)
            if halted:
                break
        outputs = jax.device_get(outputs)
        found['predictions'].append(np.argmax(outputs.logits[0], -1))
        found['q_halt'].append(outputs.q_halt[0])
        found['q_continue'].append(outputs.q_continue[0])
        found['steps'].append(steps)
    return {name: np.array(values) for name, values in found.items()}


@pytest.mark.parametrize(
    ('halting', 'slots', 'queue', 'size'),
    [
        ('q_learning', 5, 6, 5),
        ('q_learning', 32, 8, 8),
        ('halt_only', 4, 30, 23),
        ('random', 4, 8, 8),
        ('fixed', 4, 8, 8),
    ],
)
def test_answers_equal_those_of_each_puzzle_alone(
    mesh, weights, puzzles, halting, slots, queue, size
):
    config = make_config(halting=halting)
    expected = alone(config, weights, puzzles)
    got, _ = answer(config, mesh, weights, parts(puzzles, size), slots, queue)
    np.testing.assert_array_equal(got['number'], np.arange(PUZZLES))
    np.testing.assert_array_equal(got['steps'], expected['steps'])
    np.testing.assert_array_equal(got['predictions'], expected['predictions'])
    # Batches of 1 and of many rows round differently, and up to 5 steps follow each other.
    for name in ('q_halt', 'q_continue'):
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-4, atol=1e-4)
    if halting not in ('random', 'fixed'):  # the test would prove little if all halted together
        assert len(set(expected['steps'])) > 2


def test_company_changes_no_bit(mesh, weights, puzzles):
    worker = early_exit.Worker(make_config(), mesh, 6, 23)

    def solve(batch):
        answers = [part for part, _ in worker.answer(weights, [batch])]
        order = np.argsort(np.concatenate([part.number for part in answers]))
        return {
            name: np.concatenate([getattr(part, name) for part in answers])[order]
            for name in ('predictions', 'q_halt', 'q_continue', 'steps')
        }

    together = solve(puzzles)
    for index in (0, 5, 22):
        for name, values in solve(parts(puzzles, 1)[index]).items():
            np.testing.assert_array_equal(values[0], together[name][index])


def test_metrics_are_those_of_the_last_step_of_every_puzzle(mesh, weights, puzzles):
    config = make_config(halting='fixed')
    got, sums = answer(config, mesh, weights, parts(puzzles, 8), 4, 8)
    step = eval_step.make_eval_step(config, mesh)
    expected = metrics.eval_metrics(step(weights, puzzles).sums).compute()
    values = metrics.eval_metrics(sums).compute()
    assert values.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(values[name], value, rtol=1e-5, err_msg=name)
    assert float(values['steps']) == MOST

    got, sums = answer(make_config(), mesh, weights, parts(puzzles, 8), 4, 8)
    scored = puzzles.labels >= 0
    right = (got['predictions'] == puzzles.labels) & scored
    values = metrics.eval_metrics(sums).compute()
    np.testing.assert_allclose(values['accuracy'], (right.sum(1) / scored.sum(1)).mean(), rtol=1e-6)
    np.testing.assert_allclose(values['steps'], got['steps'].mean(), rtol=1e-6)


def test_padding_rows_count_nothing(mesh, weights, puzzles):
    padding = jax.tree.map(np.zeros_like, puzzles)
    padding = padding.replace(labels=np.full_like(puzzles.labels, -100))
    _, expected = answer(make_config(), mesh, weights, [puzzles], 4, 23)
    _, sums = answer(make_config(), mesh, weights, [puzzles, padding], 4, 23)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), sums, expected)


def test_no_puzzles_and_too_many(mesh, weights, puzzles):
    got, sums = answer(make_config(), mesh, weights, [], 4, 8)
    assert len(got['number']) == 0
    assert float(sums.rows) == 0
    with pytest.raises(ValueError, match='at most 8 rows; got 23'):
        answer(make_config(), mesh, weights, [puzzles], 4, 8)


def test_the_longest_run_is_a_setting_of_the_evaluation(mesh, weights, puzzles):
    config = make_config(halting='fixed').with_eval_steps(2)
    got, _ = answer(config, mesh, weights, [puzzles], 4, 23)
    assert set(got['steps']) == {2}
