"""One set of weights for boards of every size: solving and evaluation."""

import dataclasses

import jax
import numpy as np
import pytest

pytest.importorskip('tensorflow_datasets')
pytest.importorskip('array_record')

from data_builders import sudoku
from hrm_jax import eval_checkpoint, tasks, train
from hrm_jax.config import ExperimentConfig
from hrm_jax.errors import PuzzleError
from hrm_jax.inference.solver import Solver
from tests import commands

MODEL = {
    'levels': 'single', 'H_cycles': 1, 'L_cycles': 1, 'H_layers': 0, 'L_layers': 1,
    'hidden_size': 16, 'num_heads': 2, 'intermediate_size': 32, 'puzzle_emb_ndim': 0,
    'gradient_window': 'last_cycle', 'forward_dtype': 'float32', 'q_head': False,
    'q_confidence': True, 'symbol_exchange': 'attention', 'symbol_heads': 2,
    'symbol_head_size': 4, 'added_tokens': 1, 'pos_encodings': 'rope2d_whole',
}  # fmt: skip


@pytest.fixture(scope='module', autouse=True)
def _compiled():
    with commands.quick_compiles():
        yield


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('data')
    for size in (4, 6):
        sudoku.build(
            str(root / str(size)), source='generated', size=size, train_count=16, test_count=8,
            show=False,
        )  # fmt: skip
    return root


def experiment(path, **model) -> ExperimentConfig:
    return ExperimentConfig.from_dict({
        'model': MODEL | model, 'data': {'path': str(path)}, 'act': {'halting': 'random',
        'halt_max_steps': 2}, 'optimizer': {'lr': 0.01, 'lr_warmup_steps': 1},
        'train': {'global_batch_size': 8, 'epochs': 1, 'eval_interval': 1},
        'eval': {'global_batch_size': 8}, 'logging': {'tensorboard': False},
    })  # fmt: skip


@pytest.fixture(scope='module')
def run(data, tmp_path_factory):
    """A run on 4x4 boards."""
    workdir = tmp_path_factory.mktemp('run')
    train.train(experiment(data / '4'), workdir, log=lambda _: None)
    return workdir


def test_a_solver_for_another_size_is_that_of_the_larger_model(data, run):
    four = Solver.from_checkpoint(run)
    six = four.for_side(6)
    assert four.for_side(4) is four
    assert (six.task, six.config.model.vocab_size) == (tasks.Sudoku(36, 8), 8)
    model = dataclasses.replace(four.config.model, vocab_size=8, seq_len=36)
    config = dataclasses.replace(four.config, model=model)
    built = Solver(config, four.weights, tasks.Sudoku(36, 8), 'sudoku', jax.devices()[:1])
    question = '12' + '.' * 34
    [one], [two] = six.solve([question]), built.solve([question])
    assert one.text == two.text
    assert len(one.text) == 36
    np.testing.assert_allclose(one.confidence, two.confidence, rtol=1e-6)
    assert len(four.solve(['1' + '.' * 15])[0].text) == 16  # as before
    with pytest.raises(PuzzleError, match='36 cells'):
        six.solve(['1' + '.' * 15])


def test_a_checkpoint_is_evaluated_on_another_size(data, run):
    logged = []
    values = eval_checkpoint.evaluate_checkpoint(
        experiment(data / '6'), run, log=lambda text: logged.append(str(text))
    )
    assert 0 <= values['eval/all/accuracy'] <= 1
    assert any('36 cells and 8 tokens; the weights were trained on 16 and 6' in t for t in logged)
    seen = values['eval/all/lm_loss']
    own = eval_checkpoint.evaluate_checkpoint(experiment(data / '4'), run, log=lambda _: None)
    assert own['eval/all/lm_loss'] != seen
