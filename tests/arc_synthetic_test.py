"""Synthetic ARC pairs as one more source of the builder."""

import json

import pytest

pytest.importorskip('tensorflow_datasets')
pytest.importorskip('array_record')

from data_builders import arc, arc_sources, arc_synthetic
from hrm_jax.data import records
from hrm_jax.errors import BuildError
from tests.arc_tasks_test import pair, save, task


def sources(root, names=('aa', 'new'), count=40):
    """An official folder with 10 training pairs, and synthetic pairs of some tasks."""
    save(root / 'real' / 'training' / 'aa.json', task(1, pairs=4))
    save(root / 'real' / 'training' / 'bb.json', task(2, pairs=2))
    save(root / 'real' / 'evaluation' / 'ee.json', task(3, pairs=2))
    for place, name in enumerate(names):
        pairs = [
            {'input': [[k // 10, k % 10]], 'output': [[k % 10, k // 10, place]]}
            for k in range(count)
        ]
        save(root / 're_arc' / 'tasks' / f'{name}.json', pairs)
    save(root / 're_arc' / 'metadata.json', '{}')
    save(root / 'LICENSE', '\nMIT License\n\nCopyright')
    return {'source': [str(root / 'real')], 'num_aug': 1, 'show': False}


def build(root, out, **options):
    manifest = arc.build(str(root / out), **options)
    return manifest, records.load(str(root / out), 'train').sets['all']


def test_a_share_of_the_training_pairs_is_synthetic(tmp_path):
    options = sources(tmp_path)
    plain, before = build(tmp_path, 'plain', **options)
    manifest, after = build(tmp_path, 'mixed', **options, synthetic=f'{tmp_path / "re_arc"}=0.5')
    assert len(before.inputs) == 10
    assert len(after.inputs) == 20  # half of them are new
    assert len(plain['sources']) == 1
    entry = manifest['sources'][1]
    assert {key: entry[key] for key in ('name', 'licence', 'share', 'puzzles', 'pairs')} == {
        'name': 're_arc', 'licence': 'MIT License', 'share': 0.5, 'puzzles': 2, 'pairs': 10,
    }  # fmt: skip
    assert after.names == ('ee', 'aa', 'bb', 'new')
    counts = dict(zip(after.names, sizes(after), strict=True))
    assert counts == {'aa': 5 + 5, 'bb': 3, 'ee': 2, 'new': 5}
    again = build(tmp_path, 'again', **options, synthetic=f'{tmp_path / "re_arc"}=0.5')[1]
    assert (again.inputs == after.inputs).all()
    other = build(tmp_path, 'other', **options, seed=1, synthetic=f'{tmp_path / "re_arc"}=0.5')[1]
    assert not (other.inputs == after.inputs).all()


def sizes(puzzles):
    """Number of pairs of each task."""
    first = puzzles.group_indices[:-1]
    return (puzzles.puzzle_indices[first + 1] - puzzles.puzzle_indices[first]).tolist()


def test_a_small_source_gives_what_it_has(tmp_path):
    options = sources(tmp_path, names=('new',), count=3)
    manifest, found = build(tmp_path, 'x', **options, synthetic=[f'{tmp_path / "re_arc"}=0.9'])
    assert len(found.inputs) == 13
    assert manifest['sources'][1]['pairs'] == 3


def test_what_would_show_held_out_answers_is_refused(tmp_path):
    options = sources(tmp_path, names=('ee',))
    with pytest.raises(BuildError, match=r'ee.json must not be of a task whose tests are held out'):
        build(tmp_path, 'x', **options, synthetic=f'{tmp_path / "re_arc"}=0.5')
    assert not (tmp_path / 'x').exists()


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('re_arc', 'FOLDER=SHARE'),
        ('re_arc=1', 'between 0 and 1'),
        ('re_arc=half', 'FOLDER=SHARE'),
        ('nowhere=0.5', 'must be a folder'),
        ('empty=0.5', 'it has none'),
        ('broken=0.5', 'a list'),
        ('ragged=0.5', 'x.json, entry 1, train pair 1, input'),
    ],
)
def test_unusable_sources_are_refused(tmp_path, monkeypatch, text, message):
    options = sources(tmp_path)
    save(tmp_path / 'empty' / 'x.txt', '')
    save(tmp_path / 'broken' / 'x.json', json.dumps({'input': [[1]]}))
    save(tmp_path / 'ragged' / 'x.json', [{'input': [[1], [1, 2]], 'output': [[1]]}])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BuildError, match=message):
        build(tmp_path, 'x', **options, synthetic=text)


def test_shares_leave_room_for_the_rest():
    with pytest.raises(BuildError, match=r'below 1 in sum; they are 1\.1'):
        arc_synthetic.read_shares(['a=0.5', 'b=0.6'])


def test_pairs_keep_their_order_and_their_task(tmp_path):
    sources(tmp_path)
    [subset] = arc_sources.read(str(tmp_path / 'real'), ['training'])[0]
    shares = arc_synthetic.read_shares([f'{tmp_path / "re_arc"}=0.5'])
    found, _ = arc_synthetic.add([subset], shares, {'evaluation'}, 0)
    known = next(puzzle for puzzle in found[0] if puzzle.name == 'aa')
    assert [one.input.tolist() for one in known.pairs[:4]] == [
        pair(1 + k)['input'] for k in range(4)
    ]
    drawn = [one.input.tolist()[0] for one in known.pairs[5:]]
    assert drawn == sorted(drawn)
    assert all(not one.is_test for one in known.pairs[5:])
