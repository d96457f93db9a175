"""Winner takes all: who wins, what is learned and kept, which chains are dropped, who answers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax import act, eval_step, partitioning, train_state, train_step
from hrm_jax.errors import ConfigError
from hrm_jax.inference import early_exit
from hrm_jax.model import chains, hrm, puzzle_table, starts
from hrm_jax.types import LatentState, Outputs
from tests import combinations_test, commands

CHAINS = 3


@pytest.fixture(scope='module', autouse=True)
def _compiled():
    with commands.quick_compiles():
        yield


def experiment(chains_at_inference: int = 1, **model):
    config = combinations_test.experiment()
    model = {'chains': CHAINS, **model}
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, **model),
        eval=dataclasses.replace(config.eval, chains=chains_at_inference),
    )


@pytest.fixture(scope='module')
def weights():
    """Weights whose chains differ and whose Q head sees it."""
    state = train_state.create(experiment(), partitioning.make_mesh(jax.devices()[:1]))
    kernel = jax.random.normal(jax.random.key(1), (8, 2))
    q_head = {'kernel': kernel, 'bias': jnp.zeros(2)}
    return state.weights.replace(params=state.weights.params | {'q_head': q_head})


def _loss(config, weights, carry):
    rows = puzzle_table.puzzle_rows(weights, carry.batch.puzzle_identifiers)
    least = jnp.zeros_like(carry.steps)

    def loss(params):
        moved = weights.replace(params=params)
        return train_step.step_loss(config, moved, rows, carry, least, jax.random.key(0))

    return jax.value_and_grad(loss, has_aux=True)(weights.params)


def test_only_the_best_chain_is_learned_and_all_get_its_high_state(weights):
    config, batch = experiment(), combinations_test.batch()
    one = dataclasses.replace(config, model=dataclasses.replace(config.model, chains=1))
    carry = act.initial_carry(starts.empty_latent(config.model, 4), batch)
    carry = act.refill(carry, batch, starts.initial_latent(config.model, weights, 4))
    low = 3 * jax.random.normal(jax.random.key(2), carry.latent.low.shape)
    carry = dataclasses.replace(carry, latent=carry.latent.replace(low=low))

    @jax.jit
    def run(weights, carry):
        found = _loss(config, weights, carry)
        singles = []
        for chain in range(CHAINS):
            latent = LatentState(carry.latent.high[:, chain], carry.latent.low[:, chain])
            alone = dataclasses.replace(carry, latent=latent)
            singles.append(jax.vmap(
                lambda row: _loss(one, weights, jax.tree.map(lambda x: x[None], row))
            )(alone))  # fmt: skip
        return found, singles

    ((loss, (after, outputs, _, _)), grads), singles = run(weights, carry)
    token_losses = np.stack([single[0][1][3].lm_loss for single in singles], 1)
    winner = token_losses.argmin(1)
    assert len(set(winner)) > 1, 'one chain wins everywhere: the test shows little'

    def of_winner(read):
        values = np.stack([read(single) for single in singles], 1)
        return values[np.arange(4), winner]

    assert loss == pytest.approx(of_winner(lambda single: single[0][0]).sum(), rel=1e-5)
    wanted = of_winner(
        lambda single: single[1]['L_level']['layers_0']['mlp']['down_proj']['kernel']
    )
    got = grads['L_level']['layers_0']['mlp']['down_proj']['kernel']
    np.testing.assert_allclose(got, wanted.sum(0), atol=1e-6)
    high = of_winner(lambda single: single[0][1][0].latent.high[:, 0])
    for chain in range(CHAINS):
        np.testing.assert_allclose(after.latent.high[:, chain], high, atol=1e-5)
        low = singles[chain][0][1][0].latent.low[:, 0]
        np.testing.assert_allclose(after.latent.low[:, chain], low, atol=1e-5)
    logits = of_winner(lambda single: single[0][1][1].logits[:, 0])
    np.testing.assert_allclose(outputs.logits, logits, atol=1e-5)


def _hand_made(low, losses, alive=None):
    rows, count = np.shape(losses)
    low = jnp.asarray(low, jnp.float32).reshape(rows, count, 1, -1)
    numbers = jnp.arange(rows * count, dtype=jnp.float32).reshape(rows, count)
    alive = jnp.ones((rows, count), bool) if alive is None else jnp.asarray(alive)
    latent = LatentState(high=numbers[..., None, None], low=low, alive=alive)
    outputs = Outputs(logits=numbers[..., None, None], q_halt=numbers, q_continue=numbers)
    config = experiment(chain_similarity=0.95).model
    return chains.compete(config, latent, outputs, jnp.asarray(losses))


def test_of_nearly_equal_chains_the_worst_is_dropped():
    x, y, z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
    near_x = (1.0, 0.2, 0.0)
    latent, outputs = _hand_made(
        [[x, near_x, y], [x, y, near_x], [x, y, z], [x, x, x], [x, near_x, y]],
        [[1.0, 2.0, 9.0], [3.0, 1.0, 2.0], [1.0, 2.0, 3.0], [2.0, 1.0, 3.0], [1.0, 2.0, 3.0]],
        [[True] * 3] * 4 + [[True, False, True]],
    )
    np.testing.assert_array_equal(
        latent.alive,
        [[1, 0, 1], [0, 1, 1], [1, 1, 1], [1, 1, 0], [1, 0, 1]],
    )
    np.testing.assert_array_equal(outputs.q_halt, [0, 4, 6, 10, 12])


def test_a_dropped_chain_cannot_win():
    x, y, z = np.eye(3)
    latent, outputs = _hand_made([[x, y, z]], [[3.0, 1.0, 2.0]], [[True, False, True]])
    np.testing.assert_array_equal(outputs.q_halt, [2])
    np.testing.assert_array_equal(latent.high.ravel(), [2, 2, 2])
    np.testing.assert_array_equal(latent.alive, [[1, 0, 1]])


def test_the_surest_of_the_chains_that_halt_answers():
    q = jnp.array([[-1.0, 0.5, 2.0], [-2.0, -1.0, -3.0], [0.1, -1.0, -1.0]])
    numbers = jnp.arange(9.0).reshape(3, 3)
    found = chains.first_to_halt(Outputs(numbers[..., None, None], q, numbers))
    np.testing.assert_array_equal(found.q_continue, [2, 3, 6])
    np.testing.assert_allclose(found.q_halt, [2.0, -2.0, 0.1])


def test_aligned_starts_reach_equally_far_into_the_strongest_inputs():
    kernel = (
        jax.random.normal(jax.random.key(0), (24, 2, 16)) * jnp.linspace(0.1, 2, 24)[:, None, None]
    )
    starts = jax.random.normal(jax.random.key(1), (2, CHAINS, 5, 24))
    found = np.asarray(chains.aligned(starts, kernel), np.float64)
    strongest = np.linalg.svd(np.asarray(kernel, np.float64).reshape(24, -1).T)[2][:10]
    share = np.linalg.norm(found @ strongest.T, axis=-1) / np.linalg.norm(found, axis=-1)
    before = np.linalg.norm(starts @ strongest.T, axis=-1) / np.linalg.norm(starts, axis=-1)
    assert np.ptp(before, axis=1).min() > 1e-3
    np.testing.assert_allclose(share, np.repeat(before[:, :1], CHAINS, 1), atol=1e-5)
    np.testing.assert_allclose(
        np.linalg.norm(found, axis=-1), np.linalg.norm(starts, axis=-1), rtol=1e-5
    )
    np.testing.assert_allclose(found[:, 0], starts[:, 0], rtol=1e-6)


@pytest.mark.parametrize('count', [1, 2, CHAINS])
def test_fewer_chains_than_were_trained_are_the_first_ones(weights, count):
    model = experiment(chains_at_inference=count).inference_model
    start = starts.fresh_latent(model, weights, 4)
    assert start.low.shape == starts.empty_latent(model, 4).low.shape
    found = start.low.reshape(4, count, *start.low.shape[-2:])
    for chain in range(count):
        one = np.broadcast_to(weights.constants['L_init'][chain], found[:, chain].shape)
        np.testing.assert_array_equal(found[:, chain], one)


def test_at_inference_the_first_chain_answers_or_the_first_to_halt(weights):
    batch = combinations_test.batch()
    mesh = partitioning.make_mesh(jax.devices()[:1])
    config = experiment(chains_at_inference=CHAINS)
    assert experiment().inference_model.chains == 1
    # Each chain alone, from its own start.
    one = experiment().inference_model
    latents = [
        starts.fresh_latent(one, weights.replace(constants=weights.constants | {
            'L_init': weights.constants['L_init'][chain]
        }), 4)
        for chain in range(CHAINS)
    ]  # fmt: skip
    rows = puzzle_table.puzzle_rows(weights, batch.puzzle_identifiers)

    @jax.jit
    def run(latents):
        found = []
        for latent in latents:
            steps = []
            for _ in range(config.eval_steps):
                latent, outputs = hrm.act_step(one, weights, latent, batch.inputs, rows)
                steps.append((outputs.q_halt, jnp.argmax(outputs.logits, -1)))
            found.append(steps)
        return found

    alone = run(latents)
    q = np.stack([[q for q, _ in steps] for steps in alone], 2)  # [step, row, chain]
    answers = np.stack([[a for _, a in steps] for steps in alone], 2)
    worker = early_exit.Worker(config, mesh, slots=2, queue=4)
    parts = [part for part, _ in worker.answer(weights, [batch])]
    order = np.argsort(np.concatenate([part.number for part in parts]))
    found, spent = (
        np.concatenate([getattr(part, name) for part in parts])[order]
        for name in ('predictions', 'steps')
    )
    for row in range(4):
        halting = [step for step in range(config.eval_steps) if (q[step, row] > 0).any()]
        step = halting[0] if halting else config.eval_steps - 1
        chain = q[step, row].argmax() if halting else 0
        assert spent[row] == step + 1
        np.testing.assert_array_equal(found[row], answers[step, row, chain])
    single = eval_step.make_eval_step(experiment(), mesh)(weights, batch)
    np.testing.assert_array_equal(single.predictions, answers[-1, :, 0])


def test_what_does_not_go_together_is_refused():
    for settings, reason in (
        ({'levels': 'single'}, 'beside a shared high one'),
        ({'low_states': 2}, 'beside a shared high one'),
        ({'chain_similarity': 2.0}, 'is a cosine'),
        ({'chains': 1, 'align_chains': True}, 'of several chains'),
        ({'initial_state': 'learned', 'align_chains': True}, 'trains them'),
    ):
        with pytest.raises(ConfigError, match=reason):
            experiment(**settings)
    with pytest.raises(ConfigError, match='a start of its own'):
        experiment(chains_at_inference=4)
    config = experiment()
    q_learning = dataclasses.replace(config.act, halting='q_learning')
    with pytest.raises(ConfigError, match='whose winner is not known yet'):
        dataclasses.replace(config, act=q_learning)
