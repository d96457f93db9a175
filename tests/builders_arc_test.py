"""The ARC builder: rules of the splits, augmentations, malformed and leaking sources."""

import itertools
import json
import pathlib
import tarfile

import numpy as np
import pytest

pytest.importorskip('tensorflow_datasets')
pytest.importorskip('array_record')

from data_builders import arc, arc_augment, check
from data_builders.arc_sources import Pair
from hrm_jax.data import augment, records
from hrm_jax.errors import BuildError
from tests.builder_sources import arc_tree, cells


@pytest.mark.parametrize('draw_order', ['own', 'original'])
def test_arc(tmp_path, draw_order):
    out = tmp_path / 'out'
    made = arc.build(str(out), source=arc_tree(tmp_path / 'raw'), num_aug=20,
                     draw_order=draw_order, show=False)  # fmt: skip
    train, test = (records.load(out, split) for split in ('train', 'test'))
    assert (train.metadata.total_groups, test.metadata.total_groups) == (4, 2)
    for split, dataset in (('train', train), ('test', test)):
        inputs, labels = cells(dataset)
        boxes, bad = check.arc_boxes(inputs)
        answers, bad_too = check.arc_boxes(labels)
        assert not (bad | bad_too).any()
        np.testing.assert_array_equal(boxes[:, :2], answers[:, :2])
        assert boxes[:, :2].any() == (split == 'train')
        assert made['notes']['unaugmented_digest'][split] == check.arc_digest(dataset)
        puzzles = dataset.sets['all']
        starts = puzzles.puzzle_indices
        if split == 'train':  # one example of every augmentation stays at the top left
            still = (boxes[:, :2] == 0).all(axis=1)
            assert all(still[a:b].any() for a, b in itertools.pairwise(starts))
    names = records.identifier_names([train, test])
    assert len(names) == len(set(names)) == train.metadata.num_puzzle_identifiers
    assert names[0] == '<blank>'
    assert {'aa', 'bb', 'cc', 'ee'} <= set(names)
    # Evaluation puzzles share their identifiers and maps between the splits.
    both = {}
    for dataset in (train, test):
        puzzles = dataset.sets['all']
        for k, row in zip(puzzles.puzzle_identifiers, puzzles.maps, strict=True):
            assert both.setdefault(k, row.tobytes()) == row.tobytes()
    assert set(test.sets['all'].puzzle_identifiers) <= set(train.sets['all'].puzzle_identifiers)
    assert sorted(json.loads((out / 'test_puzzles.json').read_text())) == ['cc', 'ee']


def test_arc_equal_puzzles_are_found_without_grids():
    """The ten products agree with the original's hash of the grids they stand for."""
    rng = np.random.default_rng(1)
    square = np.array([[1, 0], [0, 1]], np.uint8)  # looks the same under half of the maps
    pairs = [Pair(square, square + np.uint8(1), False), Pair(square.T, 2 - square, False)]
    dihedral = rng.integers(0, 8, 300)
    colours = np.zeros((300, 10), np.uint8)
    colours[:, 1:] = rng.permuted(np.tile(np.arange(1, 10), (300, 1)), axis=1)
    numbers = arc_augment.Hasher(pairs)(dihedral, colours)
    hashes = [
        arc_augment.puzzle_hash([
            Pair(*(arc_augment.turn(c[g], t) for g in (pair.input, pair.output)), False)
            for pair in pairs
        ])
        for t, c in zip(dihedral, colours, strict=True)
    ]  # fmt: skip
    classes = len(set(hashes))
    assert classes < 300
    assert (
        len(set(numbers.tolist()))
        == classes
        == len(set(zip(numbers.tolist(), hashes, strict=True)))
    )


def test_arc_stops_at_the_ceiling():
    one = np.array([[1]], np.uint8)
    rng = np.random.default_rng(0)
    asked = []

    def draw(count):
        asked.append(count)
        colours = np.zeros((count, 10), np.uint8)
        colours[:, 1:] = rng.permuted(np.tile(np.arange(1, 10), (count, 1)), axis=1)
        return rng.integers(0, 8, count), colours

    maps = arc_augment.draw_maps([Pair(one, one, False)], 100, draw)
    assert len(maps) == 9  # nine colours, every turn looks alike
    assert sum(asked) == 500
    assert (maps[0] == augment.identity_map('arc', 30)).all()


@pytest.mark.parametrize(
    ('changes', 'match'),
    [
        ({'training/aa.json': '{'}, r'aa\.json must be JSON'),
        ({'training/aa.json': {'train': []}}, 'must have the keys train and test'),
        ({'training/aa.json': {'train': [{'input': [[1, 2], [3]], 'output': [[1]]}], 'test': []}},
         r'aa\.json, train pair 1, input: all rows of a grid must have one length'),
        ({'training/aa.json': {'train': [{'input': [[10]], 'output': [[1]]}], 'test': []}},
         r'train pair 1, input: colours must be in 0\.\.9; got 10'),
        ({'training/aa.json': {'train': [], 'test': [{'input': [[1]], 'output': [[1] * 31]}]}},
         r'test pair 1, output must have at most 30 rows and columns; got 1 x 31'),
        ({'training/aa.json': {'train': [{'input': [[1]]}], 'test': []}}, 'an input and an output'),
        ({'training/aa.json': {'train': [{'input': [[1.5]], 'output': [[1]]}], 'test': []}},
         'a grid of whole numbers'),
    ],
)  # fmt: skip
def test_bad_arc_puzzles_are_named(tmp_path, changes, match):
    with pytest.raises(BuildError, match=match):
        arc.build(
            str(tmp_path / 'out'),
            source=arc_tree(tmp_path / 'raw', **changes),
            show=False,
        )


def test_arc_leaks(tmp_path):
    leak = {'train': [{'input': [[1, 2]], 'output': [[3]]}],
            'test': [{'input': [[4, 5], [6, 7]], 'output': [[8]]}]}  # fmt: skip
    turned = {'train': [{'input': [[1, 1]], 'output': [[3]]}],
              'test': [{'input': [[3], [2]], 'output': [[1]]}]}  # fmt: skip
    source = arc_tree(tmp_path / 'raw', **{'training/l.json': leak, 'evaluation/m.json': turned})
    made = arc.build(str(tmp_path / 'a'), source=source, num_aug=0, show=False)
    assert made['notes']['leaks']['equal_after_a_map'] == 1
    source = arc_tree(tmp_path / 'raw', **{'evaluation/l2.json': leak})
    with pytest.raises(BuildError, match=r'1 of 5 test pairs occur in training, e\.g\. l2 = l'):
        arc.build(str(tmp_path / 'b'), source=source, num_aug=0, show=False)
    arc.build(str(tmp_path / 'b'), source=source, num_aug=0, allow_leaks=True, show=False)
    with pytest.raises(BuildError, match='must not be built together'):
        arc.build(str(tmp_path / 'c'), source=['arc1', 'arc2'], show=False)


def test_arc_from_archive_and_kaggle(tmp_path):
    root = pathlib.Path(arc_tree(tmp_path / 'raw'))
    archive = tmp_path / 'raw.tar.gz'
    with tarfile.open(archive, 'w:gz') as tar:
        tar.add(root / 'data', 'data')
    kaggle = tmp_path / 'kaggle'
    kaggle.mkdir()
    for subset in ('training', 'evaluation'):
        puzzles = {f.stem: json.loads(f.read_text()) for f in (root / 'data' / subset).iterdir()}
        solutions = {n: [t['output'] for t in p['test']] for n, p in puzzles.items()}
        for puzzle in puzzles.values():
            puzzle['test'] = [{'input': t['input']} for t in puzzle['test']]
        for kind, content in (('challenges', puzzles), ('solutions', solutions)):
            (kaggle / f'arc-agi_{subset}_{kind}.json').write_text(json.dumps(content))
    digests = [
        arc.build(str(tmp_path / f'out{k}'), source=str(source), num_aug=0, show=False)['notes'][
            'unaugmented_digest'
        ]
        for k, source in enumerate((root, archive, kaggle))
    ]
    assert digests[0] == digests[1] == digests[2]


def test_equal_puzzles_of_one_name_are_one(tmp_path):
    both = [arc_tree(tmp_path / 'one'), arc_tree(tmp_path / 'two')]
    made = arc.build(str(tmp_path / 'out'), source=both, num_aug=0, allow_leaks=True, show=False)
    assert made['counts']['train']['groups'] == 4
    assert made['notes']['num_puzzle_identifiers'] == 5
