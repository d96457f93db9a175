"""A user's own task from CSV and JSON lines."""

import gzip
import json

import numpy as np
import pytest

pytest.importorskip('tensorflow_datasets')
pytest.importorskip('array_record')

from data_builders import custom, custom_records, sources
from hrm_jax.data import pipeline, records, text
from hrm_jax.errors import BuildError
from tests.builder_sources import cells, write_csv


def _words(out):
    words = {k: w for w, k in json.loads((out / 'vocab.json').read_text()).items()}
    return np.vectorize(words.get)


def test_grids_from_csv(tmp_path):
    for split, rows in (
        ('train', [('ab/cd', 'ba/dc'), ('a', 'b')]),
        ('test', [('dd/aa', 'aa/dd')]),
    ):
        write_csv(tmp_path / f'{split}.csv', rows, header=('question', 'answer'))
    out = tmp_path / 'out'
    custom.build(str(out), source=str(tmp_path), rows='/', name='mirror', show=False)
    train = records.load(out, 'train')
    assert train.metadata.task == 'mirror'
    assert (train.metadata.vocab_size, train.metadata.seq_len) == (5, 4)
    inputs, labels = cells(train)
    assert _words(out)(inputs).tolist() == [['a', 'b', 'c', 'd'], ['a', '<pad>', '<pad>', '<pad>']]
    assert _words(out)(labels)[0].tolist() == ['b', 'a', 'd', 'c']
    batch = pipeline.gather(train.sets['all'], train.metadata, np.arange(2))
    assert (batch.labels[1, 1:] == -100).all()


def test_json_lines_with_puzzles_and_turns(tmp_path):
    file = tmp_path / 'all.jsonl.gz'
    rows = [
        {'question': [[k, 2], [3, f'w{k % 2}']], 'answer': [[3, k], [2, 2]], 'puzzle': f'p{k % 2}'}
        for k in range(8)
    ]
    with gzip.open(file, 'wt') as stream:
        stream.write('\n'.join(map(json.dumps, rows)))
    out = tmp_path / 'out'
    custom.build(str(out), source=str(file), test_fraction=0.25, transform='dihedral', aug=True,
                 show=False)  # fmt: skip
    train, test = (records.load(out, split) for split in ('train', 'test'))
    assert train.metadata.num_puzzle_identifiers == 3
    assert train.sets['all'].num_groups == 2
    assert train.sets['all'].num_examples == 6 * 8
    assert test.sets['all'].num_examples == 2
    assert json.loads((out / 'identifiers.json').read_text()) == ['<blank>', 'p0', 'p1']
    inputs, _ = (_words(out)(side) for side in cells(train))
    puzzles = train.sets['all']
    per = puzzles.puzzle_indices[1]  # examples of the first puzzle
    np.testing.assert_array_equal(inputs[per * 6].reshape(2, 2), inputs[0].reshape(2, 2).T)
    # Every record of a puzzle holds the puzzle's own word, turned or not.
    for u in range(16):
        rows = inputs[puzzles.puzzle_indices[u] : puzzles.puzzle_indices[u + 1]]
        assert (rows == f'w{u // 8}').any(axis=1).all()
    batches = pipeline.train_iterator(train, 16, 0, augmentation='on_the_fly', prefetch=False)
    batch = next(batches)
    ids = {k: int(row.max()) for k, row in zip(batch.puzzle_identifiers, batch.inputs, strict=True)}
    assert set(ids) <= {1, 2}


@pytest.mark.parametrize('kind', ['custom', 'sudoku'])
def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path, kind):
    file = tmp_path / 'train.csv'
    file.write_bytes(b'\xef\xbb\xbfquestion,answer\nab,ba\n')
    if kind == 'custom':
        assert custom_records.read(file, text.Form())[0].question == (('a', 'b'),)
    else:
        assert sources.read_csv(file).questions.tobytes() == b'ab'


def test_words(tmp_path):
    rows = [('10 2/3 4', '2 10/4 3'), ('1 1/1 1', '1 1/1 1')]
    for split, row in zip(('train', 'test'), rows, strict=True):
        write_csv(tmp_path / f'{split}.csv', [row], header=('question', 'answer'))
    custom.build(str(tmp_path / 'out'), source=str(tmp_path), words=True, rows='/', show=False)
    inputs, _ = cells(records.load(tmp_path / 'out', 'train'))
    assert _words(tmp_path / 'out')(inputs).tolist() == [['10', '2', '3', '4']]


@pytest.mark.parametrize(
    ('text', 'match'),
    [
        ('question;answer\n', 'must have a column question .*got question;answer'),
        ('question,answer\nab/c,ab\n', 'record 1, question: all rows of a grid must have one'),
        ('question,answer\nab,ab\ncd\n', 'record 2: 2 columns are needed'),
        ('question,answer\nab,\n', 'record 1 must have an answer'),
        ('question,answer\n', 'has no records'),
        ('question,answer\naa,bb\n', 'occur in training'),
        ('question,answer\nab,ba\n', '--transform dihedral needs square grids'),
    ],
)
def test_bad_csv(tmp_path, text, match):
    write_csv(tmp_path / 'test.csv', [('aa', 'bb')], header=('question', 'answer'))
    (tmp_path / 'train.csv').write_text(text)
    transform = 'dihedral' if 'dihedral' in match else 'none'
    with pytest.raises(BuildError, match=match):
        custom.build(
            str(tmp_path / 'out'), source=str(tmp_path), rows='/', transform=transform, show=False
        )
    assert not (tmp_path / 'out').exists()


def test_bad_files(tmp_path):
    build = custom.build
    with pytest.raises(BuildError, match='does not exist'):
        build(str(tmp_path / 'out'), source=str(tmp_path / 'none.csv'), show=False)
    with pytest.raises(BuildError, match=r'must have one file train .* it has none'):
        build(str(tmp_path / 'out'), source=str(tmp_path), show=False)
    (tmp_path / 'a.jsonl').write_text('{"question": "ab", "answer": "ba"}\n{"question"\n')
    with pytest.raises(BuildError, match='record 2 must be JSON'):
        build(str(tmp_path / 'out'), source=str(tmp_path / 'a.jsonl'), show=False)
    (tmp_path / 'a.txt').touch()
    with pytest.raises(BuildError, match=r'must have one of the endings \.csv'):
        build(str(tmp_path / 'out'), source=str(tmp_path / 'a.txt'), show=False)
