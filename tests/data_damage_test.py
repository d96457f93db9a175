"""Data sets that are damaged, hostile or changed: an error with file and key, before any harm."""

import json
import pathlib
import shutil

import numpy as np
import pytest

pytest.importorskip('tensorflow_datasets')
pytest.importorskip('array_record')

from data_builders import check, folder_format, lisp, on_demand, pathfinding, sudoku
from hrm_jax import files
from hrm_jax.data import augment, blocks, names, npy_folder, puzzles, records
from hrm_jax.data.metadata import DatasetMetadata
from hrm_jax.errors import DatasetError, PredictionError, UserError
from hrm_jax.scoring import arc_names, predictions
from tests.npy_sets import FACTS, header, npy


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp('built') / 'set'
    pathfinding.build(str(out), board_size=4, train_count=20, val_count=5, show=False)
    return out


def copy(built, tmp_path):
    return pathlib.Path(shutil.copytree(built, tmp_path / 'set'))


BAD_NAMES = [
    '../../x',
    '/etc/x',
    'a/b',
    'a\\b',
    '..',
    '.hidden',
    '',
    'a\nb',
    '-x',
    'x' * 101,
    'a\0b',
]


@pytest.mark.parametrize('name', BAD_NAMES)
def test_names_of_sets_are_no_paths(tmp_path, name):
    npy(tmp_path / 'set', {'sets': [name]})
    with pytest.raises(DatasetError, match=r'dataset\.json, key sets: the name of a set must be a'):
        records.load(tmp_path / 'set', 'train')


@pytest.mark.parametrize('name', ['../x', '..', 'a/../../b'])
def test_a_split_is_no_path(tmp_path, name):
    with pytest.raises(DatasetError, match='the split of a data set must be a plain name'):
        records.load(npy(tmp_path / 'set'), name)


def test_names_that_are_fine(tmp_path):
    for name in ('all', 'easy 1', 'Größe-9', 'a.b', 'set_2'):
        assert names.check_file_name(name, 'the set') == name


@pytest.mark.parametrize(
    ('key', 'values'),
    [
        ('vocab_size', [None, '6', 6.0, True, 0, -1, 1 << 40, [6], {}, float('nan')]),
        ('seq_len', [None, '4', 0, 1 << 40]),
        ('num_puzzle_identifiers', [None, 1.5, 0, 1 << 60]),
        ('total_groups', [None, '2', 0]),
        ('mean_puzzle_examples', [None, '2', 0, -1, float('inf'), float('nan'), True, []]),
        ('pad_id', [None, -1, '0', 6]),
        ('ignore_label_id', ['0', 0.5, [], True, 1 << 40]),
        ('blank_identifier_id', [None, -1, 3]),
        ('sets', [None, 'all', [], [1], {'all': 1}, ['all', 'all'], [None], [['all']]]),
        ('task', [None, 7, ['sudoku'], 'a\nb']),
        ('transform', [None, 'rotate', 7, ['none']]),
        ('cell_bytes', [None, 3, '1', True]),
        ('held_out', ['yes', 1, []]),
    ],
)
def test_every_key_is_checked_and_named(key, values):
    for value in values:
        with pytest.raises(DatasetError, match=rf'F/dataset\.json.*{key}'):
            DatasetMetadata.from_json(json.dumps(FACTS | {key: value}), 'F/dataset.json')


@pytest.mark.parametrize(
    ('text', 'match'),
    [
        ('[' * 100_000, 'must be JSON of few levels'),
        ('{"a":' * 100_000, 'must be JSON of few levels'),
        ('null', 'must be JSON with an object; got None'),
        ('[1]', 'must be JSON with an object; got a list of 1 values'),
        ('{}', 'must have the key vocab_size'),
        ('', 'must be JSON'),
        ('{"vocab_size": ' + '9' * 5000 + '}', 'must be JSON'),
        ('{"seq_len": 4, "seq_len": 5}', "must have every key once; 'seq_len' occurs again"),
        (b'\xff\xfe\x00'.decode('latin-1'), 'must be JSON'),
    ],
)
def test_text_that_is_no_metadata(tmp_path, text, match):
    root = npy(tmp_path / 'set')
    (root / 'train' / 'dataset.json').write_text(text)
    with pytest.raises(DatasetError, match=rf'train/dataset\.json {match}'):
        records.load(root, 'train')


def test_metadata_of_others_and_of_the_first_version_load(tmp_path):
    more = {'total_puzzles': 3, 'made_by': None, 'digest': ''}
    assert records.load(npy(tmp_path / 'set', more), 'train').sets['all'].num_examples == 6
    parsed = DatasetMetadata.from_json(json.dumps(FACTS | more | {'ignore_label_id': None}))
    assert parsed.ignore_label_id is None
    assert DatasetMetadata.from_json(parsed.to_json()) == parsed


def test_a_json_file_that_claims_gigabytes(tmp_path):
    root = npy(tmp_path / 'set')
    with (root / 'train' / 'dataset.json').open('wb') as file:
        file.truncate(3 << 30)
    with pytest.raises(
        DatasetError, match=r'must have at most 268,435,456 bytes; it has 3,221,225'
    ):
        records.load(root, 'train')


@pytest.mark.parametrize(
    ('content', 'match'),
    [
        ('{"a": 1}', 'must be JSON with a list; got an object'),
        ('["<blank>", 7]', 'identifier 1 must be a text; got 7'),
        ('["<blank>", null]', 'identifier 1 must be a text; got None'),
        ('["<blank>", "a", "b", "a"]', "the name of identifier 3, 'a', must be its own"),
        ('[' * 100_000, 'must be JSON of few levels'),
    ],
)
def test_identifiers(tmp_path, content, match):
    root = npy(tmp_path / 'set')
    (root / 'identifiers.json').write_text(content)
    data = records.load(root, 'train')
    for read in (lambda: records.identifier_names([data]), lambda: arc_names.find(data)):
        with pytest.raises(DatasetError, match=rf'identifiers\.json.*{match}'):
            read()


@pytest.mark.parametrize('name', ['', '_t1_0123456789', 'a_t8_0123456789', 'a_t1_0000000000'])
def test_identifiers_of_no_puzzle(name):
    with pytest.raises(PredictionError, match='the name of identifier 2 must be that of a puzzle'):
        arc_names.PuzzleMaps.from_identifiers(['<blank>', 'a', name])


@pytest.mark.parametrize(
    ('content', 'match'),
    [
        ('[1]', 'must be JSON with an object'),
        ('{"a": "1"}', "the id of 'a' must be a whole number from 0; got '1'"),
        ('{"a": -1}', 'must be a whole number from 0; got -1'),
        ('{"a": null}', 'must be a whole number from 0; got None'),
        ('{"a": 1.5}', 'must be a whole number'),
        ('{"a": 1, "b": 1}', "the id of 'b' must be its own; 'a' has 1 too"),
    ],
)
def test_vocabularies(tmp_path, content, match):
    (tmp_path / 'vocab.json').write_text(content)
    with pytest.raises(DatasetError, match=match):
        names.vocabulary_of(tmp_path)
    assert names.vocabulary_of(tmp_path / 'none') == {}


def test_a_lisp_set_without_its_vocabulary_is_not_exported(tmp_path):
    lisp.build(str(tmp_path / 'set'), num_samples=20, show=False)
    for damage in ('{"(": "1"}', None):
        vocabulary = tmp_path / 'set' / 'vocab.json'
        if damage is None:
            vocabulary.unlink()
        else:
            vocabulary.write_text(damage)
            manifest = tmp_path / 'set' / records.MANIFEST
            facts = json.loads(manifest.read_text())
            facts['files'].pop('vocab.json')
            manifest.write_text(json.dumps(facts))
        with pytest.raises(UserError, match=r'vocab\.json'):
            folder_format.export_folder(str(tmp_path / 'set'), str(tmp_path / 'npy'), show=False)


@pytest.mark.parametrize(
    ('change', 'match'),
    [
        ({'files': None}, 'files must be an object; got None'),
        ({'files': ['x']}, 'files must be an object; got a list'),
        ({'files': {}}, 'files must name every file of the set'),
        ({'files': {'../../etc/passwd': 1}}, 'the name of a file must be inside the folder'),
        ({'files': {'/etc/passwd': 1}}, 'the name of a file must be inside the folder'),
        ({'files': {'train/dataset.json': None}}, 'must have None bytes'),
        ({'options': []}, 'options must be an object'),
        ({'sources': {}}, 'sources must be a list'),
        ({'format_version': None}, 'has format version None'),
    ],
)
def test_manifests(built, tmp_path, change, match):
    out = copy(built, tmp_path)
    manifest = json.loads((out / records.MANIFEST).read_text())
    (out / records.MANIFEST).write_text(json.dumps(manifest | change))
    with pytest.raises(DatasetError, match=rf'{match}.*Build it again: python -m data_builders'):
        records.load(out, 'train')


def test_a_manifest_with_less_loads(built, tmp_path):
    out = copy(built, tmp_path)
    manifest = json.loads((out / records.MANIFEST).read_text())
    for key in ('notes', 'options', 'sources', 'versions', 'seed'):
        del manifest[key]
    (out / records.MANIFEST).write_text(json.dumps(manifest))
    assert records.load(out, 'train').sets['all'].num_examples == 20


def test_a_run_asks_whose_set_it_is(built, tmp_path):
    """The folder of a run has a set that no custom file led to."""
    out = copy(built, tmp_path)
    source = tmp_path / 'own.csv'
    source.write_text('question,answer\nab,ba\ncd,dc\n')
    with pytest.raises(DatasetError, match='was started with other data'):
        on_demand.ensure(str(source), '', out, in_use=True)


@pytest.mark.parametrize(
    ('content', 'match'),
    [
        (header('(400000000000, 4)'), 'must be a .npy file that is not truncated'),
        (header('(4611686018427387904, 8)'), 'must be a .npy file'),
        (header('(99999999999999999999999, 4)'), 'must be a .npy file'),
        (header('(4611686018427387904, 0)'), 'must be an array of 2 dimensions with values'),
        (header('(6, 0)'), 'must be an array of 2 dimensions with values'),
        (header('(-6, 4)'), 'must be a'),
        (header('(24,)') + bytes(24), 'must be an array of 2 dimensions'),
        (header('()') + bytes(1), 'must be an array of 2 dimensions'),
        (header('(6, 4)', '<f4') + bytes(96), 'must be an array of whole numbers; got float32'),
        (header('(6, 4)', '|O') + bytes(200), 'must be a .npy file'),
        (
            header('(6, 3)') + bytes(18),
            r'must have rows of seq_len 4 cells; got the shape \(6, 3\)',
        ),
        (b'', 'must be a .npy file'),
        (b'PK\x03\x04' + bytes(40), 'must be a .npy file'),
        (b'\x80\x04K\x01.', 'must be a .npy file'),
        (header('(' * 3000), 'must be a .npy file'),
    ],
)
@pytest.mark.filterwarnings('ignore::RuntimeWarning')
def test_shapes_that_no_file_has(tmp_path, content, match):
    root = npy(tmp_path / 'set')
    (root / 'train' / 'all__inputs.npy').write_bytes(content)
    with pytest.raises(DatasetError, match=rf'all__inputs\.npy {match}'):
        records.load(root, 'train')


@pytest.mark.parametrize(
    ('content', 'match'),
    [
        (header('(400000000000,)', '<f4'), 'must be a .npy file that is not truncated'),
        (header('(99999999999999999999999,)', '<f4'), 'must be a .npy file'),
        (header('(6,)', '<f4') + bytes(8), 'must be a .npy file'),
        (header('(-6,)', '<f4') + bytes(24), 'must have a number for each|must be a .npy file'),
        (header('(6,)', '|O') + bytes(200), 'must be a .npy file'),
        (header('(' * 3000), 'must be a .npy file'),
        (b'PK\x03\x04' + bytes(40), 'must be a .npy file'),
        (b'', 'must be a .npy file'),
        (header('(6,)', '<i4') + bytes(24), 'must have a number for each of 6 examples; got int32'),
    ],
)
@pytest.mark.filterwarnings('ignore::RuntimeWarning')
def test_ratings_that_no_file_has(tmp_path, content, match):
    root = npy(tmp_path / 'set')
    (root / 'train' / records.ratings_file('all')).write_bytes(content)
    with pytest.raises(DatasetError, match=rf'ratings-all\.npy ({match})'):
        records.load(root, 'train')


@pytest.mark.parametrize(
    ('arrays', 'match'),
    [
        ({'puzzle_identifiers': np.array([0, 1, 1 << 32])}, r'puzzle_identifiers\.npy must be in'),
        ({'puzzle_identifiers': np.array([0, 1, -(1 << 32)])}, r'puzzle_identifiers\.npy must be'),
        ({'puzzle_indices': np.array([0, 1, 3, 1 << 40])}, 'must end at the number of examples'),
        ({'group_indices': np.array([0, 2, 1 << 63], np.uint64)}, 'group_indices must rise'),
        ({'puzzle_indices': np.array([], np.int64)}, 'must be an array of 1 dimensions with val'),
        ({'labels': np.full((6, 4), 300)}, r'all__labels\.npy: tokens must be in 0\.\.5'),
    ],
)
def test_values_that_would_wrap(tmp_path, arrays, match):
    with pytest.raises(DatasetError, match=match):
        records.load(npy(tmp_path / 'set', **arrays), 'train')


def test_hidden_arrays_are_no_set(tmp_path):
    root = tmp_path / 'set'
    (root / '.ipynb_checkpoints').mkdir(parents=True)
    (root / '.ipynb_checkpoints' / 'all__inputs.npy').write_bytes(b'x')
    (root / 'train').mkdir()
    (root / 'train' / '._all__inputs.npy').write_bytes(b'x')
    assert not npy_folder.looks_like_one(root)
    npy(root)
    (root / '.ipynb_checkpoints' / 'dataset.json').write_text('{')
    assert records.splits_of(root) == ['test', 'train']
    manifest = folder_format.import_folder(str(root), str(tmp_path / 'out'), task='x', show=False)
    assert [pathlib.Path(one['path']).name for one in manifest['sources']] == [
        'all__inputs.npy'
    ] * 2


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    npy(tmp_path / 'set', {'task': 'x'})
    (tmp_path / 'set' / 'vocab.json').write_text('{"a": 1}')
    assert names.vocabulary_of('~/set') == {'a': 1}
    assert records.load('~/set', 'train').path == str(tmp_path / 'set')
    folder_format.import_folder('~/set', '~/back', show=False)
    folder_format.export_folder('~/back', '~/npy', show=False)
    assert json.loads((tmp_path / 'npy' / 'vocab.json').read_text()) == {'a': 1}
    assert check.report('~/npy', 10)[0][1].startswith('train: task x, vocabulary 6, 4 cells')
    (tmp_path / 'own.csv').write_text('question,answer\nab,ba\ncd,dc\n')
    on_demand.ensure('~/own.csv', '--test-fraction=0.5', tmp_path / 'run', in_use=False)
    with pytest.raises(PredictionError, match=f'{tmp_path}/none must be'):
        predictions.find(['~/none'])


def test_shown_is_short_whatever_comes():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, 'x' * 10**6, list(range(10**6)), {'a': 1}, 10**300):
        assert len(files.shown(value)) < 100


def validated(block, metadata):
    puzzles.validate(puzzles.PuzzleDataset(metadata, blocks.decode([block], metadata)))


def test_the_maps_of_a_set_have_their_length(tmp_path):
    out = tmp_path / 'set'
    sudoku.build(str(out), source='generated', size=4, train_count=6, test_count=2, num_aug=1,
                 show=False)  # fmt: skip
    data = records.load(out, 'train')
    (block,) = blocks.encode('all', data.sets['all'], data.metadata)
    width = augment.map_width('sudoku', 4)
    for field, cut in (('maps', width), ('inputs', 16), ('puzzle_identifiers', 4)):
        broken = block | {field: block[field][:-cut]}
        with pytest.raises((DatasetError, ValueError)):
            validated(broken, data.metadata)
    named = block | {'set_name': np.frombuffer(b'../x', np.uint8)}
    with pytest.raises(DatasetError, match='that the metadata do not name'):
        blocks.decode([named], data.metadata)
