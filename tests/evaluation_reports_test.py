"""What evaluations report beside exact match: depths, cost, ratings, the worth of identifiers."""

import dataclasses
import types

import jax.numpy as jnp
import numpy as np
import pytest

from data_builders import arc, sudoku
from hrm_jax import eval_checkpoint, eval_step, metrics, partitioning
from hrm_jax.config import ActConfig, EvalConfig, ExperimentConfig, ModelConfig, RolloutConfig
from hrm_jax.data import puzzles, records
from hrm_jax.data.puzzles import stored_examples
from hrm_jax.errors import ConfigError, DatasetError
from hrm_jax.model import flops
from hrm_jax.run import summary
from hrm_jax.scoring import identifiers, predictions, rules
from hrm_jax.types import Weights
from tests.builder_sources import arc_tree, write_csv

MODEL = ModelConfig(
    vocab_size=6, seq_len=9, num_puzzle_identifiers=1, hidden_size=16, num_heads=2,
    puzzle_emb_ndim=16, forward_dtype='float32',
)  # fmt: skip


def depths(config: ExperimentConfig) -> tuple[int, ...]:
    return eval_checkpoint._with_depths(config, lambda text: None).eval.depth_multiples


def test_models_trained_with_16_steps_are_read_at_64_too():
    config = ExperimentConfig(model=MODEL)
    assert config.act.halt_max_steps == 16
    assert depths(config) == (4,)
    changed = dataclasses.replace

    def with_eval(**changes):
        return changed(config, eval=EvalConfig(**changes))

    assert depths(with_eval(deep=False)) == ()
    assert depths(with_eval(depth_multiples=(2, 8))) == (2, 8)
    assert depths(with_eval(halting='adaptive')) == ()
    assert depths(with_eval(halt_max_steps=8)) == ()
    rollouts = RolloutConfig(breadth=2)
    assert depths(with_eval(rollouts=rollouts, high_step_noise=0.1)) == ()
    assert depths(changed(config, act=ActConfig(halt_max_steps=8))) == ()


def test_a_puzzle_costs_the_steps_that_it_takes_whether_solved_or_not():
    config = ExperimentConfig(model=MODEL)
    values = {
        'eval/all/exact_accuracy': 0.0, 'eval/all/steps': 2.5, 'eval/more/steps': 4.0,
        'eval/more/gflops': 7.0,
    }  # fmt: skip
    assert eval_checkpoint.costs(config, values) == {
        'eval/all/gflops': pytest.approx(2.5 * flops.act_step(MODEL) / 1e9)
    }
    assert metrics.meaning('eval/all/gflops')


def test_parameters_are_those_of_the_backbone_and_with_the_table():
    params = {'head': {'kernel': np.zeros((3, 5))}}
    text = summary.parameters(Weights(params, {}, np.zeros((7, 2))))
    numbers = [line.split() for line in text.splitlines()]
    assert ['backbone', '15'] in numbers
    assert ['puzzle', 'table', '14'] in numbers
    assert ['total', '29'] in numbers
    assert ['total', '15'] in [
        line.split() for line in summary.parameters(Weights(params, {}, None)).splitlines()
    ]


def test_accuracy_by_rating_is_not_that_of_the_whole(tmp_path):
    inputs = np.tile(np.array([[2, 1, 1, 1]], np.uint8), (4, 1))
    labels = np.tile(np.array([[2, 3, 3, 2]], np.uint8), (4, 1))
    metadata = puzzles.DatasetMetadata(
        vocab_size=4, seq_len=4, num_puzzle_identifiers=1, total_groups=4,
        mean_puzzle_examples=1.0, task='colours',
    )  # fmt: skip
    one = puzzles.PuzzleSet.of_examples(inputs, labels)
    ratings = np.array([0, 30.5, 0, 30.5], np.float32)
    data = puzzles.PuzzleDataset(metadata, {'all': one}, ratings={'all': ratings})
    answers = labels.copy()
    answers[1, 1] = answers[3, 1] = 2  # the hard ones are wrong
    with predictions.Writer(tmp_path / 'p', 'all', {}) as writer:
        order = np.array([3, 0, 2, 1])  # rows know their place
        writer.add(predictions=answers[order], example=order)
    scores = rules.score(predictions.find([tmp_path / 'p']), data)
    assert scores.shares['exact'] == 0.5
    assert [(b.low, b.high, b.puzzles, b.shares['exact']) for b in scores.by_rating] == [
        (0.0, 0.0, 2, 1.0), (30.5, 30.5, 2, 0.0),
    ]  # fmt: skip
    assert 'rating' in scores.table()
    assert '30.5..30.5' in scores.table()
    bare = dataclasses.replace(data, ratings={})
    assert rules.score(predictions.find([tmp_path / 'p']), bare).by_rating == ()


def test_ratings_of_a_source_are_kept_with_the_test_puzzles(tmp_path):
    boards = sudoku.generate(4, 6, 4, np.random.default_rng(0))
    (tmp_path / 'csv').mkdir()
    for split, table in boards.items():
        rows = [
            (''.join(map(str, q)), ''.join(map(str, a)), str(k / 2))
            for k, (q, a) in enumerate(zip(table.questions, table.answers, strict=True))
        ]
        write_csv(tmp_path / 'csv' / f'{split}.csv', rows, header=('question', 'answer', 'rating'))
    out = tmp_path / 'data'
    sudoku.build(str(out), source=str(tmp_path / 'csv'), test_subsample_size=3, show=False)
    data = records.load(out, 'test')
    known = {q.tobytes(): k / 2 for k, q in enumerate(boards['test'].questions)}
    wanted = [known[(q - 1).astype(np.uint8).tobytes()] for q in data.sets['all'].inputs]
    assert data.ratings['all'].tolist() == wanted
    assert records.load(out, 'train').ratings == {}
    np.save(out / 'test' / records.ratings_file('all'), np.zeros(3, np.int32))
    with pytest.raises(DatasetError, match='a number for each of 3 examples'):
        records.load(out, 'test')


def test_random_identifiers_are_those_of_others():
    ids = np.arange(50, dtype=np.int32)
    other = identifiers.asked('random', ids, 50, seed=3)
    assert other[0] == 0
    assert (other[1:] != ids[1:]).all()
    assert other[1:].min() >= 1
    assert other.max() < 50
    assert identifiers.asked('random', jnp.asarray(ids), 50, 3).tolist() == other.tolist()
    assert identifiers.asked('random', ids, 50, seed=4).tolist() != other.tolist()
    assert not identifiers.asked('blank', ids, 50, 3).any()
    assert identifiers.asked('own', ids, 50, 3) is ids
    with pytest.raises(ConfigError, match='at least two puzzles; the model has 1'):
        identifiers.others(2, 0)


@pytest.mark.parametrize(('reads_them', 'share'), [(True, 0.0), (False, 1.0)])
def test_what_an_identifier_is_worth(tmp_path, monkeypatch, reads_them, share):
    arc_tree(tmp_path / 'raw')
    arc.build(str(tmp_path / 'data'), source=[str(tmp_path / 'raw')], num_aug=2, show=False)
    data = records.load(tmp_path / 'data', 'test')
    one = data.sets['all']
    inputs, labels = stored_examples(one, data.metadata, np.arange(one.num_examples))
    owners, _ = one.owners(np.arange(one.num_examples))
    answers = {
        (int(identifier) if reads_them else -1, question.tobytes()): label
        for identifier, question, label in zip(
            one.puzzle_identifiers[owners], inputs, labels, strict=True
        )
    }

    def make_eval_step(config, mesh):
        def step(weights, batch, seed, first):
            found = [
                answers.get(
                    (int(i) if reads_them else -1, np.asarray(q, inputs.dtype).tobytes()),
                    np.zeros(900),
                )
                for i, q in zip(batch.puzzle_identifiers, batch.inputs, strict=True)
            ]
            return types.SimpleNamespace(
                predictions=np.array(found, np.int32), q_halt=np.zeros(len(found), np.float32)
            )

        return step

    monkeypatch.setattr(eval_step, 'make_eval_step', make_eval_step)
    rows = data.metadata.num_puzzle_identifiers
    model = dataclasses.replace(MODEL, vocab_size=12, seq_len=900, num_puzzle_identifiers=rows)
    config = ExperimentConfig(model=model, eval=EvalConfig(global_batch_size=2))
    values = identifiers.worth(config, None, data, partitioning.make_mesh(config=config.mesh))
    names = [f'eval/all/arc/{rule}_{kind}_id@1' for kind in ('blank', 'random')
             for rule in ('hrm', 'trm')]  # fmt: skip
    assert values == dict.fromkeys(names, share)
    assert all(metrics.meaning(name) for name in names)
    blank = dataclasses.replace(config, eval=EvalConfig(identifiers='blank'))
    assert identifiers.worth(blank, None, data, None) == {}
