"""ARC sources as people have them: Kaggle's folders, missing answers, copies, names, subsets."""

import io
import json
import tarfile

import numpy as np
import pytest

pytest.importorskip('tensorflow_datasets')
pytest.importorskip('array_record')

from data_builders import arc, arc_puzzles, arc_sources, check, commandline, folder_format
from hrm_jax.data import pipeline, records
from hrm_jax.errors import BuildError, DatasetError
from hrm_jax.scoring import arc as scoring
from hrm_jax.scoring import arc_names
from tests.builder_sources import arc_tree, cells


def puzzle(seed, tests=1):
    """Two demonstrations and some tests, all different."""
    rng = np.random.default_rng(seed)

    def pair():
        grid = rng.integers(0, 10, (3, 4))
        return {'input': grid.tolist(), 'output': grid[::-1].tolist()}

    return {'train': [pair(), pair()], 'test': [pair() for _ in range(tests)]}


def kaggle(root, answered, unanswered=None, style='_{}.json'):
    """Writes Kaggle's files: subset -> {name: puzzle}; the second without solutions."""
    root.mkdir(parents=True, exist_ok=True)
    for subset, puzzles in {**answered, **(unanswered or {})}.items():
        questions = {
            name: {**p, 'test': [{'input': t['input']} for t in p['test']]}
            for name, p in puzzles.items()
        }
        path = root / f'arc-agi_{subset}{style.format("challenges")}'
        path.write_text(json.dumps(questions))
        if subset in answered:
            solutions = {name: [t['output'] for t in p['test']] for name, p in puzzles.items()}
            path = root / f'arc-agi_{subset}{style.format("solutions")}'
            path.write_text(json.dumps(solutions))
    return str(root)


TRAINING = {f'a{k}': puzzle(k) for k in range(3)}
EVALUATION = {f'b{k}': puzzle(10 + k, tests=2) for k in range(2)}
BOTH = {'training': TRAINING, 'evaluation': EVALUATION}


def build(tmp_path, source, name='out', **options):
    out = tmp_path / name
    made = arc.build(str(out), source=source, **{'num_aug': 2, 'show': False, **options})
    return out, made


def answers_of(dataset):
    """The answer of every example as rows of colours; [] where no label counts."""
    _, labels = cells(dataset)
    grids = []
    for row in labels:
        height, width = scoring.crop_extents(row[None])[0]
        corner = row.reshape(30, 30)[:height, :width] - np.uint8(2)
        grids.append(corner.tolist() if height else [])
    return grids


def unlabelled(dataset):
    puzzles = dataset.sets['all']
    batch = pipeline.gather(puzzles, dataset.metadata, np.arange(puzzles.num_examples))
    return (batch.labels == -100).all(axis=1)


@pytest.mark.parametrize('style', ['_{}.json', '-{}.json'])
def test_a_copy_of_challenges_is_predicted_only(tmp_path, style):
    source = kaggle(tmp_path / 'k', BOTH, {'test': EVALUATION}, style)
    out, made = build(tmp_path, source)
    train, test, predict = (records.load(out, split) for split in ('train', 'test', 'predict'))
    names = train.sets['all'].names
    assert sorted(names) == ['a0', 'a1', 'a2', 'b0', 'b1']
    assert made['counts']['train']['examples'] == 3 * (3 * 3 + 2 * 2)  # each demonstration once
    assert made['counts']['test']['examples'] == made['counts']['predict']['examples'] == 3 * 4
    assert [[0]] not in answers_of(train)
    assert not unlabelled(train).any()
    assert not unlabelled(test).any()
    assert unlabelled(predict).all()
    assert (train.has_answers, test.has_answers, predict.has_answers) == (True, True, False)
    # The questions are those of the evaluation, under the same identifiers.
    np.testing.assert_array_equal(cells(predict)[0], cells(test)[0])
    np.testing.assert_array_equal(
        predict.sets['all'].puzzle_identifiers, test.sets['all'].puzzle_identifiers
    )


def unsolved(change):
    """A tree whose evaluation solutions are changed."""

    def write(root):
        source = kaggle(root, BOTH)
        path = root / 'arc-agi_evaluation_solutions.json'
        solutions = json.loads(path.read_text())
        change(solutions)
        path.write_text(json.dumps(solutions))
        return source

    return write


@pytest.mark.parametrize(
    'change',
    [
        lambda s: s['b0'].pop(),  # fewer solutions than tests
        lambda s: s.update(b0=[s['b0'][0], None]),
        lambda s: s.update(b0=[s['b0'][0], []]),
    ],
)
def test_an_answered_test_beside_an_unanswered_one(tmp_path, change):
    out, _ = build(tmp_path, unsolved(change)(tmp_path / 'k'), num_aug=0)
    test, predict = (records.load(out, split) for split in ('test', 'predict'))
    b0, b1 = EVALUATION['b0']['test'], EVALUATION['b1']['test']
    assert answers_of(test) == [b0[0]['output'], b1[0]['output'], b1[1]['output']]
    # A submission has all tests of a puzzle, so all are questions.
    assert predict.sets['all'].names == ('b0',)
    assert unlabelled(predict).tolist() == [True, True]
    tests = json.loads((out / 'test_puzzles.json').read_text())
    assert [len(tests[name]['test']) for name in ('b0', 'b1')] == [1, 2]


def test_a_puzzle_without_any_solution(tmp_path):
    out, _ = build(tmp_path, unsolved(lambda s: s.pop('b0'))(tmp_path / 'k'), num_aug=0)
    assert records.load(out, 'test').sets['all'].names == ('b1',)
    assert records.load(out, 'predict').sets['all'].names == ('b0',)
    assert 'b0' in records.load(out, 'train').sets['all'].names  # its demonstrations


def test_official_files_without_an_output(tmp_path):
    unknown = {'train': puzzle(3)['train'], 'test': [{'input': [[1, 2]]}]}
    source = arc_tree(tmp_path / 'raw', **{'test/q.json': unknown})
    out, made = build(tmp_path, source)
    assert made['notes']['without_answers'] == 1
    assert records.load(out, 'predict').sets['all'].names == ('q',)
    broken = {'train': [{'input': [[1]]}], 'test': [{'input': [[1, 2]]}]}
    with pytest.raises(BuildError, match='train pair 1 must have an input and an output'):
        arc_puzzles.parse(broken, 'q', 'test', 'q.json')


def test_no_solutions_at_all(tmp_path):
    source = kaggle(tmp_path / 'k', {'training': TRAINING}, {'evaluation': EVALUATION})
    with pytest.raises(BuildError, match=r'no test pair with an answer .* put their solutions'):
        build(tmp_path, source)


@pytest.mark.parametrize(
    ('solutions', 'match'),
    [
        ({'b0': [[[1]]] * 3}, r'b0 must be a list of at most 2 grids; got a list of 3'),
        ({'b0': {'attempt_1': [[1]]}}, r'must be a list of at most 2 grids; got an object'),
        ({'b0': None}, 'must be a list of at most 2 grids; got None'),
        ({'other': [[[1]]]}, 'no puzzle is in both'),
        ([[[1]]], r'solutions\.json must be JSON with an object; got a list'),
    ],
)
def test_solutions_that_do_not_fit(tmp_path, solutions, match):
    source = kaggle(tmp_path / 'k', BOTH)
    (tmp_path / 'k' / 'arc-agi_evaluation_solutions.json').write_text(json.dumps(solutions))
    with pytest.raises(BuildError, match=match):
        build(tmp_path, source)


def test_only_the_named_subsets_are_read(tmp_path, capsys):
    source = kaggle(tmp_path / 'k', BOTH, {'test': {'c0': puzzle(50)}})
    (tmp_path / 'k' / 'arc-agi_extra_challenges.json').write_text('not JSON, and not asked for')
    _, made = build(tmp_path, source, subsets=['training', 'evaluation'])
    assert 'predict' not in made['counts']
    assert made['options']['subsets'] == ['evaluation', 'training']
    flags = ['arc', '--output-dir', str(tmp_path / 'x'), '--source', source]
    assert commandline.main([*flags, '--subsets', 'training', 'tests']) == 1
    assert 'got tests' in capsys.readouterr().err
    tree = arc_tree(tmp_path / 'raw', **{'other/z.json': puzzle(60)})
    _, made = build(tmp_path, tree, 'out2', subsets=['evaluation', 'training'])
    assert made['counts']['train']['groups'] == 4


def test_the_build_and_the_check_count_questions(tmp_path, capsys):
    source = kaggle(tmp_path / 'k', BOTH, {'test': {**EVALUATION, 'c0': puzzle(50)}})
    out, _ = build(tmp_path, source, show=True)
    text = capsys.readouterr().err
    assert 'subset test: 3 puzzles, 6 demonstrations, 5 tests, 5 of them without an answer' in text
    assert '2 puzzles of test are those of evaluation' in text
    assert 'split predict: 5 questions of 3 puzzles, neither trained on nor scored' in text
    lines, faults = check.report(str(out), 1000)
    assert not faults
    assert 'questions to predict' in '\n'.join(lines)


def test_a_copy_of_training_challenges_is_reported(tmp_path, capsys):
    build(tmp_path, kaggle(tmp_path / 'k', BOTH, {'test': TRAINING}), show=True)
    assert 'the answers of 3 are training pairs' in capsys.readouterr().err


def test_export_and_import_keep_the_questions(tmp_path):
    out, made = build(tmp_path, kaggle(tmp_path / 'k', BOTH, {'test': {'c0': puzzle(50)}}))
    folder_format.export_folder(str(out), str(tmp_path / 'npy'), show=False)
    back = folder_format.import_folder(str(tmp_path / 'npy'), str(tmp_path / 'back'), show=False)
    assert back['counts']['predict']['examples'] == made['counts']['predict']['examples'] == 3
    for name in ('npy', 'back'):
        assert not records.load(tmp_path / name, 'predict').has_answers
        assert check.report(str(tmp_path / name), 1000)[1] == []


def test_questions_are_submitted_and_not_scored(tmp_path):
    out, _ = build(tmp_path, kaggle(tmp_path / 'k', BOTH, {'test': {'c0': puzzle(50, tests=2)}}))
    predict = records.load(out, 'predict')
    puzzles = predict.sets['all']
    batch = pipeline.gather(puzzles, predict.metadata, np.arange(puzzles.num_examples))
    scorer = scoring.ArcScorer(arc_names.find(predict))
    scorer.add(batch.puzzle_identifiers, batch.inputs, batch.labels, batch.inputs,
               np.zeros(len(batch.inputs)))  # fmt: skip
    result = scorer.result()
    assert result.puzzles == {}
    assert result.metrics() == {'arc/puzzles': 0, 'arc/missing': 0}
    asked = [test['input'] for test in puzzle(50, tests=2)['test']]
    assert [attempts['attempt_1'] for attempts in result.submission['c0']] == asked


@pytest.mark.parametrize(
    'name', ['', ' a', 'a\nb', 'a|||t0', 'a_t3_0123456789', '<blank>', None, 7]
)
def test_names_that_shift_or_hide_others(tmp_path, name):
    named = {'training/aa.json': {**puzzle(1), 'name': name}}
    with pytest.raises(BuildError, match=r'aa\.json: the name of a puzzle must be'):
        build(tmp_path, arc_tree(tmp_path / 'raw', **named))


def test_names_of_kaggles_keys(tmp_path):
    with pytest.raises(BuildError, match='the name of a puzzle must be'):
        build(tmp_path, kaggle(tmp_path / 'k', {**BOTH, 'training': {**TRAINING, '': puzzle(9)}}))
    text = json.dumps({'a0': puzzle(1)})[:-1] + ', ' + json.dumps({'a0': puzzle(2)})[1:]
    source = kaggle(tmp_path / 'k2', BOTH)
    (tmp_path / 'k2' / 'arc-agi_training_challenges.json').write_text(text)
    with pytest.raises(BuildError, match=r"must have every key once; 'a0' occurs again"):
        build(tmp_path, source)


def test_two_puzzles_of_one_name(tmp_path):
    with pytest.raises(BuildError, match=r"must not both be named 'aa'.*Rename one"):
        build(tmp_path, arc_tree(tmp_path / 'raw', **{'evaluation/aa.json': puzzle(5)}))


def loaded_with_names(out, monkeypatch, names):
    """Loads a set as if its records had other names."""
    from hrm_jax.data import blocks

    decode = blocks._decode_block

    def renamed(block, metadata, where):
        name, values = decode(block, metadata, where)
        values['names'] = [names.get(one, one) for one in values['names'] if names.get(one, one)]
        return name, values

    monkeypatch.setattr(blocks, '_decode_block', renamed)
    return records.load(out, 'test')


@pytest.mark.parametrize(
    ('names', 'match'),
    [
        ({'b0': ''}, r'must have one name for each of its 2 groups; it has 1'),
        ({'b0': 'b1'}, r"the name of group 2, 'b1', must be its own"),
    ],
)
def test_one_name_for_each_group_of_a_loaded_set(tmp_path, monkeypatch, names, match):
    out, _ = build(tmp_path, kaggle(tmp_path / 'k', BOTH))
    with pytest.raises(DatasetError, match=match):
        loaded_with_names(out, monkeypatch, names)


def test_a_record_of_one_group_with_two_names(tmp_path):
    from hrm_jax.data import blocks

    out, _ = build(tmp_path, kaggle(tmp_path / 'k', BOTH))
    data = records.load(out, 'test')
    (first, *_) = blocks.encode('all', data.sets['all'], data.metadata, 1)
    first['names'] = np.frombuffer(b'b0\nb1', np.uint8)
    with pytest.raises(DatasetError, match='record 1 must have a name for each of its 1 groups'):
        blocks.decode([first], data.metadata)


def hide(root):
    """Leaves beside the files of a tree what macOS and notebooks leave."""
    for folder in ('training', 'evaluation'):
        inner = root / 'data' / folder
        (inner / '._aa.json').write_bytes(b'\x00\x05\x16\x07')
        (inner / '.DS_Store').write_bytes(b'\x00')
        (inner / '.ipynb_checkpoints').mkdir()
        (inner / '.ipynb_checkpoints' / 'aa-checkpoint.json').write_text(json.dumps(puzzle(77)))
    old = root / 'data' / '.ipynb_checkpoints'
    old.mkdir()
    (old / 'cc-checkpoint.json').write_text(json.dumps(puzzle(78)))


def test_hidden_files_do_not_count(tmp_path):
    plain, noisy = arc_tree(tmp_path / 'a'), arc_tree(tmp_path / 'b')
    hide(tmp_path / 'b')
    archive = tmp_path / 'b.tar.gz'
    with tarfile.open(archive, 'w:gz') as tar:
        tar.add(noisy, '.')
        info = tarfile.TarInfo('__MACOSX/data/training/zz.json')
        text = json.dumps(puzzle(79)).encode()
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
    read = [arc_sources.read(str(source)) for source in (plain, noisy, archive)]
    assert len({origin['content_sha256'] for _, origin in read}) == 1
    assert read[1][1]['subsets'] == ['evaluation', 'training']
    folder = kaggle(tmp_path / 'k', BOTH)
    (tmp_path / 'k' / '._arc-agi_training_challenges.json').write_bytes(b'\x00\x05\x16\x07')
    assert arc_sources.read(folder)[1]['subsets'] == ['evaluation', 'training']


def test_a_member_of_an_archive_that_nobody_has_memory_for(tmp_path, monkeypatch):
    class Zeros(io.RawIOBase):
        def readinto(self, buffer):
            buffer[:] = bytes(len(buffer))
            return len(buffer)

    monkeypatch.setattr('hrm_jax.files.MAX_JSON_BYTES', 1 << 20)
    archive = tmp_path / 'big.tar.gz'
    with tarfile.open(archive, 'w:gz') as tar:
        info = tarfile.TarInfo('training/aa.json')
        info.size = 2 << 20
        tar.addfile(info, Zeros())
    with pytest.raises(BuildError, match=r'aa\.json must have at most 1,048,576 bytes; it has 2,0'):
        arc_sources.read(str(archive))
    folder = tmp_path / 'raw' / 'training'
    folder.mkdir(parents=True)
    with (folder / 'aa.json').open('wb') as file:
        file.truncate(3 << 30)  # sparse: it claims 3 GB and has none
    with pytest.raises(BuildError, match='must have at most'):
        arc_sources.read(str(tmp_path / 'raw'))


@pytest.mark.parametrize(
    ('content', 'match'),
    [
        ('[' * 100_000, r'aa\.json must be JSON of few levels'),
        ('null', r'aa\.json must be JSON with an object; got None'),
        ('{"train": null, "test": []}', r'aa\.json, train must be a list; got None'),
        ('{"train": {"0": 1}, "test": []}', 'train must be a list; got an object with 1 keys'),
        ('{"train": [null], "test": []}', 'train pair 1 must have an input and an output'),
        ('{"train": [{"input": null, "output": [[1]]}], "test": []}',
         'train pair 1, input must be a grid of whole numbers'),
        ('{"train": [{"input": [[1]], "output": [[true]]}], "test": []}',
         'train pair 1, output must be a grid of whole numbers'),
        ('{"train": [{"input": [[[[1]]]], "output": [[1]]}], "test": []}', 'must be a grid'),
        ('{"train": [{"input": [[1e400]], "output": [[1]]}], "test": []}', 'must be a grid'),
        ('{"train": [{"input": [[' + '9' * 40 + ']], "output": [[1]]}], "test": []}', 'a grid'),
    ],
)  # fmt: skip
def test_odd_json_names_file_and_key(tmp_path, content, match):
    with pytest.raises(BuildError, match=match):
        build(tmp_path, arc_tree(tmp_path / 'raw', **{'training/aa.json': content}))
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('content', [['a0'], None, {'a0': [1]}, {'a0': {'train': [], 'test': [5]}}])
def test_odd_challenges(tmp_path, content):
    source = kaggle(tmp_path / 'k', BOTH)
    (tmp_path / 'k' / 'arc-agi_training_challenges.json').write_text(json.dumps(content))
    with pytest.raises(BuildError, match='arc-agi_training_'):
        build(tmp_path, source)
