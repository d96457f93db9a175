"""Candidate sets: elimination, conflicts, pins; the pool of training, the chains of inference."""

import dataclasses
import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_builders import sudoku_boards
from experiments import flop_counts
from hrm_jax import evaluate, metrics, partitioning, pool, train, train_state, train_step
from hrm_jax.cli.solutions import Entry, Show
from hrm_jax.config import DataConfig, ExperimentConfig, ModelConfig, RolloutConfig
from hrm_jax.errors import ConfigError
from hrm_jax.inference import early_exit, rollouts
from hrm_jax.inference.rollouts_choice import Chains
from hrm_jax.inference.solver import Solver
from hrm_jax.model import draws, flops, hrm, lattice, starts
from hrm_jax.model.candidates import Readings
from hrm_jax.tasks import Sudoku
from hrm_jax.types import IGNORE_LABEL_ID, Batch
from tests import commands, npy_sets
from tests.resume_test import assert_same_end

BASE = {
    'model': {
        'vocab_size': 6, 'seq_len': 16, 'num_puzzle_identifiers': 1, 'block': 'transformer',
        'levels': 'single', 'H_cycles': 1, 'L_cycles': 3, 'L_layers': 1, 'hidden_size': 16,
        'num_heads': 2, 'gradient_window': 'full', 'qkv_bias': True, 'o_bias': True,
        'pos_encodings': 'rows+columns', 'added_tokens': 1, 'puzzle_emb_ndim': 0, 'q_head': False,
        'initializer': 'torch', 'forward_dtype': 'float32', 'lattice': {'on': True},
    },
    'act': {'halting': 'solved', 'halt_exploration_prob': 0.0, 'halt_max_steps': 101},
    'loss': {'loss_type': 'softmax_cross_entropy', 'q_weight': 0.0},
    'optimizer': {
        'name': 'adamw', 'lr': 3e-3, 'lr_warmup_steps': 20, 'lr_min_ratio': 0.01,
        'grad_clip_norm': 1.0,
    },
    'train': {'global_batch_size': 8},
    'eval': {'halting': 'adaptive', 'halt_max_steps': 20},
}  # fmt: skip


def experiment(**sections) -> ExperimentConfig:
    values = {name: dict(settings) for name, settings in BASE.items()}
    for name, settings in sections.items():
        values[name] = values.get(name, {}) | settings
    return ExperimentConfig.from_dict(values)


def boards(count: int, seed: int = 0) -> tuple[Batch, Batch]:
    """4x4 Sudokus with one solution, for training and, of other solutions, for testing."""
    tables = sudoku_boards.generate(4, count, 64, np.random.default_rng(seed))
    return tuple(
        Batch(
            tables[split].questions.reshape(-1, 16).astype(np.int32) + 1,
            tables[split].answers.reshape(-1, 16).astype(np.int32) + 1,
            np.zeros(len(tables[split].questions), np.int32),
        )
        for split in ('train', 'test')
    )  # fmt: skip


def mesh(devices: int = 1):
    return partitioning.make_mesh(jax.devices()[:devices])


MODEL = experiment().model


@pytest.fixture
def _quickly():
    """For tests that compile more than they run; those of the trained model run more."""
    with commands.quick_compiles():
        yield


def test_a_question_leaves_its_candidates():
    inputs = jnp.array([[1, 3, 5, 1] * 4])
    alive = lattice.meet(MODEL, jnp.ones((1, 16, 4), bool), inputs)[0]
    assert alive[0].tolist() == [True] * 4
    assert alive[1].tolist() == [False, True, False, False]
    some = experiment(
        model={'lattice': {'on': True, 'views': 'board', 'open_candidates': (3, 5)}}
    ).model
    alive = lattice.meet(some, jnp.ones((1, 16, 4), bool), inputs)[0]
    assert alive[0].tolist() == [False, True, False, True]
    assert alive[2].tolist() == [False, False, False, True]


def test_views_are_symmetries_and_can_be_undone():
    view = lattice.draw_view(MODEL, jax.random.key(0), 64)
    assert len(np.unique(view.turn)) == 8
    assert len({tuple(order) for order in np.asarray(view.symbols).tolist()}) > 12
    sets = jax.random.bernoulli(jax.random.key(1), 0.5, (64, 16, 4))
    seen = lattice.through(view, sets)
    np.testing.assert_array_equal(lattice.back(view, seen), sets)
    cells = jnp.tile(jnp.arange(16), (64, 1))
    np.testing.assert_array_equal(lattice.back(view, lattice.through(view, cells)), cells)
    moved = lattice.through(view, jnp.eye(16, 4, dtype=bool)[None].repeat(64, 0))
    assert (moved.sum((1, 2)) == 4).all()  # nothing is lost
    # A solved board stays one under every view.
    solution = boards(8)[0].labels[:1].repeat(64, 0)
    seen = lattice.through(view, lattice.one_hot(MODEL, jnp.asarray(solution)))
    task = Sudoku(16, 6)
    for row in np.asarray(seen.argmax(-1)) + 2:
        assert task.is_valid(np.ones(16, int), row)


def readings(keep, conflict=-5.0, choice=None) -> Readings:
    """Of one row: given logits of keeping, or one for all."""
    keep = jnp.broadcast_to(jnp.asarray(keep, jnp.float32), (1, 16, 4))
    choice = jnp.zeros((1, 16, 4)) if choice is None else choice
    return Readings(keep, choice, jnp.array([conflict], jnp.float32))


def one_step(model: ModelConfig, inputs, found: Readings, left=None, key=0):
    left = jnp.ones((1, 16, 4), bool) if left is None else left
    plain = dataclasses.replace(model, lattice=dataclasses.replace(model.lattice, views='none'))
    return lattice.step(plain, lambda _: found, left, inputs, jax.random.key(key))


def test_a_step_eliminates_and_pins_one_open_cell():
    inputs = jnp.array([[2] + [1] * 15])
    keep = jnp.zeros((16, 4)).at[:, 0].set(-10.0)  # digit 1 can stand nowhere
    chosen = set()
    for key in range(40):
        left, outputs = one_step(MODEL, inputs, readings(keep), key=key)
        assert left[0, 0].tolist() == [True, False, False, False]  # a given stays
        assert not left[0, 1:, 0].any()
        counts = np.asarray(left[0].sum(-1))
        [pinned] = np.flatnonzero(counts[1:] == 1) + 1
        chosen.add((int(pinned), int(left[0, pinned].argmax())))
        assert (np.delete(counts[1:], pinned - 1) == 3).all()
        assert not bool(outputs.conflict[0])
        assert not bool(outputs.q_halt[0] > outputs.q_continue[0])
    assert len({cell for cell, _ in chosen}) > 10
    assert {symbol for _, symbol in chosen} == {1, 2, 3}


def test_pins_follow_the_choice_head():
    choice = jnp.zeros((1, 16, 4)).at[..., 2].set(30.0)
    for key in range(5):
        left, _ = one_step(MODEL, jnp.ones((1, 16), int), readings(0.0, choice=choice), key=key)
        [cell] = np.flatnonzero(left[0].sum(-1) == 1)
        assert left[0, cell].tolist() == [False, False, True, False]


@pytest.mark.parametrize('restarts', [False, True])
def test_conflicts_keep_what_is_left_or_begin_again(restarts):
    model = dataclasses.replace(
        MODEL, lattice=dataclasses.replace(MODEL.lattice, restarts=restarts)
    )
    inputs, some = jnp.ones((1, 16), int), jnp.ones((1, 16, 4), bool).at[0, 3, :2].set(False)
    for found in (readings(0.0, conflict=1.0), readings(-10.0)):  # seen, or an empty cell
        left, outputs = one_step(model, inputs, found, some)
        assert bool(outputs.conflict[0])
        assert not bool(outputs.q_halt[0] > outputs.q_continue[0])
        assert bool(left.all()) == restarts
        if not restarts:
            kept = some & (jax.nn.sigmoid(found.keep) >= 0.1)
            np.testing.assert_array_equal(left, kept)


def test_a_complete_board_without_conflict_is_solved():
    solution = jnp.asarray(boards(8)[0].labels[:1])
    done = lattice.one_hot(MODEL, solution)
    inputs = jnp.ones((1, 16), int)
    left, outputs = one_step(MODEL, inputs, readings(0.0), done)
    assert bool(outputs.q_halt[0] > outputs.q_continue[0])
    np.testing.assert_array_equal(left, done)
    np.testing.assert_array_equal(outputs.logits.argmax(-1), solution)
    _, outputs = one_step(MODEL, inputs, readings(0.0, conflict=0.1), done)
    assert not bool(outputs.q_halt[0] > outputs.q_continue[0])


def test_hints_are_right_or_leave_no_solution():
    batch = jax.tree.map(lambda x: jnp.asarray(np.tile(x, (8, *[1] * (x.ndim - 1)))), boards(64)[0])
    data = DataConfig(hint_prob=0.5, wrong_hint_prob=0.25)
    hinted = pool.with_hints(MODEL, data, batch, jax.random.key(0))
    before, after = np.asarray(batch.inputs), np.asarray(hinted.inputs)
    changed = before != after
    assert (before[changed] == 1).all()  # open cells only
    wrong = np.asarray(hinted.labels == IGNORE_LABEL_ID).all(1)
    assert 0.18 < wrong.mean() < 0.32
    assert 0.2 < (~changed.any(1)).mean() < 0.45  # a quarter, and hints of no cell
    right = ~wrong
    np.testing.assert_array_equal(hinted.labels[right], batch.labels[right])
    assert (after == batch.labels)[changed & right[:, None]].all()
    errors = (changed & (after != batch.labels)).sum(1)
    assert (errors[wrong] >= 1).all()
    assert (errors[wrong] <= np.maximum(1, 0.3 * changed[wrong].sum(1))).all()
    assert not errors[right].any()
    assert after.min() >= 1
    assert after.max() <= 5
    alive = lattice.meet(MODEL, jnp.ones((512, 16, 4), bool), hinted.inputs)
    conflict = pool.has_conflict(MODEL, alive, hinted.labels)
    np.testing.assert_array_equal(conflict, wrong)


def test_the_loss_looks_at_what_it_should():
    batch = boards(8)[0]
    inputs, labels = jnp.asarray(batch.inputs[:2]), jnp.asarray(batch.labels[:2])
    alive = lattice.meet(MODEL, jnp.ones((2, 16, 4), bool), inputs)
    target, open_cells = lattice.one_hot(MODEL, labels), lattice.open_cells(MODEL, inputs)
    lost = alive.at[1].set(alive[1] & ~target[1])
    conflict = pool.has_conflict(MODEL, lost, labels)
    assert conflict.tolist() == [False, True]
    zeros = jnp.zeros((1, 2, 16, 4))

    def parts(keep, choice):
        found = Readings(keep, choice, jnp.zeros((1, 2)))
        return pool.loss_parts(found, lost, open_cells, target, conflict, experiment().loss)

    plain = parts(zeros, zeros)
    share = float((lost & target).mean())
    np.testing.assert_allclose(plain[0], np.log(2) * (4 * share + 0.5 * (1 - share)), rtol=1e-5)
    np.testing.assert_allclose(plain[1], np.log(4), rtol=1e-5)
    np.testing.assert_allclose(plain[2], np.log(2), rtol=1e-5)

    def gradient(choice):
        return jax.grad(lambda x: parts(zeros, x)[1].sum())(choice)

    seen = np.asarray(jnp.abs(gradient(zeros)[0]).sum(-1) > 0)
    np.testing.assert_array_equal(seen[0], open_cells[0])
    assert not seen[1].any()  # a row in conflict has no choice to learn


LEARNER = {
    'model': {'hidden_size': 32, 'L_cycles': 4, 'L_layers': 2},
    'train': {'global_batch_size': 64},
    'data': {'hint_prob': 0.55, 'wrong_hint_prob': 0.25},
    'eval': {
        'conflict_above': 0.6, 'halt_max_steps': 60, 'global_batch_size': 64,
        'rollouts': {'breadth': 4, 'select': 'first_chain', 'halt_together': True},
    },
}  # fmt: skip


def learner() -> ExperimentConfig:
    return experiment(**LEARNER)


@pytest.fixture(scope='module')
def trained():
    """A model that has learned 4x4 Sudokus for some seconds, and the test puzzles."""
    config, steps = learner(), 400
    train_set, test_set = boards(1000)
    state = train_state.create(config, mesh())
    run = train_step.make_train_steps(config, steps, mesh())
    rng = np.random.default_rng(0)
    for _ in range(steps // 20):
        rows = rng.integers(0, len(train_set.inputs), (20, 64))
        batches = tuple(jax.tree.map(lambda x, r=r: x[r], train_set) for r in rows)
        state, sums = run(state, batches)
    return config, state, sums, test_set


def test_learns_small_sudokus_and_solves_new_ones(trained):
    config, state, sums, test_set = trained
    assert float(sums[-1].lm_loss) < 0.5 * 64
    runner = rollouts.Runner(config, mesh(), 64, 256)
    found = [
        one for part in runner.run([state.weights], iter([test_set]), Sudoku(16, 6), 'sudoku')
        for [one] in part
    ]  # fmt: skip
    labels = test_set.labels[[one.number for one in found]]
    scores = metrics.to_floats(
        metrics.rollout_metrics(config, evaluate._score_rollouts(config, found, labels)), 'x'
    )
    assert len(found) == 64
    assert scores['x/exact_accuracy'] > 0.85
    total = scores['x/exact_accuracy'] + scores['x/abstained'] + scores['x/wrong']
    assert total == pytest.approx(1, abs=1e-6)
    assert 1 < scores['x/rounds'] <= 60
    assert np.isfinite(scores['x/gflops'])


def test_the_solver_answers(trained):
    config, state, _, test_set = trained
    solver = Solver(config, state.weights, Sudoku(16, 6), 'sudoku')
    solutions = solver.solve(test_set.inputs[:8])
    assert sum(one.valid for one in solutions) >= 6
    for one in solutions:
        assert one.chains == 4
    assert not all(one.abstained for one in solutions)


@pytest.mark.usefixtures('_quickly')
def test_the_solver_admits_defeat():
    config = learner()
    solver = Solver(config, train_state.create(config, mesh()).weights, Sudoku(16, 6), 'sudoku')
    question, guess = np.ones(16, np.int32), np.full((4, 16), 2)
    chains = Chains(
        predictions=guess, answers=guess, q_halt=np.zeros(4), q_continue=np.full(4, 1e6),
        steps=np.full(4, 60), change=np.full(4, np.nan),
    )  # fmt: skip
    found = solver._solution(question, rollouts.Rollout(0, chains, 0, np.arange(4)))
    assert found.abstained
    assert not found.valid
    np.testing.assert_array_equal(found.answer, question)
    claimed = dataclasses.replace(chains, q_continue=np.full(4, -1e6))
    found = solver._solution(question, rollouts.Rollout(0, claimed, 0, np.arange(4)))
    assert not found.abstained
    np.testing.assert_array_equal(found.answer, guess[0])
    entry = Entry('', question, solution=dataclasses.replace(found, abstained=True))
    line = Show(solver, 'text', None, 0, header=False)._line(entry)
    assert line.split('\t')[-1].startswith('unsolved')  # and an empty board has several solutions


def test_labels_take_no_part_in_inference(trained):
    config, state, _, test_set = trained
    runner = rollouts.Runner(config, mesh(), 64, 256)
    few = jax.tree.map(lambda x: x[:16], test_set)

    def answers(batch):
        parts = runner.run([state.weights], iter([batch]), Sudoku(16, 6), 'sudoku')
        found = [one for part in parts for [one] in part]
        return np.stack([one.answer for one in sorted(found, key=lambda one: one.number)])

    nonsense = few.replace(labels=np.full_like(few.labels, 2))
    np.testing.assert_array_equal(answers(few), answers(nonsense))


@pytest.mark.usefixtures('_quickly')
def test_answers_are_those_of_each_puzzle_alone(trained):
    config, state, _, test_set = trained
    one_chain = dataclasses.replace(config.eval, rollouts=RolloutConfig(), halt_max_steps=12)
    config = dataclasses.replace(config, eval=one_chain)
    few = jax.tree.map(lambda x: x[:7], test_set)
    worker = early_exit.Worker(config, mesh(), 3, 4)
    halves = [jax.tree.map(lambda x, s=s: x[s], few) for s in (slice(4), slice(4, 7))]
    parts = [part for part, _ in worker.answer(state.weights, halves, seed=5)]
    order = np.argsort(np.concatenate([part.number for part in parts]))
    got = {
        n: np.concatenate([getattr(p, n) for p in parts])[order] for n in ('predictions', 'steps')
    }
    model = config.inference_model

    @jax.jit
    def step(latent, inputs, keys):
        return hrm.act_step(model, state.weights, latent, inputs, None, keys)

    for number in range(7):
        latent = starts.fresh_latent(model, state.weights, 1)
        keys = draws.per_row(jax.random.key(5), jnp.array([number]))
        for steps in range(1, 13):
            latent, outputs = step(latent, few.inputs[number][None], draws.fold(keys, steps))
            if outputs.q_halt[0] > outputs.q_continue[0]:
                break
        assert got['steps'][number] == steps
        np.testing.assert_array_equal(got['predictions'][number], outputs.logits[0].argmax(-1))
    assert len(set(got['steps'])) > 1


@pytest.mark.usefixtures('_quickly')
def test_rows_are_replaced_when_solved_seen_in_conflict_or_old(trained):
    config, state, _, _ = trained
    config = dataclasses.replace(config, act=dataclasses.replace(config.act, halt_max_steps=3))
    train_set, _ = boards(1000)
    batch = jax.tree.map(lambda x: jnp.asarray(x[:64]), train_set)
    fresh = starts.fresh_latent(config.model, state.weights, 64)
    carry = dataclasses.replace(
        state.carry, latent=fresh, steps=jnp.zeros(64, jnp.int32), halted=jnp.zeros(64, bool),
        batch=batch,
    )  # fmt: skip
    run = jax.jit(lambda carry, key: pool.move(config, state.weights, carry, key))
    moved, _ = run(carry, jax.random.key(0))
    assert (moved.steps == 1).all()
    assert not moved.halted.all()
    counts = moved.latent.high.sum((1, 2))
    assert (counts < carry.latent.high.sum((1, 2))).all()
    old, _ = run(dataclasses.replace(moved, steps=moved.steps + 1), jax.random.key(1))
    assert old.halted.all()  # the third step
    # Solved boards; and such that have lost their solution, which is seen or not.
    done = fresh.replace(high=lattice.one_hot(config.model, batch.labels))
    solved, sums = run(dataclasses.replace(carry, latent=done), jax.random.key(2))
    assert float(solved.halted.mean()) > 0.9
    assert float(sums.exact_accuracy) == float(solved.halted.sum())


@pytest.mark.usefixtures('_quickly')
def test_the_count_by_hand_is_that_of_the_programs_dots():
    config = experiment(
        model={
            'hidden_size': 64, 'L_cycles': 2, 'unroll_cycles': True,
            'pos_encodings': 'rope2d_pairs',
        },
        train={'global_batch_size': 1},
    )  # fmt: skip
    state = train_state.abstract(config, mesh())
    inputs = jax.ShapeDtypeStruct((1, 16), jnp.int32)
    forward = jax.jit(
        lambda w, z, x: hrm.act_step(config.model, w, z, x, None, jax.random.key(0))
    ).lower(state.weights, state.carry.latent, inputs)
    counted = flop_counts.optimized_flops(forward.compile().as_text())
    assert counted / flops.act_step(config.model) == pytest.approx(1, abs=0.005)
    step = train_step.make_train_step(config, 100, mesh()).lower(state, state.carry.batch)
    counted = flop_counts.optimized_flops(step.compile().as_text())
    assert counted / flops.train_step(config.model, config.act) == pytest.approx(1, abs=0.005)


@pytest.mark.usefixtures('_quickly')
def test_loops_in_and_out_of_the_program_are_the_same():
    found = {}
    alive = jax.random.bernoulli(jax.random.key(1), 0.6, (2, 16, 4))
    for unroll in (False, True):
        config = experiment(model={'unroll_cycles': unroll})
        state = train_state.create(config, mesh())
        found[unroll] = jax.jit(
            lambda w, c=config: hrm.read_candidates(c.model, w, alive, all_loops=True)
        )(state.weights)
    for one, other in zip(*map(jax.tree.leaves, found.values()), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5)


@pytest.mark.usefixtures('_quickly')
def test_dropout_at_inference_is_a_puzzles_own():
    config = experiment(
        model={'dropout': 0.1, 'attention_dropout': 0.1},
        eval={'dropout': 0.5, 'eliminate_below': 0.2, 'conflict_above': 0.7},
    )
    model = config.inference_model
    assert (model.dropout, model.attention_dropout, model.dropout_at_inference) == (0.5, 0.5, True)
    assert (model.lattice.eliminate_below, model.lattice.conflict_above) == (0.2, 0.7)
    assert model.lattice.restarts
    assert not config.model.lattice.restarts
    weights = train_state.create(config, mesh()).weights
    keys = jax.random.split(jax.random.key(0), 3)
    alive = jax.random.bernoulli(jax.random.key(1), 0.6, (1, 16, 4)).repeat(3, 0)
    read = jax.jit(lambda keys, alive: hrm.read_candidates(model, weights, alive, keys))
    several, alone = read(keys, alive), read(keys[1:2], alive[1:2])
    assert float(jnp.abs(several.keep[0] - several.keep[1]).max()) > 1e-3
    np.testing.assert_allclose(several.keep[1:2], alone.keep, rtol=1e-5, atol=1e-5)


REFUSED = {
    'block': ({'model': {'block': 'attention', 'pos_encodings': 'none'}}, 'loops one stack'),
    'levels': ({'model': {'levels': 'shared'}}, 'loops one stack'),
    'window': ({'model': {'gradient_window': 'last_cycle'}}, 'loops one stack'),
    'chains': ({'model': {'chains': 2}}, 'model.chains'),
    'flow': ({'model': {'flow': True}}, 'work on vectors'),
    'running mean': ({'model': {'running_mean': True}}, 'work on vectors'),
    'symbol axis': ({'model': {'symbol_exchange': 'mean'}}, 'model.block=transformer has no'),
    'random start': ({'model': {'initial_state': 'random'}}, 'neither drawn nor damped'),
    'noise': ({'model': {'update_noise': 0.1}}, 'neither drawn nor damped'),
    'puzzle vectors': ({'model': {'puzzle_emb_ndim': 16}}, 'one slot after the cells'),
    'Q head': ({'model': {'q_head': True}}, 'in place of Q'),
    'positions': ({'model': {'pos_encodings': 'learned'}}, 'knows the positions'),
    'halting': ({'act': {'halting': 'fixed'}}, 'act.halting=solved'),
    'full depth': ({'eval': {'halting': 'max'}}, 'further steps would search on'),
    'curriculum': ({'train': {'curriculum': 'cgar'}}, 'train.curriculum'),
    'anchors': ({'loss': {'anchor_weight': 1.0}}, 'anchor_weight'),
    'micro-batches': ({'train': {'micro_batches': 2}}, 'train.micro_batches must be 1'),
    'shares': ({'data': {'hint_prob': 0.8, 'wrong_hint_prob': 0.3}}, 'together at most 1'),
}  # fmt: skip


@pytest.mark.parametrize('name', REFUSED)
def test_what_does_not_fit_is_refused_with_a_reason(name):
    changes, reason = REFUSED[name]
    with pytest.raises(ConfigError, match=reason):
        experiment(**changes)


def test_what_fits_takes_part_in_the_step():
    config = experiment(
        model={'remat': True, 'dropout': 0.1, 'attention_dropout': 0.1, 'pre_norm': False},
        optimizer={'name': 'muon', 'ema_decay': 0.9},
        data={'hint_prob': 0.3, 'wrong_hint_prob': 0.3},
        eval={'rollouts': {'breadth': 3, 'views': 'random', 'select': 'vote'}},
    )
    state = train_state.abstract(config, mesh())
    step = train_step.make_train_steps(config, 10, mesh())
    after, sums = jax.eval_shape(step, state, (state.carry.batch,) * 2)
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), (state, after))
    assert shapes[0] == shapes[1]
    assert len(sums) == 2
    assert after.carry.latent.high.dtype == jnp.bool_


def test_what_belongs_to_candidate_sets_is_refused_elsewhere():
    for section in (
        {'act': {'halting': 'solved'}}, {'data': {'wrong_hint_prob': 0.5}},
        {'eval': {'conflict_above': 0.6}},
        {'model': {'pos_encodings': 'rows+columns'}},
    ):  # fmt: skip
        with pytest.raises(ConfigError, match='lattice'):
            ExperimentConfig.from_dict(section)


@pytest.mark.parametrize(
    ('name', 'vocab', 'cells', 'parameters'),
    [('sudoku_ldt', 11, 81, 799_635), ('maze_ldt', 6, 900, 1_783_499)],
)
def test_shipped_recipes_have_the_published_size(name, vocab, cells, parameters):
    config = ExperimentConfig.from_dict(importlib.import_module(f'configs.{name}').get_config())
    model = config.model.for_dataset(
        vocab_size=vocab, seq_len=cells, num_puzzle_identifiers=1
    )  # fmt: skip
    state = train_state.abstract(dataclasses.replace(config, model=model), mesh())
    assert sum(leaf.size for leaf in jax.tree.leaves(state.weights.params)) == parameters


@pytest.mark.usefixtures('_quickly')
def test_a_run_with_its_pool_resumes_exactly(tmp_path):
    some = boards(40)[0]
    facts = {
        'vocab_size': 6, 'seq_len': 16, 'num_puzzle_identifiers': 1, 'total_groups': 40,
        'mean_puzzle_examples': 1.0,
    }  # fmt: skip
    data = npy_sets.npy(
        tmp_path / 'data', facts, inputs=some.inputs.astype(np.uint8),
        labels=some.labels.astype(np.uint8), puzzle_identifiers=np.zeros(40, np.int32),
        puzzle_indices=np.arange(41, dtype=np.int32), group_indices=np.arange(41, dtype=np.int32),
    )  # fmt: skip
    settings = {
        'name': 'pool',
        'data': {'path': str(data), 'task': 'sudoku', 'hint_prob': 0.4, 'wrong_hint_prob': 0.3},
        'logging': {'tensorboard': False},
        'checkpoint': {'every_steps': 3},
    }  # fmt: skip

    def config(last: int) -> ExperimentConfig:
        values = {name: dict(section) for name, section in BASE.items()}
        values |= settings
        values['model'] |= {'vocab_size': 0, 'seq_len': 0, 'num_puzzle_identifiers': 0}
        values['train'] = {'global_batch_size': 8, 'epochs': 2, 'eval_interval': 1,
                           'max_steps': last, 'log_every_steps': 2}  # fmt: skip
        values['eval'] |= {'max_examples': 4, 'global_batch_size': 8, 'save_outputs': ()}
        return ExperimentConfig.from_dict(values)

    train.train(config(8), tmp_path / 'long')
    train.train(config(5), tmp_path / 'short')
    logged = []
    train.train(config(8), tmp_path / 'short', log=logged.append)
    assert any('resumed from step 5' in text for text in logged)
    assert_same_end(tmp_path / 'long', tmp_path / 'short', config(8))
    lines = [json.loads(x) for x in (tmp_path / 'long' / 'metrics.jsonl').read_text().splitlines()]
    evaluation = next(line for line in lines if 'eval/all/abstained' in line)
    shares = [evaluation[f'eval/all/{n}'] for n in ('exact_accuracy', 'abstained', 'wrong')]
    assert sum(shares) == pytest.approx(1, abs=1e-6)
