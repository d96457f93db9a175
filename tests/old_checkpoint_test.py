"""A checkpoint of an earlier version loads, resumes, evaluates and answers as it did then.

fixtures/old_checkpoint/README.md states how it was made.
"""

import hashlib
import json
import pathlib
import shutil
import tarfile

import jax
import numpy as np
import pytest

from hrm_jax import eval_checkpoint, partitioning, train, train_state
from hrm_jax.checkpoint import layout, store
from hrm_jax.inference.solver import Solver
from hrm_jax.model import layers
from hrm_jax.run import plan
from tests import commands, tiny_run

FOLDER = pathlib.Path(__file__).parent / 'fixtures' / 'old_checkpoint'
EXPECTED = json.loads((FOLDER / 'expected.json').read_text())


@pytest.fixture(scope='module', autouse=True)
def _compiled():
    with commands.quick_compiles():
        yield


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return tiny_run.write_dataset(tmp_path_factory.mktemp('old') / 'data')


@pytest.fixture(scope='module')
def saved(data):
    """The old working directory, after two steps."""
    run = data.parent / 'run'
    with tarfile.open(FOLDER / 'run.tar.xz') as file:
        file.extractall(run, filter='data')
    return run


def config(data, steps=2):
    model = {'forward_dtype': 'float32', 'intermediate_size': 16, 'dropout': 0.1}
    settings = {'max_steps': steps, 'eval_interval': 8}
    return tiny_run.config(data, model=model, train=settings, checkpoint={'every_steps': 2})


def by_old_name(tree) -> dict[str, np.ndarray]:
    """Arrays under the names that they had then: params, constants and table were not in one."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    names = (jax.tree_util.keystr(path).removeprefix('.weights') for path, _ in leaves)
    return {name: np.asarray(leaf) for name, (_, leaf) in zip(names, leaves, strict=True)}


def digests(arrays):
    return {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}


def last_state(workdir, config):
    sized = plan.make_plan(config).config
    abstract = train_state.abstract(sized, partitioning.make_mesh())
    state, position = store.restore(layout.resolve('latest', workdir), abstract)
    return by_old_name(state.replace(rng=jax.random.key_data(state.rng))), position


def test_every_array_is_read_as_it_was_written(saved, data):
    arrays, position = last_state(saved, config(data))
    assert digests(arrays) == EXPECTED['step_2']
    assert position['examples'] == 16
    kinds = {name.split('[')[0] for name in arrays}
    assert {'.params', '.constants', '.puzzle_table', '.ema', '.opt_state', '.rng'} <= kinds


def test_inference_reads_the_same_weights(saved):
    model = store.read_model(layout.resolve('latest', saved))
    arrays = by_old_name({'weights': model.weights, 'ema': model.ema})
    arrays = {
        name.replace("['weights']", '').replace("['ema']", '.ema'): array
        for name, array in arrays.items()
    }
    wanted = {
        name: digest
        for name, digest in EXPECTED['step_2'].items()
        if name.startswith(('.params', '.constants', '.puzzle_table', '.ema'))
    }
    assert digests(arrays) == wanted
    assert (model.step, model.config.model.intermediate_size) == (2, 16)


def test_a_resumed_run_goes_where_the_old_code_went(saved, data, tmp_path, monkeypatch):
    def masks_of_then(key, rate, shape):  # a word of its own for every entry
        return jax.random.bernoulli(key, 1 - rate, shape)

    monkeypatch.setattr(layers, 'kept', masks_of_then)
    shutil.copytree(saved, tmp_path / 'run')
    logged = []
    outcome = train.train(config(data, steps=4), tmp_path / 'run', log=logged.append)
    assert outcome.step == 4
    assert any('resumed from step 2' in text for text in logged)
    arrays, _ = last_state(tmp_path / 'run', config(data, steps=4))
    with np.load(FOLDER / 'step_4.npz') as expected:
        assert len(expected.files) == 25
        for name in expected.files:
            # A step moves a weight by 1e-3; another machine may round differently.
            np.testing.assert_allclose(
                arrays[name], expected[name], rtol=1e-5, atol=1e-5, err_msg=name
            )
    lines = (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
    assert len(lines) == len(EXPECTED['records'])
    for line, record in zip(lines, EXPECTED['records'], strict=True):
        assert json.loads(line) == pytest.approx(record, rel=1e-5, abs=1e-6)


def test_its_evaluation_gives_the_recorded_metrics(saved, data):
    values = eval_checkpoint.evaluate_checkpoint(config(data), saved, log=lambda _message: None)
    record = EXPECTED['records'][1]
    wanted = {name: value for name, value in record.items() if name.startswith('eval/')}
    assert values.pop('eval/all/exact_accuracy_stderr') >= 0  # newer than the record
    assert values.pop('eval/all/gflops') > 0
    assert values == pytest.approx(wanted, rel=1e-5)


def test_the_solver_gives_the_old_answers(saved, data):
    questions = np.load(data / 'test' / 'all__inputs.npy')
    solutions = Solver.from_checkpoint(saved).solve(list(questions))
    assert [solution.answer.tolist() for solution in solutions] == EXPECTED['answers']
    confidences = [solution.confidence for solution in solutions]
    np.testing.assert_allclose(confidences, EXPECTED['confidences'], rtol=1e-4)
