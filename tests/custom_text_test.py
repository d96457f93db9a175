"""Texts of custom tasks: every character is a symbol, and what is built can be read back."""

import csv
import json

import numpy as np
import pytest

pytest.importorskip('tensorflow_datasets')
pytest.importorskip('array_record')

from data_builders import commandline, custom, custom_records, folder_format, holdout
from hrm_jax.data import records, text
from hrm_jax.errors import BuildError, DatasetError, PuzzleError


def write(path, rows, header=('question', 'answer')):
    with path.open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def decoded(out, splits=('train', 'test')):
    """All examples of a set as pairs of texts, read from its stored tokens."""
    reading = text.reading_of(out)
    pairs = []
    for split in splits:
        puzzles = records.load(out, split).sets['all']
        pairs += [
            (reading.decode(question), reading.decode(answer))
            for question, answer in zip(puzzles.inputs, puzzles.labels, strict=True)
        ]
    return pairs


def bits(rows, columns, count):
    """Grids of 0 and 1 and their opposites."""
    rng = np.random.default_rng(0)
    grids = rng.integers(0, 2, (count, rows, columns))
    return [
        tuple('\n'.join(''.join(map(str, row)) for row in grid) for grid in (one, 1 - one))
        for one in grids.tolist() and grids
    ]


def mazes(side, count):
    """Walls and blanks, also at the ends of rows and in the corners."""
    rng = np.random.default_rng(1)
    rows = []
    for _ in range(count):
        grid = rng.choice(list('#  '), (side, side))
        grid[0, 1], grid[-1, -2] = 'S', 'G'
        question = '\n'.join(''.join(row) for row in grid)
        rows.append((question, question.replace(' ', 'o', 1)))
    return rows


SEVERAL = [('1/2', '2/1'), ('a*b', 'b*a'), (' x', 'x '), ('0._*', '*_.0'), ('"q"', "'q'")]
UNCHANGED = {
    'a 0/1 grid': bits(4, 5, 12),
    'one row of bits': bits(1, 9, 12),
    'a Lisp expression': [(f'(* {k} (/ x {k + 1}))', f'(/ (* {k} x) {k + 1})') for k in range(12)],
    'a maze with spaces': mazes(6, 12),
    'grids of several sizes': [*bits(2, 3, 6), *bits(5, 2, 6)],
    'signs that mean something elsewhere': [
        (f'{q}{k}', f'{a}{k}') for k in range(3) for q, a in SEVERAL
    ],
    'other scripts': [('日本語', '語本日'), ('åéß', 'ßéå'), ('🙂🙃', '🙃🙂')] * 4,
}


@pytest.mark.parametrize('name', UNCHANGED)
@pytest.mark.parametrize('ending', ['csv', 'jsonl'])
def test_a_text_comes_back_unchanged(tmp_path, name, ending):
    pairs, path = UNCHANGED[name], tmp_path / f'own.{ending}'
    if ending == 'csv':
        write(path, pairs)
    else:
        lines = [json.dumps({'question': q, 'answer': a}) for q, a in pairs]
        path.write_text('\n'.join(lines))
    out = tmp_path / 'out'
    custom.build(str(out), source=str(path), test_fraction=0.25, show=False)
    assert sorted(decoded(out)) == sorted(pairs)


@pytest.mark.parametrize('line_end', ['\n', '\r\n', '\r'])
def test_line_ends_within_cells_are_no_tokens(tmp_path, line_end):
    grids = [f'{k}a{line_end}b{k}{line_end}' for k in range(8)]
    rows = [(grid, line_end + grid) for grid in grids]
    out = tmp_path / 'out'
    custom.build(str(out), source=str(write(tmp_path / 'own.csv', rows)), show=False)
    tokens = json.loads((out / 'vocab.json').read_text())
    assert set(tokens) == {'<pad>', 'a', 'b', *'01234567'}
    assert records.load(out, 'train').metadata.seq_len == 4


def test_rows_and_blanks_that_the_options_name(tmp_path):
    notations = ['1..4/..3.', '1004/0030', '1__4/__3_', '1**4/**3*', '1  4/  3 ']
    rows = [(f'{one}/{k}..1', f'1234/4321/111{k}') for k, one in enumerate(notations, start=1)]
    path = write(tmp_path / 'own.csv', rows)
    out = tmp_path / 'out'
    flags = ['custom', '--source', str(path), '--output-dir', str(out), '--quiet']
    assert commandline.main([*flags, '--rows=/', '--blank=.0_* ', '--test-fraction=0.4']) == 0
    questions = {question for question, _ in decoded(out)}
    assert questions == {f'1..4\n..3.\n{k}..1' for k in range(1, 6)}
    manifest = json.loads((out / 'manifest.json').read_text())
    assert (manifest['options']['rows'], manifest['options']['blank']) == ('/', '.0_* ')


def test_words_and_lists(tmp_path):
    lines = [{'question': [[10 + k, 2], [3, 4]], 'answer': [[2, 10 + k], [4, 3]]} for k in range(8)]
    path = tmp_path / 'own.jsonl'
    path.write_text('\n'.join(map(json.dumps, lines)))
    custom.build(str(tmp_path / 'out'), source=str(path), show=False)
    assert ('10 2\n3 4', '2 10\n4 3') in decoded(tmp_path / 'out')
    rows = [(f'wait {k}\nnow 2', f'{k} wait\n2 now') for k in range(8)]
    custom.build(
        str(tmp_path / 'out2'), source=str(write(tmp_path / 'w.csv', rows)), words=True, show=False
    )
    assert sorted(decoded(tmp_path / 'out2')) == sorted(rows)


LINE, ROWS, SPACED = '.' * 36, '\n'.join(['......'] * 6), ' '.join('.' * 36)


@pytest.mark.parametrize(
    ('rows', 'match'),
    [
        ([(LINE, '1' * 36), (ROWS, ROWS)], r'record 1: the question must have rows.*record 2 has'),
        ([(ROWS, ROWS), (SPACED, SPACED)], r'record 2: the question must .* one row of 71 cells'),
        ([(ROWS, ROWS), (ROWS, LINE)], r'record 2: the answer must have rows, as others have'),
        ([(ROWS, LINE), (ROWS, LINE)], r'record 1: question and answer must be written alike'),
        ([(LINE, ROWS), (LINE, ROWS)], r'record 1: question and answer must be written alike'),
        ([('ab\ncd', 'ba'), ('ab\nc', 'ba')], r'record 2, question: all rows .* row 2 has 1'),
        ([('ab\n\ncd', 'ba')], r'record 1, question: all rows of a grid must have one length'),
    ],
)  # fmt: skip
def test_mixed_shapes_name_the_record(tmp_path, rows, match):
    path = write(tmp_path / 'own.csv', rows)
    with pytest.raises(BuildError, match=match):
        custom.build(str(tmp_path / 'out'), source=str(path), show=False)
    assert not (tmp_path / 'out').exists()


def test_a_grid_with_a_text_as_its_answer_is_a_task(tmp_path):
    rows = [(f'{k}.\n.#', 'down right ' + 'x' * k) for k in range(8)]
    custom.build(str(tmp_path / 'out'), source=str(write(tmp_path / 'o.csv', rows)), show=False)
    assert sorted(decoded(tmp_path / 'out')) == sorted(rows)


@pytest.mark.parametrize(
    ('rows', 'options', 'expected'),
    [
        (bits(3, 4, 10), {}, ['read as grids of up to 3 rows and 4 columns of characters',
                              '2 tokens: 0 1']),
        (UNCHANGED['a Lisp expression'], {}, ['read as texts of 13 to 15 characters',
                                             "' ' ( ) * / 0", '|(* 0 (/ x 1))']),
        ([(f'go {k}', f'{k} go') for k in range(9)], {'words': True},
         ['read as texts of 2 to 2 words', '|go 0', '|0 go']),
    ],
)  # fmt: skip
def test_the_build_ends_with_what_was_read(tmp_path, capsys, rows, options, expected):
    source = str(write(tmp_path / 'own.csv', rows))
    custom.build(str(tmp_path / 'out'), source=source, seed=1, **options)
    printed = capsys.readouterr().err
    for part in expected:
        assert part in printed
    assert f'{source}, record 1:' in printed or f'{source}, record 2:' in printed


def test_rows_that_nobody_has_named_are_pointed_out(tmp_path, capsys):
    rows = [(f'{k}./.#', f'{k}o/o#') for k in range(8)]
    source = str(write(tmp_path / 'own.csv', rows))
    custom.build(str(tmp_path / 'out'), source=source)
    assert 'If they are rows, build with --rows=/.' in capsys.readouterr().err
    custom.build(str(tmp_path / 'out2'), source=source, rows='/')
    custom.build(
        str(tmp_path / 'out3'),
        source=str(write(tmp_path / 'l.csv', UNCHANGED['a Lisp expression'])),
    )
    assert '--rows=/' not in capsys.readouterr().err


@pytest.mark.parametrize(
    ('line', 'match'),
    [
        ('{"question": null, "answer": "b"}', 'record 1 must have a question'),
        ('{"question": {"a": 1}, "answer": "b"}', 'question must be a text, a list, or a list of'),
        ('{"question": 7, "answer": "b"}', 'question must be a text, a list.*got 7'),
        ('{"question": [[1], 2], "answer": "b"}', 'question must be a text, a list'),
        ('{"question": [null], "answer": "b"}', 'question: a cell must be a text or a number; got'),
        ('{"question": [[[1]]], "answer": "b"}', 'a cell must be a text or a number; got a list'),
        ('{"question": [""], "answer": "b"}', 'a cell must be a text or a number'),
        ('{"question": [[]], "answer": "b"}', 'question: it must have cells'),
        ('{"question": "a", "answer": "b", "puzzle": [1]}', 'record 1, puzzle must be a text or'),
        ('{"question": "a", "answer": "b", "puzzle": "<blank>"}', 'puzzle must be a text or'),
        ('["a", "b"]', 'record 1 must be JSON with an object; got a list'),
        ('{"question": ' + '[' * 100_000, 'record 1 must be JSON of few levels'),
        ('{"question": ["<pad>"], "answer": ["b"]}', 'has the token <pad>'),
        ('{"question": ["a b", "c"], "answer": ["c", "a b"]}', 'must not have characters that sep'),
        ('{"question": ["a\\n"], "answer": ["b"]}', 'must not have characters that separate'),
    ],
)
def test_odd_records_name_file_and_record(tmp_path, line, match):
    path = tmp_path / 'own.jsonl'
    path.write_text(line)
    with pytest.raises(BuildError, match=match) as error:
        custom.build(str(tmp_path / 'out'), source=str(path), show=False)
    assert str(path) in str(error.value)


def test_a_canvas_that_nobody_has_memory_for(tmp_path):
    wide, high = '.' * 900, '\n'.join('.' * 900)
    rows = [(wide, wide), (high, high), *[(f'{k}', f'{k}') for k in range(200_000)]]
    path = write(tmp_path / 'own.csv', rows)
    with pytest.raises(BuildError, match=r'record 2 has 900 rows .* record 1 has 900 columns.*GB'):
        custom.make_reading(custom_records.read(path, text.Form()), text.Form())
    rows = [('.' * 2000, '.'), ('\n'.join('.' * 2000), '.')]
    with pytest.raises(BuildError, match=r'4,000,000 cells .* must have at most 1,048,576 cells'):
        custom.make_reading(
            custom_records.read(write(tmp_path / 'two.csv', rows), text.Form()), text.Form()
        )


@pytest.mark.parametrize('transform', ['none', 'dihedral'])
def test_the_own_split_never_leaks(tmp_path, transform):
    rng = np.random.default_rng(3)
    rows = []
    for _ in range(60):  # few questions: each stands there several times, also turned
        grid = rng.integers(0, 2, (2, 2))
        rows.append(tuple('\n'.join(''.join(map(str, r)) for r in g) for g in (grid, 1 - grid)))
    path = write(tmp_path / 'own.csv', rows)
    for seed in range(5):
        out = tmp_path / f'out{seed}'
        made = custom.build(str(out), source=str(path), test_fraction=0.3, seed=seed,
                            transform=transform, aug=transform != 'none', show=False)  # fmt: skip
        assert made['notes']['leaks']['equal_inputs'] == 0
        sides = []
        for split in ('train', 'test'):
            puzzles = records.load(out, split).sets['all']
            if transform == 'none':
                sides.append(set(holdout.as_bytes(puzzles.inputs)))
            else:
                sides.append(set(holdout.without_turns(puzzles.inputs, 2)))
        assert not sides[0] & sides[1]
        assert sum(c['examples'] for c in made['counts'].values()) >= 60


def test_a_split_of_different_records_is_that_of_the_first_version():
    order = np.random.default_rng(7).permutation(50)
    parts = holdout.split(np.arange(50), 0.2, 7, 'a file')
    np.testing.assert_array_equal(parts['test'], np.sort(order[:10]))
    np.testing.assert_array_equal(parts['train'], np.sort(order[10:]))


def test_splits_that_cannot_be(tmp_path):
    with pytest.raises(BuildError, match='they are all equal'):
        holdout.split(np.zeros(9, int), 0.3, 0, 'a file')
    for fraction in (0, 1, -0.5, float('nan'), float('inf')):
        with pytest.raises(BuildError, match='--test-fraction must be between 0 and 1'):
            holdout.split(np.arange(9), fraction, 0, 'a file')
    with pytest.raises(BuildError, match='must leave records on both sides'):
        holdout.split(np.arange(3), 0.01, 0, 'a file')
    # The only groups are larger than their share: the smallest is taken.
    parts = holdout.split(np.array([0] * 6 + [1] * 4), 0.2, 0, 'a file')
    assert parts['test'].tolist() == [6, 7, 8, 9]


@pytest.mark.parametrize(
    ('options', 'match'),
    [
        ({'rows': '/', 'blank': '0/'}, 'must all differ'),
        ({'blank': '00'}, 'must all differ'),
        ({'words': True, 'blank': ' '}, 'a space separates words'),
        ({'name': '../../x'}, '--name must be a plain name'),
        ({'name': 'sudoku'}, '--name must not be .*sudoku'),
    ],
)
def test_wrong_options(tmp_path, options, match):
    source = str(write(tmp_path / 'own.csv', [('a', 'b'), ('c', 'd')]))
    with pytest.raises(BuildError, match=match):
        custom.build(str(tmp_path / 'out'), source=source, **options, show=False)


def test_a_reading_refuses_what_the_set_does_not_have(tmp_path):
    source = str(write(tmp_path / 'own.csv', bits(2, 3, 12)))
    custom.build(str(tmp_path / 'out'), source=source, show=False)
    reading = text.reading_of(tmp_path / 'out')
    assert (reading.kind, reading.height, reading.width) == ('grid', 2, 3)
    for puzzle, match in (
        ('012', "row 1 has \\['2'\\]"),
        ('0000', 'at most 2 rows of 3'),
        ('', 'it is empty'),
    ):
        with pytest.raises(PuzzleError, match=match):
            reading.encode(puzzle)
    assert text.reading_of(tmp_path) is None
    (tmp_path / 'out' / text.READING).write_text('{"height": true}')
    with pytest.raises(DatasetError, match=r'reading\.json must have height, width'):
        text.reading_of(tmp_path / 'out')


def test_the_reading_goes_along_with_exports(tmp_path):
    source = str(write(tmp_path / 'own.csv', UNCHANGED['a maze with spaces']))
    out, npy, back = (tmp_path / name for name in ('out', 'npy', 'back'))
    custom.build(str(out), source=source, show=False)
    folder_format.export_folder(str(out), str(npy), show=False)
    folder_format.import_folder(str(npy), str(back), show=False)
    assert decoded(npy) == decoded(back) == decoded(out)


def test_blanks_after_the_commas(tmp_path):
    path = tmp_path / 'own.csv'
    path.write_text('question, answer\n a,  b\nc, d\n\n,\n')
    found = custom_records.read(path, text.Form())
    assert [(r.question, r.answer) for r in found] == [
        (((' ', 'a'),), ((' ', 'b'),)),
        ((('c',),), (('d',),)),
    ]
    path.write_text('question, answer\na, "b\nc"\n')
    with pytest.raises(BuildError, match='a quoted cell must follow its comma at once'):
        custom_records.read(path, text.Form())
