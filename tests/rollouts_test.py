"""Rollouts: chains equal those alone, every selection chooses what it states, labels are unseen."""

import dataclasses
import functools
import itertools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import rollouts_table
from hrm_jax import act, evaluate, partitioning, tasks, train_state
from hrm_jax.config import ActConfig, ExperimentConfig, RolloutConfig
from hrm_jax.config.rollouts import Selection
from hrm_jax.data import puzzles as puzzles_lib
from hrm_jax.data.metadata import DatasetMetadata
from hrm_jax.errors import ConfigError
from hrm_jax.inference import rollouts, rollouts_choice
from hrm_jax.inference.rollouts_choice import Chains
from hrm_jax.inference.solver import Solver
from hrm_jax.model import draws, hrm, puzzle_table, starts
from hrm_jax.types import Batch

CELLS, VOCAB, PUZZLES, BREADTH, DEPTH = 16, 6, 5, 3, 4
Q = ActConfig(halting='q_learning', halt_max_steps=DEPTH)


def make_config(model=None, act_options=None, **section):
    section = {'rollouts': {'breadth': BREADTH}, 'high_step_noise': 0.5, 'update_noise': 0.1,
               'halt_max_steps': DEPTH} | section  # fmt: skip
    return ExperimentConfig.from_dict({
        'model': {
            'vocab_size': VOCAB, 'seq_len': CELLS, 'num_puzzle_identifiers': 4, 'H_cycles': 1,
            'L_cycles': 1, 'H_layers': 1, 'L_layers': 1, 'hidden_size': 16, 'num_heads': 2,
            'puzzle_emb_ndim': 16, 'forward_dtype': 'float32', 'initial_state': 'random',
            **(model or {}),
        },
        'act': {'halt_max_steps': DEPTH} | (act_options or {}),
        'eval': section,
    })  # fmt: skip


def with_rollouts(config, halting='max', **options):
    rolled = dataclasses.replace(config.eval.rollouts, **options)
    section = dataclasses.replace(config.eval, rollouts=rolled, halting=halting)
    return dataclasses.replace(config, eval=section)


@pytest.fixture(scope='module')
def mesh():
    return partitioning.make_mesh(jax.devices()[:1])


@pytest.fixture(scope='module')
def puzzles():
    rng = np.random.default_rng(0)
    inputs = rng.integers(1, VOCAB, (PUZZLES, CELLS)).astype(np.int32)
    return Batch(inputs, inputs.copy(), rng.integers(0, 4, PUZZLES).astype(np.int32))


@pytest.fixture(scope='module')
def weights(mesh):
    """Fresh ones with a Q head that halts some chains early and some never."""
    fresh = train_state.create(make_config(), mesh).weights
    kernel = jax.random.normal(jax.random.key(1), fresh.params['q_head']['kernel'].shape)
    head = {'kernel': kernel, 'bias': jnp.array([-1.5, 0.0])}
    return fresh.replace(params=fresh.params | {'q_head': head})


def sudoku():
    return tasks.Sudoku(CELLS, VOCAB)


def run(config, mesh, weights, batches, slots=4, task=None, seed=0):
    runner = rollouts.Runner(config, mesh, slots, 8 * slots)
    found = {}
    for part in runner.run([weights], batches, task or sudoku(), 'sudoku', seed):
        found |= {one[0].number: one for one in part}
    return found


@functools.cache
def step_of(model):
    return jax.jit(functools.partial(hrm.act_step, model))


def alone(config, weights, batch, puzzle, chain, halting='fixed', seed=0):
    """One chain by itself, step by step; the logits of every step and the last outputs."""
    model = config.inference_model
    rule = dataclasses.replace(config.act, halting=halting)
    key = draws.per_row(jax.random.key(seed), jnp.array([puzzle]))
    if chain:
        key = draws.fold(draws.fold(key, 0), jnp.array([chain]))
    rows = puzzle_table.puzzle_rows(weights, batch.puzzle_identifiers[puzzle : puzzle + 1])
    inputs = batch.inputs[puzzle : puzzle + 1]
    latent, logits = starts.fresh_latent(model, weights, 1, key), []
    for number in range(1, rule.halt_max_steps + 1):
        latent, outputs = step_of(model)(weights, latent, inputs, rows, draws.fold(key, number))
        logits.append(np.asarray(outputs.logits[0]))
        if act.halt(outputs, jnp.array([number]), jnp.zeros(1, jnp.int32), rule)[0]:
            break
    return logits, float(outputs.q_halt[0]), number


@pytest.mark.parametrize('halting', ['max', 'adaptive'])
@pytest.mark.parametrize('slots', [4, 32])
def test_every_chain_equals_the_chain_alone(mesh, weights, puzzles, halting, slots):
    config = with_rollouts(make_config(), halting, select='residual', window=2)
    found = run(config, mesh, weights, [puzzles], slots)
    assert sorted(found) == list(range(PUZZLES))
    steps = []
    for puzzle in range(PUZZLES):
        [one] = found[puzzle]
        for chain in range(BREADTH):
            rule = 'fixed' if halting == 'max' else 'q_learning'
            logits, q_halt, count = alone(config, weights, puzzles, puzzle, chain, rule)
            assert one.chains.steps[chain] == count
            np.testing.assert_array_equal(one.chains.predictions[chain], logits[-1].argmax(-1))
            np.testing.assert_allclose(one.chains.q_halt[chain], q_halt, rtol=1e-4, atol=1e-4)
            changes = [np.linalg.norm(b - a, axis=-1).mean() for a, b in itertools.pairwise(logits)]
            wanted = np.mean(changes[-2:]) if changes else np.inf
            np.testing.assert_allclose(one.chains.change[chain], wanted, rtol=1e-3)
            steps.append(count)
        assert len({row.tobytes() for row in one.chains.predictions}) > 1
    if halting == 'adaptive':
        assert len(set(steps)) > 2
    # The first chain is the run without rollouts.
    plain = dataclasses.replace(config, eval=dataclasses.replace(
        config.eval, rollouts=RolloutConfig()))  # fmt: skip
    if halting == 'max':
        result = evaluate.make_step(plain, mesh)(weights, puzzles)
        firsts = [found[puzzle][0].chains.predictions[0] for puzzle in range(PUZZLES)]
        np.testing.assert_array_equal(firsts, result.predictions)


def test_company_and_breadth_change_no_chain(mesh, weights, puzzles):
    config = make_config()
    together = run(config, mesh, weights, [puzzles])
    parts = [jax.tree.map(lambda x, s=s: x[s : s + 2], puzzles) for s in range(0, PUZZLES, 2)]
    apart = run(config, mesh, weights, parts, slots=16)
    wider = run(with_rollouts(config, breadth=5), mesh, weights, [puzzles])
    for number, [one] in together.items():
        np.testing.assert_array_equal(one.chains.predictions, apart[number][0].chains.predictions)
        np.testing.assert_array_equal(
            one.chains.predictions, wider[number][0].chains.predictions[:BREADTH]
        )
    other = run(config, mesh, weights, [puzzles], seed=1)
    assert any((together[n][0].answer != other[n][0].answer).any() for n in together)


def test_all_chains_of_a_puzzle_stop_with_the_first_one(mesh, weights, puzzles):
    config = with_rollouts(make_config(), 'adaptive', select='first_halt', halt_together=True)
    found = run(config, mesh, weights, [puzzles], slots=4)
    earlier = 0
    for puzzle, [one] in found.items():
        each = [alone(config, weights, puzzles, puzzle, c, 'q_learning')[2] for c in range(BREADTH)]
        assert one.chains.steps.tolist() == [min(each)] * BREADTH
        logits, _, _ = alone(config, weights, puzzles, puzzle, one.chosen, 'q_learning')
        if each[one.chosen] == min(each) and len(logits) == min(each):
            np.testing.assert_array_equal(one.answer, logits[-1].argmax(-1))
        earlier += min(each) < max(each)
    assert earlier


def test_depths_are_those_of_shorter_runs(mesh, weights, puzzles):
    config = make_config(depth_multiples=(2, 3))
    found = run(config, mesh, weights, [puzzles])
    for number, depth in enumerate((DEPTH, 2 * DEPTH, 3 * DEPTH)):
        plain = dataclasses.replace(config.eval, depth_multiples=(), halt_max_steps=depth)
        shorter = run(dataclasses.replace(config, eval=plain), mesh, weights, [puzzles])
        for puzzle, several in found.items():
            assert len(several) == 3
            np.testing.assert_array_equal(
                several[number].chains.predictions, shorter[puzzle][0].chains.predictions
            )


def chains_of(answers, q_halt, q_continue=None, steps=None, change=None):
    answers = np.array(answers)
    q_halt = np.array(q_halt, np.float32)
    count = len(q_halt)
    return Chains(
        predictions=answers,
        answers=answers,
        q_halt=q_halt,
        q_continue=np.zeros(count) if q_continue is None else np.array(q_continue, np.float32),
        steps=np.full(count, DEPTH) if steps is None else np.array(steps),
        change=np.full(count, np.nan) if change is None else np.array(change, np.float32),
    )


# Six chains, answers A B B B C C; every selection takes another one.
ANSWERS = [[1, 1], [2, 2], [2, 2], [2, 2], [3, 3], [3, 3]]
HAND_MADE = chains_of(
    ANSWERS,
    q_halt=[-1.0, -3.0, -2.0, 0.5, 2.0, 1.0],
    q_continue=[-2.0, 0.0, 0.0, 2.0, 1.5, 0.5],
    steps=[3, 2, 4, 4, 4, 2],
    change=[0.3, 0.4, 0.1, 0.5, 0.6, 0.7],
)


@pytest.mark.parametrize(
    ('selection', 'chosen'),
    [
        ('q', 4),
        ('vote', 1),
        ('halted_vote', 4),  # halted are 0, 4 and 5
        ('residual', 2),
        ('rules', 0),  # only A obeys them
        ('first_halt', 5),  # 1 ended as early, but was not halted
        ('first_chain', 5),  # the only one that was halted so early
    ],
)
def test_each_selection_on_hand_made_chains(selection, chosen):
    got = rollouts_choice.choose(selection, HAND_MADE, Q, lambda answer: answer[0] == 1)
    assert got == chosen


def test_every_selection_is_tested():
    [mark] = test_each_selection_on_hand_made_chains.pytestmark
    assert {values[0] for values in mark.args[1]} == set(typing.get_args(Selection))


def test_selections_where_nothing_fits_and_where_several_do():
    def choose(selection, chains=HAND_MADE, rule=Q, valid=lambda answer: False):
        return rollouts_choice.choose(selection, chains, rule, valid)

    assert choose('rules') == 1  # the vote
    none = dataclasses.replace(HAND_MADE, q_continue=np.full(6, 9.0))
    assert choose('halted_vote', none) == 1
    assert choose('first_halt', none) == 0
    assert choose('halted_vote', none, dataclasses.replace(Q, halting='halt_only')) == 4
    two = chains_of([[4], [5], [5], [4]], q_halt=[0.0, 0.0, 0.0, 9.0])
    assert choose('vote', two) == 0  # the first to come of two with as many votes
    same_step = chains_of([[1], [2], [3]], q_halt=[-1.0, 1.0, 2.0], steps=[1, 1, 1])
    assert choose('first_halt', same_step) == 2


def test_residual_is_the_mean_over_window_cells_and_vocabulary():
    from hrm_jax.inference.slots import Changes

    rng = np.random.default_rng(0)
    logits = rng.normal(size=(7, 2, 3, 5)).astype(np.float32)
    state = Changes(jnp.zeros((2, 3, 5)), jnp.zeros((2, 3)))
    for number in range(1, 8):
        state, score = state.after(logits[number - 1], jnp.full(2, number))
        norms = np.linalg.norm(logits[1:number] - logits[: number - 1], axis=-1)[-3:]
        wanted = norms.mean((0, 2)) if number > 1 else [np.inf, np.inf]
        np.testing.assert_allclose(score, wanted, rtol=1e-5)
    # A slot that takes a new puzzle forgets the old one.
    _, score = state.after(logits[0], jnp.array([1, 8]))
    assert np.isinf(score[0])
    assert np.isfinite(score[1])


@pytest.mark.parametrize('views', ['random', 'relabel'])
def test_views_are_undone(mesh, weights, puzzles, views, monkeypatch):
    """A model that answers the question itself is unanimous under every symmetry."""
    config = with_rollouts(make_config(), views=views, select='vote')

    def act_step(model, weights, latent, inputs, rows, keys):
        from hrm_jax.types import Outputs

        zero = jnp.zeros(len(inputs))
        return latent, Outputs(jax.nn.one_hot(inputs, VOCAB), zero, zero)

    monkeypatch.setattr(hrm, 'act_step', act_step)
    seen = rollouts.Views(views, 'sudoku', 4, BREADTH, 0).of(puzzles.inputs)[0]
    seen = seen.reshape(PUZZLES, BREADTH, CELLS)
    assert (seen[:, 0] == puzzles.inputs).all()
    assert (seen[:, 1:] != puzzles.inputs[:, None]).any((1, 2)).all()
    for number, [one] in run(config, mesh, weights, [puzzles]).items():
        np.testing.assert_array_equal(one.chains.answers, puzzles.inputs[[number] * BREADTH])
        assert len(one.agreeing) == BREADTH


def test_relabelling_shifts_digits_only():
    [views, _] = rollouts.Views('relabel', 'sudoku', 4, 4, 0).of(
        np.array([[0, 1, 2, 3, 4, 5] + [1] * 10])
    )
    for shift, view in enumerate(views):
        assert view[:6].tolist() == [0, 1, *((np.arange(4) + shift) % 4 + 2)]


@pytest.fixture(scope='module')
def solver(weights):
    return Solver(make_config(), weights, sudoku(), 'sudoku', jax.devices()[:1])


def test_rules_never_returns_as_valid_what_breaks_them(solver):
    questions = ['1...............', '.2.............3', '................']
    solutions = solver.solve(questions, rollouts=RolloutConfig(breadth=8, select='rules'))
    for question, one in zip(questions, solutions, strict=True):
        assert one.chains == 8
        assert one.valid == sudoku().is_valid(sudoku().parse(question), one.answer)
    board = sudoku().parse('1234341221434321')
    wrong = board[::-1].copy()
    wrong[0] = wrong[1]
    chains = chains_of([wrong, wrong, board], q_halt=[5, 5, -5])
    question = sudoku().parse('1...............')
    valid = lambda answer: sudoku().is_valid(question, answer)  # noqa: E731
    assert rollouts_choice.choose('rules', chains, Q, valid) == 2


def test_solver_adds_up_chains_and_checkpoints(solver):
    questions = ['1...............', '.2.............3']
    once = solver.solve(questions, rollouts=RolloutConfig(breadth=2, select='vote'), steps=2)
    assert [one.chains for one in once] == [2, 2]
    both = solver.with_eval()
    both._more = {'again': solver.weights}
    twice = both.solve(questions, rollouts=RolloutConfig(breadth=2, select='vote'), steps=2)
    for one, two in zip(once, twice, strict=True):
        assert (two.chains, two.agreement) == (4, one.agreement)
        assert two.text == one.text
    # As without rollouts: the first chain.
    single = solver.solve(questions, rollouts=RolloutConfig())
    assert [one.chains for one in single] == [1, 1]


def dataset(puzzles, labels):
    metadata = DatasetMetadata.from_dict({
        'pad_id': 0, 'ignore_label_id': 0, 'blank_identifier_id': 0, 'vocab_size': VOCAB,
        'seq_len': CELLS, 'num_puzzle_identifiers': 4, 'total_groups': PUZZLES,
        'mean_puzzle_examples': 1.0, 'sets': ('all',), 'task': 'sudoku', 'transform': 'sudoku',
    })  # fmt: skip
    one = puzzles_lib.PuzzleSet.of_examples(puzzles.inputs, labels)
    return puzzles_lib.PuzzleDataset(metadata, {'all': one})


def test_evaluation_scores_what_is_chosen_and_labels_do_not_choose(mesh, weights, puzzles):
    config = with_rollouts(make_config(depth_multiples=(2,)), select='vote')
    blank = puzzles.replace(puzzle_identifiers=np.zeros(PUZZLES, np.int32))
    found = run(config, mesh, weights, [blank], slots=4)
    chosen = np.stack([found[n][0].chains.predictions[found[n][0].chosen] for n in range(PUZZLES)])
    labels = np.maximum(chosen, 1)
    labels[0, 0] = labels[0, 0] % 4 + 2  # one cell of the first puzzle is another one
    step = evaluate.make_step(config, mesh)
    values = evaluate.evaluate(config, step, weights, dataset(puzzles, labels), mesh)
    right = float((labels == chosen).all(1).mean())
    assert 0 < right < 1
    assert values['eval/all/exact_accuracy'] == pytest.approx(right)
    assert (
        values['eval/all/steps'] == BREADTH * 2 * DEPTH
        or values['eval/all/steps'] == BREADTH * DEPTH
    )
    assert values['eval/all/gflops'] == pytest.approx(
        rollouts.flops_of(config, values['eval/all/steps']) / 1e9
    )
    assert values['eval/all/any_accuracy'] >= right
    assert 'eval/all/acc2x' in values


@pytest.mark.parametrize(
    ('model', 'section', 'act_options', 'message'),
    [
        ({'initial_state': 'fixed'}, {'high_step_noise': 0.0, 'update_noise': 0.0}, {},
         'needs chains that differ'),
        ({'high_start_std': 0.0, 'low_start_std': 0.0},
         {'high_step_noise': 0.0, 'update_noise': 0.0}, {}, 'needs chains that differ'),
        ({}, {'rollouts': {'breadth': 2, 'select': 'first_halt'}}, {}, 'eval.halting=adaptive'),
        ({}, {'rollouts': {'breadth': 2, 'halt_together': True}}, {}, 'eval.halting=adaptive'),
        ({}, {'rollouts': {'breadth': 2, 'select': 'halted_vote'}}, {'halting': 'fixed'},
         'need a halting rule'),
        ({}, {'rollouts': {'breadth': 2, 'select': 'residual'}, 'halt_max_steps': 1}, {},
         'must be above 1'),
        ({}, {'save_outputs': ('logits',)}, {}, 'leave .logits. out'),
        ({}, {'rollouts': {'breadth': 2, 'select': 'qq'}}, {}, "Did you mean 'q'"),
        ({}, {'rollouts': {'breadth': 0}}, {}, 'greater than 0'),
    ],
)  # fmt: skip
def test_bad_combinations_are_refused_with_a_reason(model, section, act_options, message):
    with pytest.raises(ConfigError, match=message):
        make_config(model, act_options, **section)


def test_q_needs_a_q_head():
    values = make_config().to_dict()
    values['model']['q_head'] = False
    values['act']['halting'] = 'fixed'
    values['loss']['q_weight'] = 0.0
    with pytest.raises(ConfigError, match='has none'):
        ExperimentConfig.from_dict(values)
    values['eval']['rollouts']['select'] = 'vote'
    assert ExperimentConfig.from_dict(values).eval.rollouts.on


def test_what_the_task_lacks_is_refused(mesh, weights, puzzles):
    plain = tasks.Task(CELLS, VOCAB)
    for options, message in (
        ({'select': 'rules'}, 'needs a task with rules'),
        ({'select': 'vote', 'views': 'relabel'}, 'needs symmetries of the kind sudoku'),
    ):
        config = with_rollouts(make_config(), **options)
        runner = rollouts.Runner(config, mesh, 4, 4)
        with pytest.raises(ConfigError, match=message):
            list(runner.run([weights], [puzzles], plain, 'none'))


def test_the_table_keeps_what_it_measured_under_the_same_settings(tmp_path):
    row = rollouts_table.Row('max', 4, 16, {'q': 0.5}, 0.75, 64.0, 0.5, 3.5, 0.0)
    path, settings = tmp_path / 'rows.json', {'commit': 'a', 'noise': 0.2}
    kept = rollouts_table.Kept(path, settings)
    assert not kept.rows
    kept.add(row)
    assert rollouts_table.Kept(path, settings).rows == {('max', 4, 16): row}
    assert not rollouts_table.Kept(path, settings | {'noise': 0.3}).rows
