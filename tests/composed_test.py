"""Composed puzzle embeddings: sums of rows for a task and the factors of its augmentation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip('tensorflow_datasets')
pytest.importorskip('array_record')

from hrm_jax import optim
from hrm_jax.adaptation import adapt, task_files
from hrm_jax.adaptation.settings import Settings
from hrm_jax.checkpoint import compatible
from hrm_jax.config import ModelConfig
from hrm_jax.config.model import FACTOR_ROWS
from hrm_jax.data import augment, factors, records
from hrm_jax.errors import CheckpointError, ConfigError, DatasetError
from hrm_jax.interop import formats
from hrm_jax.model import puzzle_table
from hrm_jax.run import build_data
from hrm_jax.types import Weights
from tests import tiny_run
from tests.adaptation_test import tiny
from tests.arc_tasks_test import save, task

CONTENT = {'aa': task(1, pairs=3), 'bb': task(3)}


@pytest.fixture(scope='module')
def splits(tmp_path_factory):
    root = tmp_path_factory.mktemp('composed')
    asked = task_files.read(str(save(root / 'x.json', CONTENT)))
    adapt.write_tasks(root / 'tasks', {'tasks': asked.tasks})
    build_data.build_arc(root / 'tasks', root / 'set', num_aug=4, seed=0, test_subsets=())
    return [records.load(str(root / 'set'), split) for split in ('train', 'predict')]


def test_an_identifier_is_made_of_its_task_and_its_map(splits):
    found, tasks = factors.of_data(splits)
    [one] = splits[0].sets.values()
    assert found.shape == (1 + one.num_puzzles, 12)
    assert tasks == 2
    assert not found[0].any()  # the blank identifier
    np.testing.assert_array_equal(
        found[one.puzzle_identifiers, 0] - FACTOR_ROWS, np.repeat([0, 1], [5, 5])
    )
    assert found.max() < FACTOR_ROWS + tasks
    plain = found[one.puzzle_identifiers[one.group_indices[:-1]]]
    assert (plain[:, 1] == 1).all()  # the identity
    assert (plain[:, 2:] == 9 + 11 * np.arange(10)).all()
    # All maps, and no two with the same rows.
    rng = np.random.default_rng(0)
    maps = augment.random_maps('arc', rng.random((500, 10), np.float32), 30)
    rows = factors.of_maps(np.zeros(500, int), np.unique(maps, axis=0))
    assert len(np.unique(rows, axis=0)) == len(rows)
    assert rows[:, 1:].min() >= 1
    assert rows[:, 1:].max() < FACTOR_ROWS


def weights(splits, size=3):
    found, tasks = factors.of_data(splits)
    table = np.random.default_rng(1).normal(size=(FACTOR_ROWS + tasks, size)).astype(np.float32)
    return Weights({}, {puzzle_table.FACTORS: jnp.array(found)}, jnp.array(table)), found, table


def test_a_vector_is_the_sum_of_its_rows_and_each_row_gets_its_gradient(splits):
    composed, found, table = weights(splits)
    ids = jnp.array([1, 4, 6])
    vectors = puzzle_table.puzzle_rows(composed, ids)
    np.testing.assert_allclose(vectors, table[found[np.array(ids)]].sum(1), rtol=1e-6)

    def loss(table):
        rows = puzzle_table.puzzle_rows(composed.replace(puzzle_table=table), ids)
        return (rows**3).sum()

    rows, of_rows = puzzle_table.row_gradients(composed, ids, 3 * vectors**2)
    summed = np.zeros_like(table)
    np.add.at(summed, np.array(rows), np.array(of_rows))
    np.testing.assert_allclose(summed, jax.grad(loss)(composed.puzzle_table), rtol=1e-5)
    update = optim.row_sparse_sign_sgd(lambda _: jnp.float32(0.5), 0.0)
    changes, _ = update.update(
        optim.RowGradients(rows, of_rows), update.init(None), composed.puzzle_table
    )
    after = optim.apply_row_updates(composed.puzzle_table, changes)
    np.testing.assert_allclose(after, table - 0.5 * np.sign(summed), rtol=1e-6)


def test_without_composition_rows_and_gradients_are_what_they_were():
    table = jnp.arange(12.0).reshape(4, 3)
    plain, ids, given = Weights({}, {}, table), jnp.array([2, 2, 0]), jnp.ones((3, 3))
    np.testing.assert_array_equal(puzzle_table.puzzle_rows(plain, ids), table[ids])
    assert puzzle_table.row_gradients(plain, ids, given) == (ids, given)


def test_sizes_follow_from_the_setting():
    model = ModelConfig(
        puzzle_embedding='composed', puzzle_tasks=960, num_puzzle_identifiers=876412
    )
    assert model.embedding_rows == model.table_rows == 1069
    assert ModelConfig(num_puzzle_identifiers=876412).embedding_rows == 876412
    with pytest.raises(ConfigError, match=r'needs model\.puzzle_emb_ndim'):
        ModelConfig(puzzle_embedding='composed', puzzle_emb_ndim=0)
    with pytest.raises(ConfigError, match='must state a puzzle_tasks above 0'):
        ModelConfig(puzzle_embedding='composed').for_dataset(
            vocab_size=12, seq_len=900, num_puzzle_identifiers=3
        )


def test_only_sets_with_maps_can_be_composed(tmp_path):
    folder = tiny_run.write_dataset(tmp_path / 'data')
    with pytest.raises(DatasetError, match='composed needs the maps'):
        factors.of_data([records.load(str(folder), 'train')])


@pytest.mark.parametrize('choice', ['mean', 'zeros', 'overlap'])
def test_factors_stay_when_tasks_change(choice):
    old = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    new = compatible.resize_table(old, 7, choice, same_puzzles=False, kept=3)
    np.testing.assert_array_equal(new[:3], old[:3])
    if choice == 'mean':
        np.testing.assert_allclose(new[3:], np.tile(old[3:].mean(0), (4, 1)), rtol=1e-6)
    elif choice == 'zeros':
        assert not new[3:].any()


def test_a_model_trains_and_adapts_with_composed_embeddings(tmp_path):
    config = tiny()
    config = dataclasses.replace(
        config, model=dataclasses.replace(config.model, puzzle_embedding='composed')
    )
    lines = []

    def run(name, content, origin, **settings):
        asked = task_files.read(str(save(tmp_path / f'{name}.json', content)))
        settings = Settings(steps=2, augmentations=2, folds=0, checkpoints=1, views=1, **settings)
        adapt.run(
            asked, origin, settings, tmp_path / name, tmp_path / 'sub.json', 0.0, lines.append
        )
        return formats.open_model(tmp_path / name / 'final' / 'run')[0]

    first = run('first', CONTENT, adapt.Origin(config))
    assert first.weights.puzzle_table.shape == (FACTOR_ROWS + 2, 8)
    assert any('puzzle table' in line and f'{(FACTOR_ROWS + 2) * 8:,}' in line for line in lines)
    moved = np.abs(first.weights.puzzle_table).max(1) > 0
    assert moved[1:9].any()
    assert moved[9:FACTOR_ROWS].any()
    assert moved[FACTOR_ROWS:].any()
    assert not moved[0]
    origin = adapt.from_checkpoint(str(tmp_path / 'first' / 'final' / 'run'))
    second = run('second', {'cc': task(5)}, origin, adapt='table')
    assert second.weights.puzzle_table.shape == (FACTOR_ROWS + 1, 8)
    change = second.weights.puzzle_table[:FACTOR_ROWS] - first.weights.puzzle_table[:FACTOR_ROWS]
    assert 0 < np.abs(change).max() <= 0.021  # two steps of sign-SGD, not another table
    # An augmentation that nothing was trained on has a vector: that of its parts.
    unseen = factors.of_maps(np.zeros(1, int), np.array([[7, 0, 9, 8, 7, 6, 5, 4, 3, 2, 1]]))
    asked = second.weights.replace(constants={puzzle_table.FACTORS: jnp.array(unseen)})
    assert np.abs(np.array(puzzle_table.puzzle_rows(asked, jnp.array([0])))).max() > 0
    with pytest.raises(CheckpointError, match='Save it as orbax'):
        formats.save(second, tmp_path / 'out', 'torch')
