"""A split without answers: predicted, never scored, never trained on."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from hrm_jax import eval_checkpoint, train
from hrm_jax.data import records
from hrm_jax.errors import DatasetError
from hrm_jax.scoring import predictions
from tests import tiny_run


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tiny_run.write_dataset(tmp_path_factory.mktemp('tiny') / 'data')
    shutil.copytree(root / 'test', root / 'predict')
    labels = root / 'predict' / 'all__labels.npy'
    np.save(labels, np.zeros_like(np.load(labels)))
    return root


@pytest.fixture(scope='module')
def run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp('run')
    train.train(tiny_run.config(data, train={'max_steps': 1}), folder)
    return folder


def evaluated(data, run, **options):
    said = []
    config = tiny_run.config(data, eval={'global_batch_size': 8} | options)
    values = eval_checkpoint.evaluate_checkpoint(config, run, log=said.append)
    return values, '\n'.join(said)


@pytest.mark.parametrize('halting', ['max', 'adaptive'])
def test_it_is_predicted_and_not_scored(data, run, halting):
    values, said = evaluated(
        data, run, split='predict', halting=halting, save_outputs=['predictions', 'q']
    )
    assert values == {}
    assert "the split 'predict' has no answers, so nothing is scored; its predictions are" in said
    (file,) = predictions.find([run / 'predictions' / 'step_1_predict'])
    assert file.rows == tiny_run.TEST
    assert 'exact_accuracy' not in said


def test_without_predictions_the_setting_is_named(data, run):
    values, said = evaluated(data, run, split='predict', save_outputs=[])
    assert (values, 'set eval.save_outputs to keep them' in said) == ({}, True)


def test_the_test_split_is_scored_as_before(data, run):
    values, _ = evaluated(data, run)
    assert 0 <= values['eval/all/accuracy'] <= 1


@pytest.mark.parametrize('split', ['predict', 'train'])
def test_no_run_trains_or_is_judged_by_it(data, tmp_path, split):
    root = shutil.copytree(data, tmp_path / 'data')
    if split == 'train':
        np.save(root / 'train' / 'all__labels.npy', np.zeros((60, 16), np.uint8))
    config = tiny_run.config(root, eval={'split': 'predict' if split == 'predict' else 'test'})
    with pytest.raises(DatasetError, match=rf"the split '{split}' of .* must have answers"):
        train.train(config, tmp_path / 'run')


def test_labels_that_all_count_are_answers(data, tmp_path):
    root = shutil.copytree(data, tmp_path / 'data')
    file = root / 'predict' / 'dataset.json'
    facts = json.loads(file.read_text()) | {'ignore_label_id': None}
    file.write_text(json.dumps(facts))
    assert records.load(root, 'predict').has_answers  # padding is learned there
    assert dataclasses.asdict(records.load(root, 'predict').metadata)['ignore_label_id'] is None
