"""The Sudoku builder: sources, generated boards, held-out solutions, bad boards."""

import numpy as np
import pytest

pytest.importorskip('tensorflow_datasets')
pytest.importorskip('array_record')

from data_builders import sudoku, sudoku_hints, sudoku_rules
from hrm_jax.data import records
from hrm_jax.errors import BuildError
from tests.builder_sources import BOARD, FULL, cells, sudoku_folder, write_csv


def test_sudoku_from_csv(tmp_path):
    out = tmp_path / 'out'
    source = sudoku_folder(tmp_path / 'csv')
    manifest = sudoku.build(str(out), source=source, num_aug=6, show=False)
    train, test = (records.load(out, split) for split in ('train', 'test'))
    assert manifest['counts']['train'] == {'groups': 3, 'puzzles': 21, 'examples': 21}
    assert len(manifest['sources'][0]['sha256']) == 64
    assert train.metadata.vocab_size == 11
    inputs, labels = cells(train)
    assert ''.join(map(str, labels[0] - 1)) == FULL
    assert ''.join(map(str, inputs[0] - 1)) == BOARD.replace('.', '0')
    assert sudoku_rules.valid_solutions(labels - 1, 9).all()
    given = inputs > 1
    np.testing.assert_array_equal(inputs[given], labels[given])
    assert len(np.unique(inputs[:7], axis=0)) == 7
    np.testing.assert_array_equal(given.sum(axis=1), np.repeat(given[::7].sum(axis=1), 7))
    assert test.sets['all'].maps is None
    again = sudoku.build(str(tmp_path / 'again'), source=source, num_aug=6, show=False)
    assert again['counts'] == manifest['counts']
    np.testing.assert_array_equal(cells(records.load(tmp_path / 'again', 'train')), cells(train))
    other = sudoku.build(str(tmp_path / 'other'), source=source, num_aug=6, seed=1, show=False)
    assert other['seed'] == 1
    assert (cells(records.load(tmp_path / 'other', 'train'))[0] != inputs).any()


def test_sudoku_filters(tmp_path):
    source = sudoku_folder(tmp_path / 'csv')
    made = sudoku.build(str(tmp_path / 'a'), source=source, min_difficulty=6, show=False)
    assert made['counts']['train']['examples'] == 1
    made = sudoku.build(str(tmp_path / 'b'), source=source, subsample_size=2, show=False)
    assert made['counts']['train']['examples'] == 2
    assert records.load(tmp_path / 'b', 'train').metadata.held_out is None
    sudoku.build(str(tmp_path / 'd'), source=str(tmp_path / 'b'), num_aug=3, show=False)
    assert records.load(tmp_path / 'd', 'train').metadata.held_out is False
    with pytest.raises(BuildError, match='no board has a rating of 8'):
        sudoku.build(str(tmp_path / 'c'), source=source, min_difficulty=8, show=False)


@pytest.mark.parametrize('num_aug', [0, 8])
def test_generated_4x4_keeps_test_solutions_out(tmp_path, num_aug):
    out = tmp_path / 'out'
    made = sudoku.build(
        str(out), source='generated', size=4, train_count=300, test_count=60, num_aug=num_aug,
        show=False,
    )  # fmt: skip
    train, test = (records.load(out, split) for split in ('train', 'test'))
    inputs, labels = cells(train)
    held_out = {row.tobytes() for row in cells(test)[1]}
    assert not held_out & {row.tobytes() for row in labels}
    assert (made['notes']['augmentations_drawn_again'] > 0) == (num_aug > 0)
    assert train.metadata.held_out
    solver = sudoku_rules.Solver(4)
    assert all(solver.count(board - 1) == 1 for board in inputs[:50])


@pytest.mark.parametrize(('size', 'count'), [(6, 8), (9, 3)])
def test_generated_boards_have_one_solution(size, count):
    boards = sudoku.generate(size, count, 2, np.random.default_rng(0))['train']
    sudoku.check(boards, unique=True)
    clues = (boards.questions > 0).sum(axis=1)
    low, high = sudoku.CLUES[size]
    assert clues.min() >= low
    assert clues.mean() < high + 6


def test_solver_counts():
    assert len(sudoku_rules.all_solutions_4()) == 288
    solver = sudoku_rules.Solver(9)
    board = np.array([int(c) if c != '.' else 0 for c in BOARD], np.uint8)
    assert ''.join(map(str, next(solver.solutions(board)))) == FULL
    assert solver.count(board) == 1
    assert solver.count(np.zeros(81, np.uint8)) == 2
    board[2] = 1  # legal now, without a solution later
    assert solver.count(board) == 0


@pytest.mark.parametrize(
    ('change', 'match'),
    [
        ({'question': BOARD[:-1]}, r'train\.csv, record 2: the question must have 81'),
        ({'question': 'x' + BOARD[1:]}, r'record 2: a question must be made of the digits'),
        ({'answer': FULL[:-1] + '8'}, r'record 2: the answer breaks the rules'),
        ({'question': '1' + BOARD[1:]}, r'record 2: the answer contradicts the question'),
        ({'question': BOARD[:2] + '.' * 79, 'unique': True}, r'record 2: .* more than one'),
        ({'test': ('d', BOARD.replace('.', '0'), FULL, 1)}, r'1 of 1 test pairs occur in training'),
    ],
)
def test_bad_sudokus_are_named(tmp_path, change, match):
    unique = change.pop('unique', False)
    source = sudoku_folder(tmp_path / 'csv', **change)
    with pytest.raises(BuildError, match=match):
        sudoku.build(str(tmp_path / 'out'), source=source, check_unique=unique, show=False)
    assert not (tmp_path / 'out').exists()


def test_bad_sources(tmp_path):
    build = sudoku.build
    folder = tmp_path / 'csv'
    folder.mkdir()
    with pytest.raises(BuildError, match=r'must have one file train and .*it has none'):
        build(str(tmp_path / 'out'), source=str(folder), show=False)
    write_csv(folder / 'train.csv', [('x', 1)], header=('board', 'rating'))
    with pytest.raises(
        BuildError, match=r'must have a column question or quizzes .* got board,rating'
    ):
        build(str(tmp_path / 'out'), source=str(folder), show=False)
    write_csv(folder / 'train.csv', [(BOARD, FULL), (BOARD,)], header=('question', 'answer'))
    with pytest.raises(BuildError, match=r'record 2: 2 columns are needed.*got 1'):
        build(str(tmp_path / 'out'), source=str(folder), show=False)
    header = ('question', 'answer', 'rating')
    write_csv(folder / 'train.csv', [(BOARD, FULL, 'hard')], header=header)
    with pytest.raises(BuildError, match=r"record 1: --min-difficulty needs a rating.*got 'hard'"):
        build(str(tmp_path / 'out'), source=str(folder), min_difficulty=1, show=False)
    with pytest.raises(BuildError, match='neither a file or folder here nor the name'):
        build(str(tmp_path / 'out'), source='nowhere', show=False)
    with pytest.raises(BuildError, match='--seed must not be negative; got -1'):
        build(str(tmp_path / 'out'), source=sudoku.GENERATED, seed=-1, show=False)
    with pytest.raises(BuildError, match='For generated ones use --train-count'):
        build(str(tmp_path / 'out'), source=sudoku.GENERATED, min_difficulty=3, show=False)


def test_unreachable_hub_says_what_to_do(tmp_path, monkeypatch):
    hub = pytest.importorskip('huggingface_hub')

    def fail(*args, **kwargs):
        raise ConnectionError('no route')

    monkeypatch.setattr(hub, 'get_session', fail)
    monkeypatch.setattr(hub, 'hf_hub_download', fail)
    with pytest.raises(BuildError, match=r'cannot be reached .*--source PATH') as caught:
        sudoku.build(str(tmp_path / 'out'), show=False)
    assert '\n' not in str(caught.value)


def test_every_copy_has_a_twin_with_hints(tmp_path):
    source = sudoku_folder(tmp_path / 'csv')
    plain = sudoku.build(str(tmp_path / 'plain'), source=source, num_aug=6, show=False)
    made = sudoku.build(str(tmp_path / 'out'), source=source, num_aug=6, hints=True, show=False)
    assert plain['counts']['train'] == {'groups': 3, 'puzzles': 21, 'examples': 21}
    assert made['counts']['train'] == {'groups': 3, 'puzzles': 42, 'examples': 42}
    assert made['counts']['test'] == plain['counts']['test']
    train = records.load(tmp_path / 'out', 'train')
    inputs, labels = cells(train)
    without = cells(records.load(tmp_path / 'plain', 'train'))
    np.testing.assert_array_equal(inputs[::2], without[0])
    np.testing.assert_array_equal(labels[::2], without[1])
    np.testing.assert_array_equal(labels[1::2], without[1])
    before, after = inputs[::2] == 1, inputs[1::2] == 1
    assert not (after & ~before).any()
    np.testing.assert_array_equal(inputs[1::2][~after], labels[1::2][~after])
    hints = before.sum(1) - after.sum(1)
    several = before.sum(1) > 1  # the third board has one empty cell at most
    assert several.sum() == 14
    np.testing.assert_array_equal(hints >= 1, several)
    np.testing.assert_array_equal(after.sum(1)[several] >= 1, True)
    assert len(set(hints.tolist())) > 3  # drawn for every copy anew
    test = records.load(tmp_path / 'out', 'test').sets['all']
    np.testing.assert_array_equal(
        test.inputs, records.load(tmp_path / 'plain', 'test').sets['all'].inputs
    )
    unaugmented = sudoku.build(str(tmp_path / 'u'), source=source, hints=True, show=False)
    assert unaugmented['counts']['train'] == {'groups': 3, 'puzzles': 6, 'examples': 6}


def test_hints_leave_one_cell_at_least_and_boards_without_a_choice_alone():
    rng = np.random.default_rng(0)
    answers = np.tile(np.arange(1, 10), (4000, 1))
    questions = answers.copy()
    questions[:, :4] = 0  # 1 to 3 hints
    questions[0], questions[1, :3] = answers[0], answers[1, :3]  # no empty cell, and one
    chosen = sudoku_hints.draw(questions, rng)
    assert not chosen[:2].any()
    assert not chosen[:, 4:].any()
    counts = np.bincount(chosen[2:].sum(1), minlength=5)
    assert counts[0] == counts[4] == 0
    assert (abs(counts[1:4] / 3998 - 1 / 3) < 0.04).all()
    assert (abs(chosen[2:, :4].mean(0) - 0.5) < 0.04).all()
    np.testing.assert_array_equal(
        sudoku_hints.filled(questions, answers, chosen) > 0, (questions > 0) | chosen
    )
