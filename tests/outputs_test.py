"""--mode=eval with early exit and saved outputs, on a tiny run."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from hrm_jax import evaluate, partitioning, train_state
from hrm_jax.cli import score
from hrm_jax.config import EvalConfig, RolloutConfig
from hrm_jax.data import augment, pipeline, records
from hrm_jax.data import puzzles as puzzles_lib
from hrm_jax.errors import ConfigError
from hrm_jax.scoring import collect, predictions
from tests import commands, tiny_run


@pytest.fixture(scope='module')
def setup(tmp_path_factory):
    data = tiny_run.write_dataset(tmp_path_factory.mktemp('tiny') / 'data')
    config = tiny_run.config(data)
    dataset = records.load(data, 'test')
    sizes = {n: getattr(dataset.metadata, n)
             for n in ('vocab_size', 'seq_len', 'num_puzzle_identifiers')}  # fmt: skip
    config = dataclasses.replace(config, model=config.model.for_dataset(**sizes))
    mesh = partitioning.make_mesh(jax.devices()[:1])
    state = train_state.create(config, mesh)
    return config, dataset, mesh, state.weights


def run(setup, folder, **options):
    config, dataset, mesh, weights = setup
    config = dataclasses.replace(config, eval=dataclasses.replace(config.eval, **options))
    step = evaluate.make_step(config, mesh, 'logits' in config.eval.save_outputs)
    with collect.Collector(folder, config.eval, dataset, {'x': 1}) as collector:
        values = evaluate.evaluate(config, step, weights, dataset, mesh, collector=collector)
    files = predictions.find([folder])
    assert predictions.folder_metadata(folder)['x'] == 1
    names = files[0].fields
    chunks = [chunk for file in files for chunk in file.chunks(*names)]
    saved = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in names}
    order = np.argsort(saved['example'])
    return values, {name: rows[order] for name, rows in saved.items()}


def test_all_outputs_are_kept_without_padding_rows(setup, tmp_path):
    everything = ('predictions', 'q', 'inputs', 'labels', 'logits')
    values, saved = run(setup, tmp_path, save_outputs=everything)
    dataset = setup[1]
    inputs, labels = puzzles_lib.stored_examples(
        dataset.sets['all'], dataset.metadata, np.arange(tiny_run.TEST)
    )
    np.testing.assert_array_equal(saved['example'], np.arange(tiny_run.TEST))
    np.testing.assert_array_equal(saved['inputs'], inputs)
    np.testing.assert_array_equal(saved['labels'], labels)
    np.testing.assert_array_equal(saved['logits'].argmax(-1), saved['predictions'])
    assert saved['predictions'].dtype == np.uint8
    accuracy = (saved['predictions'] == labels).mean()
    assert values['eval/all/accuracy'] == pytest.approx(accuracy, rel=1e-5)
    assert set(saved['steps']) == {3}


def test_adaptive_evaluation_keeps_each_puzzle_at_its_own_step(setup, tmp_path):
    _, fixed = run(setup, tmp_path / 'a', save_outputs=('predictions', 'q'))
    values, saved = run(
        setup, tmp_path / 'b', halting='adaptive', global_batch_size=4,
        save_outputs=('predictions', 'q', 'labels'),
    )  # fmt: skip
    np.testing.assert_array_equal(saved['example'], np.arange(tiny_run.TEST))
    assert set(fixed) == {'example', 'puzzle_identifiers', 'steps', 'q_halt', 'q_continue',
                          'predictions'}  # fmt: skip
    assert values['eval/all/steps'] == pytest.approx(saved['steps'].mean())
    right = (saved['predictions'] == saved['labels']).mean()
    assert values['eval/all/accuracy'] == pytest.approx(right, rel=1e-5)
    late = saved['steps'] == 3  # those that ran all steps have the same answer as before
    np.testing.assert_array_equal(saved['predictions'][late], fixed['predictions'][late])


def test_only_the_first_examples(setup, tmp_path):
    for halting in ('max', 'adaptive'):
        _, saved = run(setup, tmp_path / halting, max_examples=5, halting=halting)
        assert saved['example'].tolist() == list(range(5))


def test_a_drawn_subset_keeps_the_places_of_its_puzzles(setup, tmp_path):
    kept = ('predictions', 'q', 'inputs', 'labels')
    dataset = setup[1]
    drawn = pipeline.eval_examples(dataset.sets['all'], drawn=(9, 3))
    inputs, labels = puzzles_lib.stored_examples(dataset.sets['all'], dataset.metadata, drawn)
    assert drawn.tolist() != list(range(9))
    chains = {'rollouts': RolloutConfig(breadth=2, select='vote'), 'high_step_noise': 0.1}
    for number, options in enumerate(
        ({'halting': 'max'}, {'halting': 'adaptive'}, {'halting': 'adaptive'} | chains)
    ):
        folder = tmp_path / str(number)
        values, saved = run(setup, folder, subset='random9-seed3', save_outputs=kept, **options)
        assert saved['example'].tolist() == drawn.tolist()
        np.testing.assert_array_equal(saved['inputs'], inputs)
        right = (saved['predictions'] == labels).mean()
        assert values['eval/all/accuracy'] == pytest.approx(right, rel=1e-5)
        assert predictions.folder_metadata(folder)['subset'] == 'random9-seed3'
        with_errors = collect.Collector(
            folder, EvalConfig(subset='random9-seed3'), dataset, {}
        ).scores(print)
        exact = values['eval/all/exact_accuracy']
        error = (exact * (1 - exact) / 9) ** 0.5
        assert with_errors == {'eval/all/exact_accuracy_stderr': pytest.approx(error)}


def test_a_folder_that_can_not_be_made_stops_nobody(setup, tmp_path):
    config, dataset, *_ = setup
    (tmp_path / 'file').write_text('')
    logged = []
    folder = tmp_path / 'file' / 'predictions'
    assert (
        collect.Collector.for_evaluation(config, dataset, folder, tmp_path, logged.append) is None
    )
    assert 'predictions are not kept' in logged[0]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'subset': 'first100'}, 'randomCOUNT-seedSEED'),
        ({'subset': 'random0-seed0'}, 'randomCOUNT-seedSEED'),
        ({'subset': 'random5-seed0', 'max_examples': 3}, 'both limit'),
        ({'halting': 'early'}, 'eval.halting must be one of'),
        ({'save_outputs': ('prediction',)}, "Did you mean 'predictions'"),
        ({'halting': 'adaptive', 'depth_multiples': (2,)}, 'can neither go'),
        ({'halting': 'adaptive', 'save_outputs': ('logits',)}, 'can neither go'),
    ],
)
def test_settings_that_make_no_sense(options, message):
    with pytest.raises(ConfigError, match=message):
        EvalConfig(**options)


def test_arc_is_scored_from_what_was_kept(tmp_path, capsys):
    """A perfect answer to every augmentation of a puzzle, and one wrong test of another."""
    rng = np.random.default_rng(0)
    extents = np.array([[3, 4, 2, 2], [5, 1, 3, 3], [2, 2, 4, 1]], np.uint8)
    inputs, labels = np.zeros((2, 3, 30, 30), np.uint8)
    for row, (h, w, i, j) in enumerate(extents):
        inputs[row, :h, :w] = rng.integers(2, 12, (h, w))
        labels[row, :i, :j] = rng.integers(2, 12, (i, j))
    maps = augment.random_maps('arc', rng.random((6, 10)), 30).astype(np.uint8)
    maps[[0, 3]] = augment.identity_map('arc', 30)
    one = puzzles_lib.PuzzleSet(
        inputs.reshape(3, 900), labels.reshape(3, 900), names=('a', 'b'), maps=maps,
        group_indices=np.array([0, 3, 6]), puzzle_indices=np.array([0, 1, 2, 3, 5, 7, 9]),
        puzzle_first=np.array([0, 0, 0, 1, 1, 1]), extents=extents,
        puzzle_identifiers=np.arange(1, 7, dtype=np.int32),
    )  # fmt: skip
    metadata = puzzles_lib.DatasetMetadata(12, 900, 7, 2, 1.5, task='arc', transform='arc')
    dataset = puzzles_lib.PuzzleDataset(metadata, {'all': one}, str(tmp_path))
    example = np.arange(9)
    questions, answers = puzzles_lib.stored_examples(one, metadata, example)
    answers[[4, 6, 8]] = questions[[4, 6, 8]]  # the second test of b is always wrong
    with collect.Collector(tmp_path / 'p', EvalConfig(), dataset, {}) as collector:
        batch = puzzles_batch(questions, answers, one, example)
        zeros = np.zeros(9)
        collector.add('all', example, batch, {
            'predictions': answers, 'q_halt': zeros, 'q_continue': zeros, 'steps': zeros,
        })  # fmt: skip
    values = collect.score_arc_folder(tmp_path / 'p', dataset)
    assert values['eval/all/arc/hrm_pass@1'] == 0.5
    assert values['eval/all/arc/trm_pass@1'] == 0.75
    # Two puzzles, of which one counts 1 and the other 0 or 1/2.
    assert values['eval/all/arc/hrm_pass_stderr@1'] == pytest.approx((0.25 / 2) ** 0.5)
    assert values['eval/all/arc/trm_pass_stderr@1'] == pytest.approx((0.0625 / 2) ** 0.5)
    shown = [name.removeprefix('eval/all/arc/') for name in values if 'stderr' not in name]
    assert shown[:4] == ['hrm_pass@1', 'trm_pass@1', 'hrm_pass@2', 'trm_pass@2']
    submission = json.loads((tmp_path / 'p' / 'submission.json').read_text())
    assert len(submission['b']) == 2
    assert commands.exit_code(score.main, 'arc', tmp_path / 'p') == 1  # no data set was recorded
    assert '--identifiers' in capsys.readouterr().err


def puzzles_batch(inputs, labels, one, example):
    from hrm_jax.types import Batch

    owners = one.owners(example)[0]
    return Batch(inputs, labels, one.puzzle_identifiers[owners])
