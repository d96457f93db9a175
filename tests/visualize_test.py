"""Boards as text, traces of the reasoning, pictures."""

import dataclasses

import jax
import numpy as np
from PIL import Image
import pytest

from hrm_jax import eval_step, partitioning, tasks, train_state
from hrm_jax.config import ExperimentConfig
from hrm_jax.types import Batch
from hrm_jax.visualize import animation, boards, figures, trace


def test_board_of_sudoku_has_boxes_and_blanks():
    tokens = np.array([1, 2, 3, 4] * 4)
    assert boards.board_lines(tokens, tasks.Sudoku(16, 6)) == [
        '. 1 | 2 3', '. 1 | 2 3', '----+----', '. 1 | 2 3', '. 1 | 2 3',
    ]  # fmt: skip
    assert boards.board_lines(np.array([1, 2, 3, 9]), tasks.Maze(4, 6)) == ['#  ', 'S ?']
    with pytest.raises(ValueError, match='square number of cells; got 5'):
        boards.board_lines(np.arange(5), tasks.Sudoku(5, 6))


def test_boards_stand_side_by_side():
    text = boards.side_by_side(['one', 'two'], [['a b', 'c d'], ['e', 'f']], gap=2)
    assert text.split('\n') == ['one  two', '', 'a b  e', 'c d  f']


def fake(wrong_cells):
    """A trace of 4-cell boards from the number of wrong cells after each step, [K][B]."""
    counts = np.array(wrong_cells)
    labels = np.full((counts.shape[1], 4), 5)
    predictions = np.where(np.arange(4) < counts[..., None], 4, labels)
    q = np.zeros(counts.shape, np.float32)
    return trace.Trace(np.ones_like(labels), labels, predictions, q, q)


@pytest.mark.parametrize(
    ('wrong_cells', 'row'),
    [
        ([[1, 3, 4], [1, 2, 4], [0, 0, 4]], 1),  # equally late: more wrong at first
        ([[4, 1], [0, 1], [0, 0]], 1),  # solved later
        ([[1, 4, 4], [1, 4, 3], [2, 1, 3]], 1),  # none solved: fewest wrong at the end
    ],
)
def test_most_instructive_row(wrong_cells, row):
    assert trace.most_instructive(fake(wrong_cells)) == row


def test_unscored_cells_are_never_wrong():
    seen = fake([[2]])
    labels = np.array([[-100, 5, 5, 5]])
    assert dataclasses.replace(seen, labels=labels).wrong.tolist() == [[[0, 1, 0, 0]]]


@pytest.fixture(scope='module')
def config():
    config = ExperimentConfig.from_dict({
        'model': {
            'H_layers': 1, 'L_layers': 1, 'hidden_size': 16, 'num_heads': 2,
            'puzzle_emb_ndim': 16, 'forward_dtype': 'float32',
        },
        'act': {'halt_max_steps': 3},
        'train': {'global_batch_size': 4, 'epochs': 1, 'eval_interval': 0},
    })  # fmt: skip
    sizes = {'vocab_size': 6, 'seq_len': 16, 'num_puzzle_identifiers': 2}
    return dataclasses.replace(config, model=config.model.for_dataset(**sizes))


def test_trace_agrees_with_the_evaluation(config):
    mesh = partitioning.make_mesh(jax.devices()[:1])
    state = train_state.create(config, mesh)
    # Sharper than the initial weights, so that the answer changes from step to step.
    weights = state.weights.replace(params=jax.tree.map(lambda x: 3 * x, state.weights.params))
    rng = np.random.default_rng(0)
    inputs, labels = rng.integers(1, 6, (2, 4, 16)).astype(np.int32)
    ids = np.array([0, 1, 0, 1], np.int32)

    seen = trace.trace(config, weights, inputs, labels, ids)

    assert seen.num_steps == 3
    assert (seen.predictions[0] != seen.predictions[-1]).any()
    for steps in (1, 3):
        short = config.with_eval_steps(steps)
        result = eval_step.make_eval_step(short, mesh)(weights, Batch(inputs, labels, ids))
        np.testing.assert_array_equal(seen.predictions[steps - 1], result.predictions)
        np.testing.assert_allclose(seen.q_halt[steps - 1], result.q_halt, atol=1e-5)


def test_pictures_are_written_whole(tmp_path):
    rng = np.random.default_rng(0)
    tokens = rng.integers(2, 6, (3, 2, 16))
    seen = trace.Trace(tokens[0], tokens[1], tokens, np.zeros((3, 2)), np.zeros((3, 2)))
    records = [{'step': i + 1, 'train/lm_loss': 2.0 / (i + 1), 'train/exact_accuracy': 0.0,
                'eval/all/exact_accuracy': None} for i in range(60)]  # fmt: skip
    records[-1] |= {'eval/all/lm_loss': 0.5, 'eval/all/exact_accuracy': 0.9}
    pictures = [
        figures.save(
            figures.draw_reasoning(seen, 1, tasks.Sudoku(16, 6)), tmp_path / 'new' / 'a.png'
        ),
        figures.save(figures.draw_learning_curve(records), tmp_path / 'new' / 'b.png'),
    ]
    assert all(path.read_bytes().startswith(b'\x89PNG') for path in pictures)
    assert sorted(pictures) == sorted((tmp_path / 'new').iterdir())


def test_series_skips_what_is_missing():
    records = [{'step': 1, 'x': 2.0}, {'step': 2, 'x': None}, {'step': 3}, {'step': 4, 'x': 1.0}]
    steps, values = figures.series(records, 'x')
    assert steps.tolist() == [1, 4]
    assert values.tolist() == [2.0, 1.0]
    assert len(figures.series(records, 'y')[0]) == 0


def test_running_mean():
    assert figures.mean_of_last(np.array([1.0, 3.0, 5.0]), 2).tolist() == [1.0, 2.0, 4.0]


@pytest.mark.parametrize('task', ['sudoku', 'maze', 'arc', 'pathfinding', 'other'])
def test_puzzles_and_steps_are_drawn_for_every_task(task, tmp_path):
    tokens = np.arange(32).reshape(2, 16) % 5
    task = tasks.kind_of(task)(tokens.shape[1], 12)
    figure = figures.draw_puzzles(tokens, tokens[::-1] - 1, task)
    assert len(figure.axes) == 4
    seen = trace.Trace(tokens, tokens, np.stack([tokens, tokens[::-1]]), *np.zeros((2, 2, 2)))
    path = animation.save_gif(seen, 1, task, tmp_path / 'a.gif', dpi=40)
    with Image.open(path) as picture:
        assert picture.n_frames == 3


def test_wrong_cells_of_coloured_boards_are_framed():
    figure = figures.new_figure(2, 2)
    axes = figure.add_subplot()
    wrong = np.array([0, 1, 0, 1], bool)
    figures.draw_board(axes, np.array([2, 3, 4, 5]), tasks.Arc(4, 12), np.zeros(4, bool), wrong)
    assert [patch.get_xy() for patch in axes.patches] == [(1.1, 0.1), (1.1, 1.1)]
    assert tuple(axes.images[0].get_array()[0, 1]) == pytest.approx((0, 116 / 255, 217 / 255))
