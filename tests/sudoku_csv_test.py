"""Sudoku and maze files as people have them: one file, Kaggle's columns, several notations."""

import csv
import gzip
import os

import numpy as np
import pytest

pytest.importorskip('tensorflow_datasets')
pytest.importorskip('array_record')

from data_builders import board_text, commandline, holdout, maze, sources, sudoku
from hrm_jax.data import records
from hrm_jax.errors import BuildError
from tests.builder_sources import cells

BOARDS = sudoku.generate(4, 20, 10, np.random.default_rng(5))
PAIRS = [
    (''.join(map(str, q)), ''.join(map(str, a)))
    for part in BOARDS.values()
    for q, a in zip(part.questions, part.answers, strict=True)
]


def write(path, rows, header=('question', 'answer')):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return str(path)


def boards_of(out):
    """All boards of a set as text, and the number in each split."""
    found, counts = [], []
    for split in ('train', 'test'):
        questions, answers = cells(records.load(out, split))
        counts.append(len(questions))
        found += [
            (''.join(map(str, q - 1)), ''.join(map(str, a - 1)))
            for q, a in zip(questions.astype(int), answers.astype(int), strict=True)
        ]
    return sorted(found), counts


NOTATIONS = {
    'dots': lambda q: q.replace('0', '.'),
    'underscores': lambda q: q.replace('0', '_'),
    'stars': lambda q: q.replace('0', '*'),
    'blanks': lambda q: q.replace('0', ' '),
    'lines': lambda q: '\n'.join(q[k : k + 4] for k in range(0, 16, 4)),
    'lines of Windows': lambda q: '\r\n'.join(q[k : k + 4] for k in range(0, 16, 4)) + '\r\n',
    'slashes': lambda q: '/'.join(q[k : k + 4] for k in range(0, 16, 4)),
    'lines with blanks': lambda q: '\n'.join(q[k : k + 4].replace('0', ' ') for k in (0, 4, 8, 12)),
    'gaps': lambda q: ' '.join(q),
    'commas': lambda q: ','.join(q),
    'lines with gaps': lambda q: '\n'.join(' '.join(q[k : k + 4]) for k in range(0, 16, 4)),
    'blanks around it': lambda q: f'  {q} ',
}


@pytest.mark.parametrize('name', NOTATIONS)
def test_a_board_in_any_notation(tmp_path, name):
    noted = NOTATIONS[name]
    source = write(tmp_path / 'b.csv', [(noted(q), noted(a)) for q, a in PAIRS])
    sudoku.build(str(tmp_path / 'out'), source=source, show=False)
    assert boards_of(tmp_path / 'out')[0] == sorted(PAIRS)


def test_all_notations_in_one_file(tmp_path):
    noted = list(NOTATIONS.values())
    rows = [(noted[k % len(noted)](q), noted[-1 - k % len(noted)](a))
            for k, (q, a) in enumerate(PAIRS)]  # fmt: skip
    sudoku.build(str(tmp_path / 'out'), source=write(tmp_path / 'b.csv', rows), show=False)
    assert boards_of(tmp_path / 'out')[0] == sorted(PAIRS)


@pytest.mark.parametrize(
    ('header', 'row'),
    [
        (('quizzes', 'solutions'), lambda q, a, k: (q, a)),
        (('id', 'puzzle', 'solution', 'clues', 'difficulty'), lambda q, a, k: (k, q, a, 5, 2.2)),
        (('Question', ' Answer '), lambda q, a, k: (q, a)),
        (('answer', 'source', 'question'), lambda q, a, k: (a, 'x', q)),
        (('question', 'answer', 'rating'), lambda q, a, k: (q, a, 'not needed')),
        (('question', 'answer', 'puzzle', 'solution'), lambda q, a, k: (q, a, 'x', 'y')),
    ],
)
def test_columns(tmp_path, header, row):
    rows = [row(q, a, k) for k, (q, a) in enumerate(PAIRS)]
    sudoku.build(str(tmp_path / 'out'), source=write(tmp_path / 'b.csv', rows, header), show=False)
    assert boards_of(tmp_path / 'out')[0] == sorted(PAIRS)


@pytest.mark.parametrize(
    ('header', 'match'),
    [
        (('board', 'answer'), 'must have a column question or quizzes or quiz or puzzle'),
        (('question', 'result'), 'must have a column answer or solutions or solution'),
        (('question', 'answer', 'question'), 'must have one column question'),
    ],
)
def test_missing_columns(tmp_path, header, match):
    source = write(tmp_path / 'b.csv', [(q, a, q)[: len(header)] for q, a in PAIRS], header)
    with pytest.raises(BuildError, match=match):
        sudoku.build(str(tmp_path / 'out'), source=source, show=False)


def test_help_names_the_columns(capsys):
    for command in ('sudoku', 'maze'):
        with pytest.raises(SystemExit):
            commandline.main([command, '--help'])
        printed = ' '.join(capsys.readouterr().out.split())
        assert 'question or quizzes or quiz or puzzle' in printed
        assert 'answer or solutions or solution' in printed
        assert 'rating or difficulty' in printed


@pytest.mark.parametrize('place', ['a file', 'a folder', 'a compressed file', 'train.csv alone'])
def test_one_file_is_enough(tmp_path, place, capsys):
    name = 'train.csv' if place == 'train.csv alone' else 'boards.csv'
    source = write(tmp_path / 'd' / name, PAIRS)
    (tmp_path / 'd' / '._boards.csv').write_bytes(b'\x00\x05\x16\x07')
    (tmp_path / 'd' / 'README.md').write_text('about these boards')
    if place == 'a compressed file':
        text = (tmp_path / 'd' / name).read_bytes()
        source = str(tmp_path / 'boards.csv.gz')
        with gzip.open(source, 'wb') as file:
            file.write(text)
    elif place != 'a file':
        source = str(tmp_path / 'd')
    out = tmp_path / 'out'
    flags = ['sudoku', '--output-dir', str(out), '--source', source, '--test-fraction', '0.2']
    assert commandline.main([*flags, '--quiet']) == 0
    found, (train, test) = boards_of(out)
    assert found == sorted(PAIRS)
    assert 1 <= test <= 6
    assert train + test == 30


def test_no_board_and_no_solution_is_on_both_sides(tmp_path):
    rng = np.random.default_rng(0)
    rows = [PAIRS[k] for k in rng.integers(0, 30, 90)]  # boards several times
    # And with the solution of another board: more clues of it.
    rows += [(answer[:8] + question[8:], answer) for question, answer in PAIRS]
    source = write(tmp_path / 'b.csv', rows)
    for seed in range(4):
        out = tmp_path / f'out{seed}'
        made = sudoku.build(str(out), source=source, seed=seed, num_aug=2, show=False)
        assert made['notes']['leaks']['equal_inputs'] == 0
        train, test = (cells(records.load(out, split)) for split in ('train', 'test'))
        for k in range(2):
            assert not set(holdout.as_bytes(train[k])) & set(holdout.as_bytes(test[k]))


def test_ratings(tmp_path):
    header = ('question', 'answer', 'rating')
    rows = [(q, a, 1 + k / 10) for k, (q, a) in enumerate(PAIRS)]
    source = write(tmp_path / 'b.csv', rows, header)
    made = sudoku.build(str(tmp_path / 'a'), source=source, min_difficulty=2.5, show=False)
    assert sum(counts['examples'] for counts in made['counts'].values()) == 15
    flags = ['sudoku', '--output-dir', str(tmp_path / 'b'), '--source', source, '--quiet']
    assert commandline.main([*flags, '--min-difficulty', '3']) == 0
    for value in ('', 'hard', 'nan'):
        write(tmp_path / 'b.csv', [*rows[:4], (*PAIRS[4], value)], header)
        with pytest.raises(BuildError, match='record 5: --min-difficulty needs a rating'):
            sudoku.build(str(tmp_path / 'c'), source=source, min_difficulty=1, show=False)
    write(tmp_path / 'b.csv', PAIRS)
    with pytest.raises(BuildError, match='must have a column rating or difficulty'):
        sudoku.build(str(tmp_path / 'c'), source=source, min_difficulty=1, show=False)
    with pytest.raises(BuildError, match='--min-difficulty must be a number; got inf'):
        sudoku.build(str(tmp_path / 'c'), source=source, min_difficulty=float('inf'), show=False)


@pytest.mark.parametrize('tail', ['\n', '\n\n\n', ',\n', '   \n', '\r\n'])
def test_blank_lines(tmp_path, tail):
    path = tmp_path / 'b.csv'
    lines = [f'{q},{a}\n' for q, a in PAIRS]
    path.write_bytes(('\nquestion,answer\n' + '\n'.join(lines) + tail).encode())
    assert len(sources.read_csv(path).questions) == 30


def test_zeros_that_a_spreadsheet_has_dropped(tmp_path):
    rows = [(int(q), a) for q, a in PAIRS if q.startswith('0')]
    source = write(tmp_path / 'b.csv', rows)
    with pytest.raises(BuildError, match=r'record 1: the question must have 16 .*Spreadsheets'):
        sudoku.build(str(tmp_path / 'out'), source=source, show=False)


def test_sudokus_in_one_line_that_look_like_others():
    assert board_text.flat_sudoku('1' + ' ' * 15) == '1' + ' ' * 15  # blanks, not gaps
    assert board_text.flat_sudoku('  1 ' * 4) == '  1 ' * 4
    assert board_text.flat_sudoku(' '.join('.' * 36)) == '.' * 36  # 71 characters
    assert board_text.flat_sudoku('12/34') == '1234'
    assert board_text.flat_sudoku('1 2;3 4') == '1 2;3 4'


def test_a_file_that_nobody_has_memory_for(tmp_path, monkeypatch):
    path = tmp_path / 'b.csv.gz'
    rows = ''.join(f'{q},{a}\n' for q, a in PAIRS)
    with gzip.open(path, 'wt') as file:
        file.write('question,answer\n' + rows * 4)
    assert len(sources.read_csv(path, chunk_rows=16).questions) == 120
    monkeypatch.setattr(os, 'sysconf', lambda name: 36)  # a page of 36 bytes, 36 of them
    with pytest.raises(BuildError, match=r'b\.csv\.gz with 48 records and more needs'):
        sources.read_csv(path, chunk_rows=16)


def mazes(count):
    """Different 5x5 mazes, straight ones."""
    found = []
    for k in range(count):
        walls = f'{k:05b}'.replace('0', ' ').replace('1', '#')
        found.append((f'S   G#####{walls}##########', f'SoooG#####{walls}##########'))
    return found


def test_mazes_from_one_file_with_rows(tmp_path):
    def turned(maze_text):
        square = np.rot90([list(maze_text[k : k + 5]) for k in range(0, 25, 5)])
        return '\n'.join(''.join(row) for row in square)

    rows = [tuple('/'.join(s[k : k + 5] for k in range(0, 25, 5)) for s in p) for p in mazes(16)]
    source = write(tmp_path / 'm.csv', [*rows, *[tuple(map(turned, p)) for p in mazes(6)]])
    for seed in range(3):
        out = tmp_path / f'out{seed}'
        maze.build(str(out), source=source, aug=True, test_fraction=0.3, seed=seed, show=False)
        sides = [
            set(holdout.without_turns(cells(records.load(out, split))[0], 5))
            for split in ('train', 'test')
        ]
        assert not sides[0] & sides[1]
        assert len(sides[0] | sides[1]) <= 16


def test_a_build_ends_with_a_board_as_it_was_read(tmp_path, capsys):
    rows = [('1_*2/2..1/31.4/4003', '1342243131244213'), PAIRS[0], PAIRS[1]]
    write(tmp_path / 'train.csv', rows[:1])
    write(tmp_path / 'test.csv', rows[1:])
    sudoku.build(str(tmp_path / 'out'), source=str(tmp_path), size=4, num_aug=0)
    shown = capsys.readouterr().err.splitlines()[-5:]
    assert shown == [
        'boards of 4 x 4 with boxes of 2 x 2; the first for training, with its answer:',
        '  |1 . . 2|   |1 3 4 2|',
        '  |2 . . 1|   |2 4 3 1|',
        '  |3 1 . 4|   |3 1 2 4|',
        '  |4 . . 3|   |4 2 1 3|',
    ]
