"""Puzzles as people write them: layouts, frames, separators, comments, custom texts."""

import dataclasses

import numpy as np
import pytest

from hrm_jax import tasks
from hrm_jax.errors import PuzzleError
from hrm_jax.tasks import puzzle_text
from hrm_jax.visualize import boards

PLAIN = '1..2.......3....'
SUDOKU = tasks.Sudoku(16, 6)
NINE = tasks.Sudoku(81, 11)
ASCII_BOX = '\n'.join(
    [
        '+-----+-----+',
        '| 1 . | . 2 |',
        '| . . | . . |',
        '+-----+-----+',
        '| . . | . 3 |',
        '| . . | . . |',
        '+--+--+',
    ]
)
DRAWN_BOX = '\r\n'.join(
    [
        '┌─────┬─────┐',
        '│ 1 . │ . 2 │',
        '│ . . │ . . │',
        '├─────┼─────┤',
        '│ . . │ . 3 │',
        '│ . . │ . . │',
        '└─────┴─────┘',
    ]
)
DOTTED_BOX = '\n'.join(
    [
        '.-----.-----.',
        '| 1 . | . 2 |',
        '| . . | . . |',
        ':-----+-----:',
        '| . . | . 3 |',
        '| . . | . . |',
        '`-----`-----`',
    ]
)
MAZE = tasks.Maze(25, 6)
WAY = '######S G##   ###########'


def custom(text: str, grid, **facts):
    """A task of one's own whose tokens are the characters of a text."""
    words = ['<pad>', *sorted(set(text))] if isinstance(text, str) else ['<pad>', *text]
    return tasks.Task(
        grid[0] * grid[1], len(words), grid=grid, vocabulary={w: k for k, w in enumerate(words)},
        **facts,
    )  # fmt: skip


@pytest.mark.parametrize(
    'text',
    [
        PLAIN,
        '\ufeff1..2.......3....\n',
        '1 . . 2\n. . . .\n. . . 3\n. . . .',
        '1 . | . 2\n. . | . .\n----+----\n. . | . 3\n. . | . .',
        ASCII_BOX,
        DRAWN_BOX,
        DOTTED_BOX,
        '1,0,0,2\n0,0,0,0\n0,0,0,3\n0,0,0,0',
        '1,0,0,2,0,0,0,0,0,0,0,3,0,0,0,0',
        '1;0;0;2\n0;0;0;0\n0;0;0;3\n0;0;0;0',
        '1,,,2\n,,,\n,,,3\n,,,',
        '1,,,2,\n,,,,\n,,,3,\n,,,,\n',
        '1, , ,2\n , , , \n , , ,3\n , , , ',
        '1;;;2\n;;;\n;;;3\n;;;',
        '1\t\t\t2\n\t\t\t\n\t\t\t3\n\t\t\t\n',
        '1,,,2,,,,,,,,3,,,,',
        '1,,,2/,,,/,,,3/,,,',
        '1,,,2\\n,,,\\n,,,3\\n,,,',
        '# from a magazine\n1..2\n....\n...3\n....\n; the end',
        '// easy\n1002/0000/0003/0000',
        '1__2_______3____',
        '1**2*******3****',
        '1  2       3    ',
        '1  2\n    \n   3\n    \n',
        '1  2\n\n   3\n\n',
        '[[1, 0, 0, 2], [0, 0, 0, 0], [0, 0, 0, 3], [0, 0, 0, 0]]',
        '[1, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0]',
    ],
)
def test_a_sudoku_is_read_in_any_usual_form(text):
    assert SUDOKU.text(SUDOKU.parse(text)) == PLAIN


def test_a_table_that_lacks_fields_is_no_board():
    # Without the commas these would be rows whose last cells are empty.
    with pytest.raises(PuzzleError, match='must have 4 fields, empty ones too; got 3, 4, 4, 4'):
        SUDOKU.parse('1,,2\n,,,\n,,,3\n,,,')


def test_numbers_above_9_and_letters_are_the_same_digits():
    big = tasks.Sudoku(256, 18)
    numbers = ' '.join(str(n) for n in (10, 16, 0, 9)) + ' 0' * 252
    assert big.text(big.parse(numbers)).startswith('AG.9')
    assert big.text(big.parse(numbers.replace(' ', ','))).startswith('AG.9')
    with pytest.raises(PuzzleError, match=r"row 1, column 2 must be a digit 1\.\.G.*got '17'"):
        big.parse(numbers.replace('16', '17'))


@pytest.mark.parametrize(
    'task', [SUDOKU, NINE, tasks.Sudoku(36, 8), MAZE, tasks.PathFinding(25, 5)]
)
def test_the_printed_board_is_read_again(task):
    rng = np.random.default_rng(0)
    for _ in range(20):
        if isinstance(task, tasks.Sudoku):
            tokens = np.ones(task.seq_len, np.int32)
            tokens[rng.integers(task.seq_len)] = rng.integers(2, task.vocab_size)
        else:
            tokens = rng.choice([task.WALL, task.FLOOR], task.seq_len)
            tokens[rng.choice(task.seq_len, 2, replace=False)] = task.START, task.END
        lines = boards.board_lines(tokens, task)
        printed = boards.side_by_side(['puzzle'], [lines]).split('\n', 2)[2]
        for text in ('\n'.join(lines), printed, '\n' + printed + '\n\n'):
            assert task.parse(text).tolist() == tokens.tolist()


@pytest.mark.parametrize(
    'text',
    [
        WAY,
        '#####\n#S G#\n#   #\n#####\n#####',
        '#####/#S G#/#   #/#####/#####',
        '# # # # #\n# S   G #\n#       #\n# # # # #\n# # # # #',
        '+-----+\n|#####|\n|#S G#|\n|#   #|\n|#####|\n|#####|\n+-----+',
        '; a maze\n#####\n#S.G#\n#...#\n#####\n#####\n',
        '#,#,#,#,#\n#,S, ,G,#\n#, , , ,#\n#,#,#,#,#\n#,#,#,#,#',
    ],
)
def test_a_maze_is_read_in_any_usual_form(text):
    assert MAZE.text(MAZE.parse(text)) == WAY


def test_blanks_at_the_end_of_a_mazes_rows_may_be_missing():
    open_maze = tasks.Maze(9, 6)
    assert open_maze.text(open_maze.parse('S\n##\n  G')) == 'S  ##   G'


def test_walls_are_no_comments_and_wrong_characters_no_frames():
    with pytest.raises(PuzzleError, match=r"row 1, column 2 must be one of .*got 'x'"):
        MAZE.parse('#x###' + WAY[5:])
    with pytest.raises(PuzzleError, match=r'must have 16 cells .*got 12'):
        SUDOKU.parse('1..2\n# ....\n...3\n....')


GRIDS = custom('.ab', (3, 4))
SLASHED = custom('/ab', (2, 2))
COMMAS = custom(',|ab', (2, 3))
WORDS = custom(['3', '14', '15', '-'], (2, 3))
BLANKS = custom(' #', (2, 3))
MARKED = custom('0|ab', (2, 2), row_marks=';', blanks='0._')
LETTERS = custom('ab', (1, 4), words=True)
STRINGS = custom('abc', (1, 6))


@pytest.mark.parametrize(
    ('task', 'text', 'cells', 'written'),
    [
        (STRINGS, 'abcab', 'abcab', 'abcab'),
        (STRINGS, 'a b c a b', 'abcab', 'abcab'),
        (GRIDS, '..ab/ab..', '..ab/ab..', '..ab/ab..'),
        (GRIDS, '..ab\nab..\n', '..ab/ab..', '..ab/ab..'),
        (GRIDS, '| . . a b |\n| a b . . |', '..ab/ab..', '..ab/ab..'),
        (GRIDS, '.a.b.a.b.a.b', '.a.b/.a.b/.a.b', '.a.b/.a.b/.a.b'),
        (GRIDS, '[[".", "a"], ["b", "b"]]', '.a/bb', '.a/bb'),
        (SLASHED, '/a\nb/', '/a\\nb/', '/a\\nb/'),
        (COMMAS, ',|a/b,|', ',|a/b,|', ',|a/b,|'),
        (WORDS, '3 14 15/- 3 3', '3 14 15/- 3 3', '3 14 15/- 3 3'),
        (WORDS, '3,14,15\n-,3,3', '3 14 15/- 3 3', '3 14 15/- 3 3'),
        (WORDS, '[[3, 14], [15, 3]]', '3 14/15 3', '3 14/15 3'),
        (BLANKS, '# #\n #', '# #', None),
        (BLANKS, '\n# #\n # \n', '# #/ # ', '# #/ # '),
        (BLANKS, '   /# #', '   /# #', '   /# #'),
        (MARKED, '.a;_|', '0a;0|', '0a;0|'),
        (MARKED, '0a\n0|', '0a;0|', '0a;0|'),
        (LETTERS, 'a b a', 'a b a', 'a b a'),
    ],
)
def test_texts_of_custom_tasks_come_back(task, text, cells, written):
    if written is None:
        with pytest.raises(PuzzleError, match='row 1 has 3 cells, row 2 has 2'):
            task.parse(text)
        return
    tokens = task.parse(text)
    gap = ' ' if task is WORDS or task is LETTERS else ''
    rows = [gap.join(row) for row in task.cells(tokens)]
    assert task.row_mark.join(rows) == cells
    assert task.text(tokens) == written
    assert task.parse(task.text(tokens)).tolist() == tokens.tolist()


@pytest.mark.parametrize(
    ('task', 'text', 'message'),
    [
        (GRIDS, '.a/b', 'row 1 has 2 cells, row 2 has 1'),
        (GRIDS, '...../.....', '1 to 3 rows of 1 to 4 cells; got 2 rows of 5'),
        (GRIDS, '.a/.x', "row 2, column 2 must be a token of vocab.json; got 'x'"),
        (GRIDS, '', 'got 0 rows of 0'),
        (WORDS, '3 4', "row 1, column 2 must be a token of vocab.json; got '4'"),
        (WORDS, '3 <pad>', "got '<pad>'"),
        (STRINGS, 'abcabca', 'must have 1 to 6 tokens; got 7'),
        (STRINGS, '[[{}]]', 'list of cells, or of rows of cells; got {}'),
    ],
)
def test_bad_custom_texts_name_the_cell(task, text, message):
    with pytest.raises(PuzzleError, match=message):
        task.parse(text)


def test_an_answer_has_the_size_of_its_question_unless_padding_was_learned():
    question = GRIDS.parse('.a/bb')
    answer = np.array([1, 2, 3, 3, 2, 1, 1, 1, 3, 2, 1, 3])
    assert GRIDS.text(GRIDS.finished(question, answer)) == '.a/a.'
    learned = dataclasses.replace(GRIDS, pads_are_scored=True)
    answer = np.array([1, 2, 3, 0] + [0] * 8)
    assert learned.text(learned.finished(question, answer)) == '.ab'
    assert (
        STRINGS.text(STRINGS.finished(STRINGS.parse('abc'), np.array([1, 2, 1, 3, 3, 2]))) == 'aba'
    )


def test_lisp_needs_no_blanks_and_ends_with_its_expression():
    words = ['<pad>', '(', ')', '+', '-', '12', 'x']
    lisp = tasks.Lisp(8, 7, vocabulary={w: k for k, w in enumerate(words)})
    tokens = lisp.parse('(+ 12\n  x)')
    assert lisp.text(tokens) == '( + 12 x )'
    assert lisp.parse('( + 12 x )').tolist() == tokens.tolist()
    predicted = np.array([1, 3, 5, 6, 2, 6, 6, 0])
    assert lisp.text(lisp.finished(tokens, predicted)) == '( + 12 x )'
    assert lisp.text(lisp.finished(tokens, np.array([5, 6, 6, 6, 6, 6, 6, 6]))) == '12'


def test_arc_grids_are_written_as_digits():
    arc = tasks.Arc(900, 12)
    for text in ('012/345', '0 1 2\n3 4 5', '[[0, 1, 2], [3, 4, 5]]'):
        assert arc.text(arc.parse(text)) == '012/345'
    with pytest.raises(PuzzleError, match='row 2 must have as many cells as row 1'):
        arc.parse('012/34')


@pytest.mark.parametrize(
    ('puzzle', 'count'),
    [
        ('1234341221434321', 1),
        ('1..2.......3....', 2),
        ('1234341221434.2.', 1),
        ('.' * 16, 2),
        ('123.....4.......', 2),
        ('123....4........', 0),
    ],
)
def test_solutions_of_a_sudoku_are_counted(puzzle, count):
    assert SUDOKU.count_solutions(SUDOKU.parse(puzzle)) == count


def test_counting_gives_up_where_it_takes_too_long():
    hard = NINE.parse(
        '8..........36......7..9.2...5...7.......457.....1...3...1....68..85...1..9....4..'
    )
    assert NINE.count_solutions(hard) == 1
    assert NINE.count_solutions(hard, max_nodes=100) is None
    assert MAZE.count_solutions(MAZE.parse(WAY)) is None


def test_boards_of_a_text_are_separated_by_empty_lines():
    text = '\ufeff1..2\n....\n\n\n# two\n...3\n....\n'
    assert puzzle_text.blocks(text, '.123') == ['1..2\n....', '...3\n....']
    assert puzzle_text.blocks('1\t2\n\t\n\n; one\n;;\n', '.12') == ['1\t2\n\t', ';;']
