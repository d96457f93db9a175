"""Tasks: texts, boards, rules, and what a folder without a name is taken for."""

import numpy as np
import pytest

from data_builders import sudoku_rules
from hrm_jax import tasks
from hrm_jax.errors import PuzzleError
from hrm_jax.visualize import boards

SUDOKU = tasks.Sudoku(16, 6)
MAZE = tasks.Maze(16, 6)
BOARD = tasks.PathFinding(9, 5)
LISP = tasks.Lisp(5, 4, vocabulary={'<pad>': 0, '(': 1, 'x': 2, ')': 3})


@pytest.mark.parametrize(
    ('task', 'text', 'tokens'),
    [
        (SUDOKU, '1.0_ ....\n....  ...4', [2] + [1] * 14 + [5]),
        (MAZE, '#S #\n#  #\n#. #\n##G#', [1, 3, 2, 1, 1, 2, 2, 1, 1, 2, 2, 1, 1, 1, 4, 1]),
        (BOARD, 'S..#..#.E', [2, 0, 0, 1, 0, 0, 1, 0, 3]),
        (LISP, '( x )', [1, 2, 3, 0, 0]),
    ],
)
def test_texts_become_tokens_and_back(task, text, tokens):
    assert task.parse(text).tolist() == tokens
    assert task.parse(task.text(tokens)).tolist() == tokens


@pytest.mark.parametrize(
    ('task', 'text', 'message'),
    [
        (SUDOKU, '1...', 'must have 16 cells.*got 4. The first one missing is row 2, column 1'),
        (SUDOKU, '.' * 17, 'got 17. Nothing may follow row 4, column 4'),
        (SUDOKU, '.....5..........', r"row 2, column 2 must be a digit 1\.\.4.*got '5'"),
        (SUDOKU, '.....x..........', "row 2, column 2 .*got 'x'"),
        (SUDOKU, '1..1............', 'row 1, column 4 must differ from row 1, column 1 in its row'),
        (SUDOKU, '1....1..........', 'row 2, column 2 .* in its box; both are 1'),
        (MAZE, 'S' * 16, 'there must be one S; got row 1, column 1; row 1, column 2'),
        (MAZE, 'S' + ' ' * 15, 'there must be one G; got none'),
        (BOARD, 'S..#..#.o', "row 3, column 3 must be one of .*got 'o'"),
        (LISP, '( y )', "cell 2 must be a token of vocab.json; got 'y'"),
        (LISP, '', 'must have 1 to 5 tokens; got 0'),
    ],
)
def test_bad_puzzles_name_the_cell(task, text, message):
    with pytest.raises(PuzzleError, match=message):
        task.parse(text)


def test_validity_of_sudokus():
    question = SUDOKU.parse('.143341.1.344321')
    solved = np.array([3, 2, 5, 4, 4, 5, 2, 3, 3, 2, 4, 5, 5, 4, 3, 2])
    right = SUDOKU.parse('2143341212344321')
    assert SUDOKU.is_valid(question, right)
    assert not SUDOKU.is_valid(question, solved)
    assert not SUDOKU.is_valid(SUDOKU.parse('3...............'), right)  # changed a given
    assert not SUDOKU.is_valid(question, np.where(np.arange(16) == 0, 1, right))
    assert LISP.is_valid(question, right) is None


@pytest.mark.parametrize(
    ('answer', 'valid'),
    [
        ('S**##*###*E##o'[:9], False),
        ('S**##*#*E', False),
        ('S**##*..E', False),
        ('S**#.*#.E', True),
    ],
)
def test_validity_of_paths(answer, valid):
    question = BOARD.parse('S..#..#.E')
    tokens = np.array(['.#SE*'.index(c) if c in '.#SE*' else 9 for c in answer])
    assert BOARD.is_valid(question, tokens) is valid


def test_boards_become_tokens_and_back():
    text = '53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79'
    tokens = tasks.Sudoku.encode(text)
    assert tokens[:4].tolist() == [6, 4, 1, 1]  # digit d is token d + 1; 0 (empty) is 1
    np.testing.assert_array_equal(tasks.Sudoku.encode(tasks.Sudoku.decode(tokens)), tokens)
    np.testing.assert_array_equal(tasks.Sudoku.encode(text.replace('.', '0')), tokens)
    for wrong in ('12z4', [[1, 26]], [0.5], ''):
        with pytest.raises(PuzzleError, match=r'Sudoku|must be a digit'):
            tasks.Sudoku.encode(wrong)
    maze = '#####\n#S o#\n# #o#\n# Go#\n#####'
    assert tasks.Maze.decode(tasks.Maze.encode(maze)) == maze
    assert tasks.Maze.encode(maze)[6:9].tolist() == [3, 2, 5]
    with pytest.raises(PuzzleError, match='maze'):
        tasks.Maze.encode('#x')
    for shape in ((2, 3), (30, 30), (1, 30)):
        grid = np.random.default_rng(0).integers(0, 10, shape)
        np.testing.assert_array_equal(tasks.Arc.decode(tasks.Arc.encode(grid)), grid)
    with pytest.raises(PuzzleError, match='ARC'):
        tasks.Arc.encode(np.zeros((31, 2), int))


def test_every_task_has_its_own_name_and_symbols_for_its_tokens():
    assert set(tasks.TASKS) >= {'arc', 'lisp', 'maze', 'pathfinding', 'sudoku'}
    for kind in tasks.TASKS.values():
        assert not (kind.colours and kind.symbols) or len(kind.colours) == len(kind.symbols)
        for symbol in kind.aliases:
            assert symbol not in kind.symbols
        assert kind.blank is None or kind.symbols[kind.blank] in '. '
    assert type(tasks.kind_of('mine')(4, 9)) is tasks.Task


@pytest.mark.parametrize(('side', 'boxes'), [(4, (2, 2)), (6, (2, 3)), (9, (3, 3)), (12, (3, 4))])
def test_boards_are_drawn_with_the_boxes_of_the_rules(side, boxes):
    sudoku = tasks.Sudoku(side * side, side + 2)
    assert sudoku.boxes == boxes
    lines = boards.board_lines(np.full(side * side, 2), sudoku)
    rules = [number for number, line in enumerate(lines) if set(line) <= set('-+')]
    assert rules == [k * (boxes[0] + 1) - 1 for k in range(1, side // boxes[0])]
    assert lines[0].count('|') == side // boxes[1] - 1


def test_rules_of_a_6x6_sudoku_use_boxes_of_2_by_3():
    solution = sudoku_rules.Solver(6).random_solution(np.random.default_rng(0))
    question, answer = np.ones(36, np.int32), solution.astype(np.int32) + 1
    sudoku = tasks.Sudoku(36, 8)
    assert sudoku.is_valid(question, answer)
    swapped = answer.reshape(6, 6)[[0, 2, 1, 3, 4, 5]].ravel()  # rows of two bands of boxes
    assert not sudoku.is_valid(question, swapped)
    assert not sudoku.is_valid(answer[::-1].copy(), answer)


def test_digits_above_9_are_letters():
    sudoku = tasks.Sudoku(256, 18)
    text = '123456789ABCDEFG' + '.' * 240
    assert sudoku.parse(text)[:16].tolist() == list(range(2, 18))
    assert sudoku.text(sudoku.parse(text)) == text
    with pytest.raises(PuzzleError, match=r'must be a digit 1\.\.G'):
        sudoku.parse('H' + '.' * 255)


def test_a_folder_without_a_name_is_guessed_from_its_content():
    rng = np.random.default_rng(0)
    solutions = np.stack([sudoku_rules.Solver(4).random_solution(rng) for _ in range(8)]) + 1
    questions = np.where(rng.random(solutions.shape) < 0.5, solutions, 1)
    maze = np.full((8, 16), 2)
    maze[:, 0], maze[:, 15] = 3, 4
    assert tasks.guess(6, 16, False, questions, solutions) == 'sudoku'
    assert tasks.guess(6, 16, False, maze, np.where(maze == 2, 5, maze)) == 'maze'
    assert tasks.guess(5, 16, False, maze - 1, maze - 1) == 'pathfinding'
    assert tasks.guess(12, 900, False, np.zeros((2, 900)), np.zeros((2, 900))) == 'arc'
    assert tasks.guess(30, 16, True, maze, maze) == 'lisp'
    assert tasks.guess(6, 16, False, maze * 0 + 1, maze * 0 + 1) == ''
    assert tasks.guess(6, 15, False, maze[:, :15], maze[:, :15]) == ''
