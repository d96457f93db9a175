"""Prediction files and the scores of texts."""

import json
import random
import zipfile

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from hrm_jax.cli import score
from hrm_jax.data import puzzles as puzzles_lib
from hrm_jax.errors import PredictionError
from hrm_jax.interop import torch_writer
from hrm_jax.scoring import examples, predictions, text
from tests import commands
from tests.npy_sets import header

VOCAB = {'(': 1, ')': 2, '+': 3, '0': 4, 'x': 5, 'y': 6}
PARENTHESISED = [1, 3, 5, 4, 2]  # ( + x 0 )


def write(folder, rows, process=0, count=1, **extra):
    arrays = {'predictions': np.arange(rows * 3, dtype=np.uint8).reshape(rows, 3)}
    arrays |= {'q_halt': np.arange(rows, dtype=np.float32), **extra}
    with predictions.Writer(folder, 'all', {'data': 'd'}, process, count, 4) as writer:
        for start in range(0, rows, 3):
            writer.add(**{k: v[start : start + 3] for k, v in arrays.items()})
    return arrays


def read(files, *names, rows=5):
    chunks = [chunk for file in files for chunk in file.chunks(*names, rows=rows)]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in names}


@pytest.mark.parametrize('rows', [1, 4, 11])
def test_shards_hold_all_rows_in_order(tmp_path, rows):
    arrays = write(tmp_path, rows)
    files = predictions.find([tmp_path])
    assert [f.rows for f in files] == [4] * (rows // 4) + ([rows % 4] if rows % 4 else [])
    assert {f.set_name for f in files} == {'all'}
    got = read(files, 'q_halt', 'predictions', rows=3)
    for name in ('predictions', 'q_halt'):
        np.testing.assert_array_equal(got[name], arrays[name])
        assert got[name].dtype == arrays[name].dtype
    assert predictions.folder_metadata(tmp_path) == {'data': 'd'}


def test_incomplete_folders_are_refused(tmp_path):
    write(tmp_path, 5, process=0, count=2)
    with pytest.raises(PredictionError, match='all-p001'):
        predictions.find([tmp_path])
    write(tmp_path, 5, process=1, count=2)
    assert len(predictions.find([tmp_path])) == 4
    (tmp_path / 'all-p000-00001.npz').unlink()
    with pytest.raises(PredictionError, match='all-p000-00001'):
        predictions.find([tmp_path])
    with pytest.raises(PredictionError, match='missing'):
        predictions.find([tmp_path / 'nowhere'])


def test_a_failed_run_leaves_no_complete_folder(tmp_path):
    write(tmp_path, 5)
    with pytest.raises(RuntimeError), predictions.Writer(tmp_path, 'all', {}, 0, 1, 2) as writer:  # noqa: PT012
        writer.add(q_halt=np.zeros(3, np.float32))
        raise RuntimeError
    with pytest.raises(PredictionError, match='did not finish'):
        predictions.find([tmp_path])


def test_missing_fields_and_wrong_rows_are_named(tmp_path):
    write(tmp_path, 2)
    [file] = predictions.find([tmp_path])
    with pytest.raises(PredictionError, match=r'lacks labels.*eval\.save_outputs'):
        next(file.chunks('labels'))
    with (
        predictions.Writer(tmp_path, 'x', {}) as writer,
        pytest.raises(PredictionError, match='must be arrays of one length'),
    ):
        writer.add(q_halt=np.zeros(2), steps=np.zeros(3))


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / 'a.npz'
    np.savez(path, preds=np.zeros((3, 2)), strange=np.array([{}], object))
    with pytest.raises(PredictionError, match='plain rows'):
        predictions.find([path])
    path.write_bytes(b'nothing')
    with pytest.raises(PredictionError, match=r'must be an \.npz or torch file'):
        predictions.find([path])
    np.savez(path, preds=np.zeros((3, 2)), q_halt_logits=np.zeros(4))
    with pytest.raises(PredictionError, match='one length'):
        predictions.find([path])


def test_questions_come_back_from_the_data_set(tmp_path):
    boards = np.arange(12, dtype=np.uint8).reshape(4, 3)
    puzzles = puzzles_lib.PuzzleSet.of_examples(boards, boards % 5)
    metadata = puzzles_lib.DatasetMetadata(20, 3, 1, 4, 1.0)
    dataset = puzzles_lib.PuzzleDataset(metadata, {'all': puzzles}, 'here')
    write(tmp_path, 3, example=np.array([3, 0, 2]))
    [file] = predictions.find([tmp_path])
    [chunk] = examples.chunks(file, 'inputs', 'labels', 'q_halt', dataset=dataset)
    np.testing.assert_array_equal(chunk['inputs'], boards[[3, 0, 2]])
    expected = np.where(boards % 5 == 0, -100, boards.astype(int) % 5)[[3, 0, 2]]
    np.testing.assert_array_equal(chunk['labels'], expected)
    write(tmp_path, 3, example=np.array([3, 0, 4]))
    [file] = predictions.find([tmp_path])
    with pytest.raises(PredictionError, match='another data set'):
        next(examples.chunks(file, 'labels', dataset=dataset))


def original_files(folder, labels, answers, step):
    """Files as the original's evaluation saves them, one per rank."""
    folder.mkdir(exist_ok=True)
    (folder / 'vocab.json').write_text(json.dumps(VOCAB))
    for rank in range(len(labels)):
        state = {
            'inputs': np.asarray(labels[rank], np.int32),
            'labels': np.asarray(labels[rank], np.int32),
            'logits': np.eye(8, dtype=np.float32)[np.asarray(answers[rank])],
            'q_halt_logits': np.zeros(len(labels[rank]), np.float32),
        }
        torch_writer.write_torch(folder / f'step_{step}_all_preds.{rank}', state)


def test_text_command_reads_torch_files_and_masks_padding(tmp_path, capsys):
    truth = [5, -100, -100, -100, -100]
    rows = [[truth, truth], [truth]]
    answers = [[[5, 6, 6, 6, 6], PARENTHESISED], [[6, 0, 0, 0, 0]]]
    original_files(tmp_path, rows, answers, step=20)
    original_files(tmp_path, rows, [[[6] * 5] * 2, [[6] * 5]], step=10)
    command = ['text', str(tmp_path), '--vocab', str(tmp_path / 'vocab.json')]
    assert commands.exit_code(score.main, *command) == 0
    got = json.loads(capsys.readouterr().out)
    assert got['examples'] == 3
    assert got['token_accuracy'] == got['exact_match_ratio'] == pytest.approx(1 / 3)
    assert got['semantic_equivalence_ratio'] == pytest.approx(2 / 3)
    assert commands.exit_code(score.main, *command, '--step', '10') == 0
    assert json.loads(capsys.readouterr().out)['exact_match_ratio'] == 0
    assert commands.exit_code(score.main, *command, '--original-quirks') == 0
    assert json.loads(capsys.readouterr().out)['examples'] == 6  # all steps mixed, as there
    assert commands.exit_code(score.main, *command, '--max-files', '1') == 0
    assert json.loads(capsys.readouterr().out)['examples'] == 2
    assert commands.exit_code(score.main, 'text', tmp_path) == 1
    assert '--vocab' in capsys.readouterr().err


@hypothesis.given(st.text('ab( ', max_size=40), st.text('ab( ', max_size=40))
def test_edit_distance_is_the_textbook_one(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    assert text.edit_distance(a, b) == row[-1]


@pytest.mark.parametrize(
    ('truth', 'answer', 'same'),
    [
        ('( + x 0 )', 'x', True),
        ('( / ( - 0 7 ) 2 )', '-4', True),
        ('x', 'x ) junk', True),
        ('x', 'y', False),
        ('( / x 0 )', '( / x 0 )', False),
        ('( + x', 'x', False),
        ('', '', False),
        ('( ( + x 1 )', 'x', False),
        ('( / ( * x x ) 26 )', '0', True),
        ('( / ( * x x ) 25 )', '0', False),  # differs at 5 and -5 only
    ],
)
def test_equal_meaning(truth, answer, same):
    got = text.semantically_equal(truth.split(), answer.split(), random.Random(0))
    assert got is same


def test_deep_expressions_need_no_host_stack():
    deep = ['(', '+', '1'] * 50_000 + ['1'] + [')'] * 50_000
    assert text.evaluate(text.parse(deep), {}) == 50_001


def test_no_scored_example_is_an_error():
    rows = {'labels': np.full((2, 3), -100), 'predictions': np.zeros((2, 3), int)}
    with pytest.raises(PredictionError, match='there must be an example'):
        text.analyze([rows], {})


def test_hidden_predictions_do_not_count(tmp_path):
    with predictions.Writer(tmp_path, 'all', {'task': 'x'}) as writer:
        writer.add(predictions=np.zeros((2, 4), np.uint8))
    for name in ('._all-p000-00000.npz', '._all-p000.json', '.all-p001-00000.npz'):
        (tmp_path / name).write_bytes(b'\x00\x05\x16\x07')
    assert [file.path.name for file in predictions.find([tmp_path])] == ['all-p000-00000.npz']
    assert predictions.folder_metadata(tmp_path) == {'task': 'x'}
    (tmp_path / 'all-p000.json').write_text('{"metadata": {"data": 7}}')
    with pytest.raises(PredictionError, match=r'all-p000\.json: metadata must be an object'):
        predictions.folder_metadata(tmp_path)
    with pytest.raises(PredictionError, match=r'all-p000\.json must have process_count'):
        predictions.find([tmp_path])


def test_a_prediction_that_claims_more_than_its_file(tmp_path):
    with zipfile.ZipFile(tmp_path / 'p.npz', 'w') as archive:
        archive.writestr('predictions.npy', header('(4, 100000000000)') + bytes(16))
    with pytest.raises(PredictionError, match=r'must have 400,000,000,000 bytes, as its shape'):
        predictions.find([tmp_path / 'p.npz'])
