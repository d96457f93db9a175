"""Sudokus of 6x6 and 16x16: generation, letters, rules, symmetries, files, pages."""

import numpy as np
import pytest

pytest.importorskip('tensorflow_datasets')
pytest.importorskip('array_record')

from data_builders import sudoku, sudoku_bits, sudoku_boards, sudoku_rules
from hrm_jax import tasks
from hrm_jax.data import augment, records
from hrm_jax.errors import BuildError, PuzzleError
from hrm_jax.tasks import sudoku_search
from hrm_jax.visualize import page
from tests.builder_sources import cells, write_csv

LARGE = tasks.Sudoku(256, 18)


@pytest.fixture(scope='module')
def large():
    """Questions and answers of three 16x16 boards."""
    boards = sudoku_boards.generate(16, 2, 1, np.random.default_rng(0))
    assert len(boards['test'].questions) == 1
    return boards['train']


@pytest.mark.parametrize('side', [4, 6, 9])
def test_both_searches_count_the_same(side):
    rng = np.random.default_rng(0)
    slow, fast = sudoku_rules.Solver(side), sudoku_bits.Bits(side)
    counts = []
    for number in range(40):
        solution = slow.random_solution(rng)
        board = solution * (rng.random(side**2) < (0.3, 0.4, 0.5)[number % 3])
        if number % 4 == 0:
            board[rng.integers(side**2)] = rng.integers(1, side + 1)
        want = slow.count(board, max_nodes=20_000)
        if want is not None:
            assert fast.count(board) == want
            counts.append(want)
    assert set(counts) == {0, 1, 2}


@pytest.mark.parametrize('side', [6, 9])
def test_both_searches_blank_the_same_cells(side):
    slow, fast = sudoku_rules.Solver(side), sudoku_bits.Bits(side)
    solution = slow.random_solution(np.random.default_rng(0))
    dug = [one.dig(solution, 0, np.random.default_rng(1)) for one in (slow, fast)]
    np.testing.assert_array_equal(*dug)


def test_generated_16x16_boards_have_one_solution(large):
    sudoku.check(large, unique=True)  # by sudoku_bits; the other search agrees
    assert sudoku_search.searching(16).count(large.questions[0]) == 1
    clues = (large.questions > 0).sum(1)
    low, high = sudoku.CLUES[16]
    assert (low <= clues).all()
    assert (clues <= high + 16).all()
    assert len(np.unique(large.answers, axis=0)) == 2
    again = sudoku_boards.generate(16, 2, 1, np.random.default_rng(0))['train']
    np.testing.assert_array_equal(again.questions, large.questions)


def test_a_cell_whose_search_is_too_long_is_kept(large, monkeypatch):
    few = large.questions[0]
    given = np.flatnonzero(few)
    fast = sudoku_bits.Bits(16)
    with pytest.raises(sudoku_search.TooManyNodes):
        [fast.has_other(few, int(cell), 0) for cell in given]
    monkeypatch.setattr(sudoku_bits, '_DIG_NODES', 0)
    dug = fast.dig(large.answers[0], 0, np.random.default_rng(0))
    assert 0 < (dug > 0).sum() < 256
    assert fast.count(dug) == 1


def test_boards_with_several_solutions_or_none_are_known():
    fast = sudoku_bits.Bits(16)
    empty = np.zeros(256, np.uint8)
    assert fast.count(empty) == 2
    twice = empty.copy()
    twice[[0, 5]] = 1  # one row
    assert fast.count(twice) == 0
    with pytest.raises(BuildError, match='size'):
        sudoku_boards.generate(8, 1, 1, np.random.default_rng(0))


@pytest.mark.parametrize('side', [6, 16])
def test_symmetries_keep_the_rules(side, large):
    boards = large.answers
    if side == 6:
        boards = sudoku_boards.generate(6, 2, 1, np.random.default_rng(0))['train'].answers
    uniforms = np.random.default_rng(0).random((40, augment.uniforms_needed('sudoku', side)))
    maps = augment.random_maps('sudoku', uniforms, side)
    tokens = np.repeat(boards + np.uint8(1), 20, axis=0)
    moved = augment.apply_sudoku(tokens, maps, side)
    assert sudoku_rules.valid_solutions(moved - 1, side).all()
    assert len(np.unique(moved, axis=0)) > 30
    undone = augment.apply_sudoku(moved, augment.inverse_maps('sudoku', maps, side), side)
    np.testing.assert_array_equal(undone, tokens)


def test_digits_above_nine_are_letters(large):
    tokens = large.questions[0].astype(np.int32) + 1
    text = LARGE.text(tokens)
    assert set(text) <= set('.123456789ABCDEFG')
    assert {'A', 'G'} <= set(text)
    rows = [text[k : k + 16] for k in range(0, 256, 16)]
    framed = '\n'.join('|'.join(row[k : k + 4] for k in range(0, 16, 4)) for row in rows)
    numbers = '\n'.join(' '.join(str(t - 1) for t in tokens[k : k + 16]) for k in range(0, 256, 16))
    for written in (text, text.lower(), '/'.join(rows), framed, numbers):
        np.testing.assert_array_equal(LARGE.parse(written), tokens)
    np.testing.assert_array_equal(tasks.Sudoku.encode(text), tokens)
    np.testing.assert_array_equal(LARGE.decode(tokens).ravel(), large.questions[0])
    with pytest.raises(PuzzleError, match=r'row 1, column 1 must be a digit 1\.\.G.*got .H.'):
        LARGE.parse('H' + text[1:])
    with pytest.raises(PuzzleError, match=r'must be a digit 1\.\.9'):
        tasks.Sudoku(81, 11).parse('a' + '.' * 80)


def test_rules_of_large_boards(large):
    question, answer = (x[0].astype(np.int32) + 1 for x in (large.questions, large.answers))
    assert LARGE.boxes == (4, 4)
    assert LARGE.is_valid(question, answer)
    assert LARGE.count_solutions(question, max_nodes=20_000) == 1
    swapped = answer.reshape(16, 16)[[0, 1, 2, 4, 3, *range(5, 16)]].ravel()
    assert not LARGE.is_valid(np.ones(256, np.int32), swapped)


def test_files_with_letters(tmp_path, large):
    digits = np.array(list('.123456789ABCDEFG'))
    texts = [[''.join(digits[row]) for row in side] for side in (large.questions, large.answers)]
    rows = list(zip(*texts, strict=True))
    rows[1] = tuple(text.lower() for text in rows[1])
    write_csv(tmp_path / 'train.csv', rows[:1], ('question', 'answer'))
    write_csv(tmp_path / 'test.csv', rows[1:], ('question', 'answer'))
    out = tmp_path / 'out'
    sudoku.build(str(out), source=str(tmp_path), check_unique=True, num_aug=1, show=False)
    train, test = (records.load(out, split) for split in ('train', 'test'))
    assert (train.metadata.vocab_size, train.metadata.side) == (18, 16)
    np.testing.assert_array_equal(cells(train)[0][0], large.questions[0] + 1)
    np.testing.assert_array_equal(cells(test)[1][0], large.answers[1] + 1)
    shown = page.write_dataset(tmp_path / 'page.html', test, 'boards').read_text()
    assert '"G"' in shown or 'ABCDEFG' in shown
    write_csv(tmp_path / 'test.csv', [('H' + rows[1][0][1:], rows[1][1])], ('question', 'answer'))
    with pytest.raises(BuildError, match=r'record 1: a question must be made of the digits 1\.\.G'):
        sudoku.build(str(tmp_path / 'bad'), source=str(tmp_path), show=False)


def test_a_task_on_boards_of_another_size():
    small = tasks.Sudoku(16, 6)
    assert small.with_side(16) == LARGE
    assert tasks.kind_of('nqueens')(36, 3).with_side(8) == tasks.kind_of('nqueens')(64, 3)
    with pytest.raises(PuzzleError, match='2 to 25 rows; got 26'):
        small.with_side(26)


@pytest.mark.parametrize(('size', 'fewest', 'most'), [(4, 9, 12), (6, 20, 24), (9, 45, 50)])
def test_boards_have_the_givens_that_are_asked_for(size, fewest, most):
    boards = sudoku_boards.generate(
        size, 30, 10, np.random.default_rng(0), fewest=fewest, most=most
    )
    for part in boards.values():
        givens = (part.questions > 0).sum(1)
        assert givens.min() >= fewest
        assert givens.max() <= most
    assert sudoku_boards.CLUES[size][1] < fewest  # not those of the default


@pytest.mark.parametrize(('fewest', 'most'), [(0, 9), (9, 8), (9, 36)])
def test_givens_that_no_board_can_have_are_refused(fewest, most):
    with pytest.raises(BuildError, match=r'--min-givens and --max-givens must be in 1\.\.35'):
        sudoku_boards.generate(6, 1, 1, np.random.default_rng(0), fewest=fewest, most=most)


def test_givens_are_of_generated_boards(tmp_path):
    with pytest.raises(BuildError, match='need --source generated'):
        sudoku.build(str(tmp_path / 'x'), source='boards.csv', min_givens=30, show=False)


def test_parts_of_a_training_on_several_sizes_share_their_weights(tmp_path, monkeypatch):
    from experiments import sudoku_sizes
    from hrm_jax import train
    from hrm_jax.checkpoint import layout

    done = []

    def fake(config, run, selector, log):
        done.append((config.data.path, config.train.max_steps, selector))
        assert config.model.any_size
        (run / layout.FOLDER / str(config.train.max_steps)).mkdir(parents=True)
        return train.Outcome(config.train.max_steps, {}, 'SIGTERM' if len(done) == 4 else '', None)

    monkeypatch.setattr(sudoku_sizes.train, 'train', fake)
    monkeypatch.setattr(
        sudoku_sizes.layout, 'steps',
        lambda run: [int(p.name) for p in (run / layout.FOLDER).glob('*')],
    )  # fmt: skip
    tested = []

    def rounds():
        return sudoku_sizes.train_rounds(
            tmp_path, 2, 0.1, lambda text: None, lambda *of: tested.append(of)
        )

    assert rounds() == 'SIGTERM'
    assert rounds() == ''  # parts that are done are not trained again
    sizes = [4, 6, 9, 4, 6, 9]
    assert [path for path, _, _ in done] == [str(tmp_path / 'data' / str(n)) for n in sizes]
    assert [steps for _, steps, _ in done] == [5, 10, 25] * 2
    runs = [str(tmp_path / f'round_{k}_{n}') for k in (1, 2) for n in (4, 6, 9)]
    assert [selector for _, _, selector in done] == ['', *runs[:-1]]
    assert tested == [(1, runs[2]), (1, runs[2]), (2, runs[5])]


def test_the_table_of_several_sizes_has_every_depth():
    from experiments import sudoku_sizes

    found = {str(size): {'16': 0.5, '64': size / 16} for size in sudoku_sizes.TESTED}
    first, rule, row = sudoku_sizes.table({'round 1': found}).splitlines()
    assert first.count('|') == rule.count('|') == row.count('|') == 10
    assert first.startswith('| weights | 4x4, 16 steps | 4x4, 64 steps | 6x6')
    assert row.startswith('| round 1 | 50.0% | 25.0% | 50.0%')
    assert row.endswith('| 50.0% | 100.0% |')
