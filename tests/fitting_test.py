"""``hrm_jax.fit``: arrays and texts to a solver, resumed in a run folder."""

import json

import numpy as np
import pytest

import hrm_jax
from hrm_jax import fitting, tasks
from hrm_jax.checkpoint import layout
from hrm_jax.data import arrays, records
from hrm_jax.errors import ConfigError, DatasetError, PuzzleError
from hrm_jax.inference.solver import Solver

SIZES = {'preset': 'tiny', 'hidden_size': 16, 'steps': 2, 'batch_size': 16}
rng = np.random.default_rng(0)


def quiet(message):
    pass


def test_arrays_become_a_model_that_resumes(tmp_path):
    """A model that copies its input learns it, and the same call again trains no further step."""
    inputs = rng.integers(0, 3, (300, 4))
    logged = []
    options = {
        **SIZES,
        'hidden_size': 32,
        'epochs': 20,
        'learning_rate': 3e-3,
        'log': logged.append,
    }
    solver = hrm_jax.fit(inputs, inputs, workdir=tmp_path / 'run', **options)
    assert isinstance(solver, Solver)
    answers = [solution.answer for solution in solver.solve(list(inputs[:50]))]
    assert np.mean(np.array(answers) == inputs[:50]) > 0.9
    assert solver.config.model.hidden_size == 32
    [last] = layout.steps(tmp_path / 'run')[-1:]
    assert any('done' in text for text in logged)
    logged.clear()
    again = hrm_jax.fit(inputs, inputs, workdir=tmp_path / 'run', **options)
    assert layout.steps(tmp_path / 'run')[-1] == last
    assert any(f'resumed from step {last}' in text for text in logged)
    assert [s.text for s in again.solve(inputs[:3])] == [s.text for s in solver.solve(inputs[:3])]
    with pytest.raises(DatasetError, match='was made of other arrays'):
        hrm_jax.fit(inputs[::-1], inputs, workdir=tmp_path / 'run', **options)


@pytest.mark.parametrize('kind', ['strings', 'characters', 'grids'])
def test_texts_are_answered_as_texts(tmp_path, kind):
    if kind == 'grids':
        texts = [f'{a}{b}\n{b}{c}' for a in 'xyz' for b in 'xyz' for c in 'xyz']
        given = texts
    else:
        texts = [f'{a}{b}{c}' for a in 'xyz' for b in 'xyz' for c in 'xyz']
        given = texts if kind == 'strings' else np.array([list(text) for text in texts])
    solver = hrm_jax.fit(given, given, epochs=1, log=quiet, **SIZES)
    [solution] = solver.solve(given[:1])
    assert solver.task.shape == ((2, 2) if kind == 'grids' else (1, 3))
    assert len(solution.text) == (5 if kind == 'grids' else 3)
    assert set(solution.text) <= set('xyz/')
    assert solver.solve([texts[0]])[0].text == solution.text


def test_puzzles_of_one_rule_share_a_vector(tmp_path):
    inputs = rng.integers(0, 3, (40, 4))
    names = ['copy', 'flip'] * 20
    hrm_jax.fit(
        inputs, inputs, puzzles=names, epochs=1, workdir=tmp_path / 'run', log=quiet, **SIZES
    )
    dataset = records.load(tmp_path / 'run' / fitting.DATA, 'train')
    assert dataset.metadata.num_puzzle_identifiers == 3
    assert dataset.metadata.total_groups == 2
    assert json.loads((tmp_path / 'run' / fitting.DATA / 'identifiers.json').read_text()) == [
        '<blank>', 'copy', 'flip',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('inputs', 'labels', 'message'),
    [
        (
            np.zeros((4, 3)),
            np.zeros((4, 3)),
            r'or texts; got float64.*astype\(int\)',
        ),
        (np.zeros((4, 3), int), np.zeros((4, 2), int), r'one shape.*\(4, 3\) and \(4, 2\)'),
        (np.zeros((4, 3), int), np.zeros((5, 3), int), 'one label for each input; got 4 inputs'),
        (np.zeros(4, int), np.zeros(4, int), 'one shape'),
        (np.full((4, 3), -1), np.zeros((4, 3), int), 'from 0; got -1'),
        (np.full((4, 3), 70000), np.zeros((4, 3), int), 'below 65536; got 70000'),
        (['ab', 'a\nbc'], ['ab', 'ab'], 'inputs 1: all rows of a grid must have one length'),
        (['ab', ''], ['ab', 'ab'], 'inputs 1: it must have cells'),
        (['ab', 'b'], np.zeros((2, 3), int), 'both be numbers or both be texts'),
        ([], [], 'one label for each input; got 0'),
        (np.zeros((4, 3), int), np.zeros((4, 3), int), 'must leave examples on both sides'),
    ],
)
def test_examples_that_do_not_fit(inputs, labels, message):
    with pytest.raises(DatasetError, match=message):
        hrm_jax.fit(inputs, labels, log=quiet, **SIZES)


def test_settings_that_do_not_fit():
    inputs = np.arange(40).reshape(10, 4)
    with pytest.raises(ConfigError, match=r"preset must be one of .*small.*got 'huge'"):
        hrm_jax.fit(inputs, inputs, preset='huge', log=quiet)
    with pytest.raises(ConfigError, match='Did you mean'):
        hrm_jax.fit(inputs, inputs, settings={'optimizer': {'lrr': 1.0}}, log=quiet)
    with pytest.raises(DatasetError, match='puzzles must name one for each input'):
        hrm_jax.fit(inputs, inputs, puzzles=['a'], log=quiet)
    with pytest.raises(DatasetError, match='must have one shape; got'):
        hrm_jax.fit(inputs, inputs, test=(inputs[:, :2], inputs[:, :2]), log=quiet)


def test_every_number_is_a_symbol_and_negative_labels_do_not_count(tmp_path):
    inputs = np.array([[0, 1], [1, 0], [1, 1]])
    labels = np.array([[0, -100], [1, 1], [-1, 0]])
    examples = arrays.encode(inputs, labels)
    assert (examples.vocab_size, examples.pad_id, examples.ignored) == (3, 2, -1)
    splits = {'train': np.array([0, 1]), 'test': np.array([2])}
    arrays.write(tmp_path / 'set', splits, examples, [''] * 3)
    dataset = records.load(tmp_path / 'set', 'train')
    assert dataset.sets['all'].labels.tolist() == [[0, -1], [1, 1]]
    assert dataset.metadata.task == 'custom'
    task = dataset.metadata.task_of()
    assert task.text(task.tokens_of([0, 1])) == '0 1'
    assert arrays.encode(inputs, np.abs(labels) % 2).ignored is None


def test_padding_of_texts_is_learned_only_where_sizes_differ():
    same = arrays.encode(['ab', 'a'], ['ba', 'b'])
    assert (same.ignored, same.grid, same.labels.tolist()) == (0, (1, 2), [[2, 1], [2, 0]])
    differ = arrays.encode(['ab', 'a'], ['b', 'b'])
    assert differ.ignored is None
    words = arrays.encode(['10 2', '2 2'], ['2 10', '2 2'], words=True)
    assert list(words.reading.vocabulary) == ['10', '2']
    marked = arrays.encode(['a.;_b'], ['a.;.b'], rows=';', blank='._')
    assert marked.grid == (2, 2)
    assert marked.inputs.tolist() == marked.labels.tolist()


def test_equal_questions_are_held_out_together():
    inputs = np.repeat(np.arange(20).reshape(10, 2), 3, axis=0)
    for seed in range(5):
        train, test = arrays.split_off(inputs, 0.2, seed)
        assert sorted([*train, *test]) == list(range(30))
        assert not {tuple(inputs[k]) for k in train} & {tuple(inputs[k]) for k in test}
        assert len(test) == 6


def test_sizes_and_settings_reach_the_configuration():
    config = fitting._config(
        'small',
        {
            'model': {'hidden_size': 60, 'H_layers': 2, 'L_layers': 2},
            'act': {'halt_max_steps': 3},
            'optimizer': {'lr': 0.5},
            'train': {'epochs': 30, 'global_batch_size': 0},
        },
        examples=20, seed=7, settings={'optimizer': {'ema_decay': 0.9}},
    )  # fmt: skip
    assert (config.model.hidden_size, config.model.puzzle_emb_ndim) == (60, 60)
    assert config.model.hidden_size % (2 * config.model.num_heads) == 0
    assert (config.model.H_layers, config.act.halt_max_steps, config.seed) == (2, 3, 7)
    assert (config.optimizer.lr, config.optimizer.ema_decay) == (0.5, 0.9)
    assert (config.train.global_batch_size, config.train.eval_interval) == (20, 3)
    assert config.optimizer.lr_warmup_steps == 3  # a tenth of 30 steps
    assert fitting.preset_config('full').model.hidden_size == 512


def test_arrays_for_a_solver_are_checked():
    grid = tasks.Task(4, 3, grid=(2, 2), vocabulary={'<pad>': 0, 'a': 1, 'b': 2})
    assert grid.tokens_of([[1, 2], [2, 1]]).tolist() == [1, 2, 2, 1]
    assert grid.tokens_of([[1], [2]]).tolist() == [1, 0, 2, 0]
    assert grid.tokens_of(np.array([['a', 'b'], ['b', 'a']])).tolist() == [1, 2, 2, 1]
    for wrong, message in (
        ([[1, 2, 1]], 'at most 2 rows of 2 cells'),
        ([3, 1, 1, 1], r'must be in 0\.\.2; got 1\.\.3'),
        ([0.5] * 4, 'text or an array of token ids'),
    ):
        with pytest.raises(PuzzleError, match=message):
            grid.tokens_of(wrong)
