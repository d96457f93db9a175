"""What was asked for decides what is counted: predictions that are missing are wrong."""

import json

import numpy as np
import pytest

from hrm_jax import eval_checkpoint
from hrm_jax.cli import score
from hrm_jax.config import ExperimentConfig
from hrm_jax.data import npy_folder, records
from hrm_jax.data import puzzles as puzzles_lib
from hrm_jax.scoring import arc_names, collect, predictions
from hrm_jax.tasks import Arc
from tests import commands

GRIDS = {
    'a': [([[1, 2]], [[3]])],
    'b': [([[4], [5]], [[6, 7]]), ([[8]], [[9]])],
    'c': [([[1, 1], [2, 2]], [[0]])],
}


def write_folder(root, task, arrays, vocab_size, **facts):
    """Writes a folder of the originals' format with one split, test."""
    folder = root / 'test'
    folder.mkdir(parents=True)
    for name, values in arrays.items():
        np.save(folder / f'all__{name}.npy', values)
    groups = len(arrays['group_indices']) - 1
    metadata = puzzles_lib.DatasetMetadata(
        vocab_size, arrays['inputs'].shape[1], int(arrays['puzzle_identifiers'].max()) + 1, groups,
        1.0, task=task, **facts,
    )  # fmt: skip
    (folder / 'dataset.json').write_text(metadata.to_json())
    assert npy_folder.looks_like_one(root)
    return root


@pytest.fixture
def arc_folder(tmp_path):
    """Three puzzles, one with two tests, each with one augmentation (another colour)."""
    colours = '0213456789'
    maps = np.array([[0, *map(int, colours)]], np.uint8)
    names, inputs, labels, counts = ['<blank>'], [], [], []
    for name, pairs in GRIDS.items():
        for changed in (False, True):
            names.append(f'{name}_t0_{colours}' if changed else name)
            counts.append(len(pairs))
            for pair in pairs:
                for rows, grid in zip((inputs, labels), pair, strict=True):
                    tokens = Arc.encode(grid)
                    table = np.arange(12)
                    table[2:] = 2 + maps[0, 1:]
                    rows.append(table[tokens] if changed else tokens)
    indices = np.append(0, np.cumsum(counts))
    arrays = {
        'inputs': np.array(inputs, np.uint8), 'labels': np.array(labels, np.uint8),
        'puzzle_identifiers': np.arange(1, 7), 'puzzle_indices': indices,
        'group_indices': np.array([0, 2, 4, 6]),
    }  # fmt: skip
    write_folder(tmp_path / 'set', 'arc', arrays, 12)
    (tmp_path / 'set' / 'identifiers.json').write_text(json.dumps(names))
    return tmp_path / 'set'


def predict(folder, data, examples, **facts):
    """Keeps right answers to some examples of the set."""
    dataset = records.load(data, 'test')
    one = dataset.sets['all']
    examples = np.array(examples)
    _, labels = puzzles_lib.stored_examples(one, dataset.metadata, examples)
    ids = one.puzzle_identifiers[one.owners(examples)[0]]
    with predictions.Writer(folder, 'all', {'data': str(data), 'split': 'test'} | facts) as writer:
        writer.add(
            predictions=labels, example=examples, puzzle_identifiers=ids,
            q_halt=np.zeros(len(ids), np.float32),
        )  # fmt: skip
    return folder


def run(capsys, *arguments):
    assert commands.exit_code(score.main, *map(str, arguments)) == 0
    out, err = capsys.readouterr()
    return json.loads(out), err


# Examples: a 0, a' 1, b 2 3, b' 4 5, c 6, c' 7.
@pytest.mark.parametrize(
    ('examples', 'hrm', 'trm', 'missing'),
    [
        ([0, 1], 1 / 3, 1 / 3, 'b, c'),
        ([0, 1, 2, 4], 1 / 3, 1.5 / 3, 'b, test 2, c'),
        ([1, 3, 5, 7], 2 / 3, 2.5 / 3, 'b, test 1'),
        (list(range(8)), 1.0, 1.0, ''),
    ],
)
def test_arc_puzzles_without_predictions_are_not_solved(
    arc_folder, tmp_path, capsys, examples, hrm, trm, missing
):
    folder = predict(tmp_path / 'p', arc_folder, examples)
    values, err = run(capsys, 'arc', folder, '--per-puzzle', tmp_path / 'each.json',
                      '--submission', tmp_path / 'submission.json')  # fmt: skip
    assert values['arc/hrm_pass@1'] == pytest.approx(hrm)
    assert values['arc/trm_pass@1'] == pytest.approx(trm)
    assert values['arc/puzzles'] == 3
    assert values['arc/missing'] == (
        missing.count(', ') + 1 - missing.count('test') if missing else 0
    )
    assert missing in err
    assert ('without predictions, counted as wrong' in err) == bool(missing)
    assert sorted(json.loads((tmp_path / 'each.json').read_text())) == ['a', 'b', 'c']
    assert len(json.loads((tmp_path / 'submission.json').read_text())['b']) == 2


def test_where_nobody_knows_what_was_asked_it_is_said(arc_folder, tmp_path, capsys):
    folder = predict(tmp_path / 'p', arc_folder, [0, 1])
    dataset = records.load(arc_folder, 'test')
    rows = puzzles_lib.stored_examples(dataset.sets['all'], dataset.metadata, np.arange(2))
    plain = tmp_path / 'plain.npz'
    np.savez(plain, inputs=rows[0], labels=rows[1], predictions=rows[1],
             puzzle_identifiers=np.array([1, 2]), q_halt=np.zeros(2))  # fmt: skip
    names = arc_folder / 'identifiers.json'
    values, err = run(capsys, 'arc', plain, '--identifiers', names)
    assert values['arc/hrm_pass@1'] == 1
    assert 'only puzzles with predictions are counted' in err
    values, err = run(capsys, 'arc', plain, '--data', arc_folder)
    assert values['arc/hrm_pass@1'] == pytest.approx(1 / 3)
    assert 'b, c' in err
    assert folder.is_dir()


def test_a_limited_evaluation_counts_what_it_answered_and_says_so(arc_folder, tmp_path, capsys):
    folder = predict(tmp_path / 'p', arc_folder, [0, 1], max_examples=2)
    dataset = records.load(arc_folder, 'test')
    limited = collect.score_arc_folder(folder, dataset, only_answered=True)
    assert limited['eval/all/arc/hrm_pass@1'] == 1
    whole = collect.score_arc_folder(folder, dataset)
    assert whole['eval/all/arc/hrm_pass@1'] == pytest.approx(1 / 3)
    values, err = run(capsys, 'arc', folder)
    assert values['arc/hrm_pass@1'] == pytest.approx(1 / 3)
    assert 'limited to 2 examples of each set (eval.max_examples)' in err
    for limit, said in ((2, True), (8, False), (0, False)):
        config = ExperimentConfig.from_dict({'eval': {'max_examples': limit}})
        note = eval_checkpoint.limit_note(config, dataset)
        assert ('only the first 2 of 8 puzzles' in note) == said


def test_a_test_without_an_answer_does_not_count(arc_folder):
    dataset = records.load(arc_folder, 'test')
    one = dataset.sets['all']
    one.labels[one.puzzle_indices[2] + 1] = 0
    truth = collect.truth_of(dataset, arc_names.find(dataset), ['all'])
    assert [[answer is None for _, answer in tests] for tests in truth.values()] == [
        [False], [False, True], [False],
    ]  # fmt: skip


@pytest.fixture
def text_folder(tmp_path):
    rows = np.array([[1, 2, 0], [2, 0, 0], [2, 1, 1], [0, 0, 0], [1, 0, 0]])
    count = np.arange(len(rows) + 1)
    arrays = {
        'inputs': rows, 'labels': rows, 'puzzle_identifiers': np.zeros(len(rows), int),
        'puzzle_indices': count, 'group_indices': count,
    }  # fmt: skip
    write_folder(tmp_path / 'set', 'lisp', arrays, 3)
    (tmp_path / 'set' / 'vocab.json').write_text(json.dumps({'<pad>': 0, 'x': 1, 'y': 2}))
    return tmp_path / 'set'


@pytest.mark.parametrize(
    ('examples', 'missing'), [([0, 1, 2, 3, 4], 0), ([0, 4], 2), ([2], 3), ([0, 1, 3], 2)]
)
def test_texts_without_predictions_are_wrong(text_folder, tmp_path, capsys, examples, missing):
    """Example 3 has no scored token, so it never counts."""
    folder = predict(tmp_path / 'p', text_folder, examples)
    values, err = run(capsys, 'text', folder)
    assert (values['examples'], values['missing']) == (4, missing)
    for name in ('exact_match_ratio', 'token_accuracy', 'semantic_equivalence_ratio'):
        assert values[name] == pytest.approx((4 - missing) / 4)
    lacking = [f'example {k}' for k in (0, 1, 2, 4) if k not in examples]
    assert (f': {", ".join(lacking)}' in err) == bool(lacking)
    assert 'original' not in run(capsys, 'text', folder, '--original-quirks')[1]


def test_texts_of_other_programs_are_counted_without_names(text_folder, tmp_path, capsys):
    rows = np.array([[1, 2, -100], [2, -100, -100], [-100, -100, -100]])
    np.savez(tmp_path / 'other.npz', labels=rows, predictions=np.maximum(rows, 0))
    values, err = run(capsys, 'text', tmp_path / 'other.npz', '--data', text_folder)
    assert (values['examples'], values['missing']) == (4, 2)
    assert values['exact_match_ratio'] == 0.5
    assert 'counted as wrong: 2\n' in err
    words = text_folder / 'vocab.json'
    values, err = run(capsys, 'text', tmp_path / 'other.npz', '--vocab', words)
    assert (values['examples'], values['missing']) == (2, 0)
    assert 'only examples with predictions are counted (give --data' in err


def test_the_only_evaluation_of_a_run_is_found(text_folder, tmp_path, capsys):
    for step in (10, 20):
        predict(tmp_path / 'run' / 'predictions' / f'step_{step}_test', text_folder, [0, 1])
        if step == 10:
            assert run(capsys, 'text', tmp_path / 'run' / 'predictions')[0]['examples'] == 4
    assert commands.exit_code(score.main, 'text', str(tmp_path / 'run' / 'predictions')) == 1
    assert 'several evaluations; name one' in capsys.readouterr().err
