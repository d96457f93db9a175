"""The order of training examples."""

import dataclasses
import json

import numpy as np
import pytest

from hrm_jax.data import sampling
from hrm_jax.data.puzzles import DatasetMetadata, PuzzleSet
from hrm_jax.errors import ConfigError


def _grouped(seed: int = 0, groups: int = 7, max_puzzles: int = 4, max_examples: int = 5):
    """A set of groups of different sizes whose stored examples are the examples."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, max_puzzles + 1, groups)
    group_indices = np.concatenate([[0], np.cumsum(sizes)])
    counts = rng.integers(1, max_examples + 1, sizes.sum())
    puzzle_indices = np.concatenate([[0], np.cumsum(counts)])
    examples = np.arange(puzzle_indices[-1])[:, None] % 250
    return PuzzleSet(
        inputs=examples.astype(np.uint8),
        labels=examples.astype(np.uint8),
        group_indices=group_indices,
        puzzle_indices=puzzle_indices,
        puzzle_first=puzzle_indices[:-1],
        puzzle_identifiers=np.arange(len(counts), dtype=np.int32),
    )


def _batches(plan, count):
    return [next(plan) for _ in range(count)]


@pytest.mark.parametrize('batch_size', [1, 3, 8, 64])
def test_visits_follow_the_rules(batch_size):
    puzzles = _grouped()
    plan = sampling.BatchPlan([puzzles], batch_size, seed=3)
    visits = []  # groups in the order of their visits, over all batches
    for batch in _batches(plan, 200):
        assert batch.shape == (batch_size,)
        owners = np.searchsorted(puzzles.puzzle_indices, batch, side='right') - 1
        place = 0
        while place < batch_size:
            owner = owners[place]
            size = np.diff(puzzles.puzzle_indices)[owner]
            taken = batch[place : place + size]
            run = taken[owners[place : place + size] == owner]
            # Distinct examples of one puzzle, all of them unless the batch ends.
            assert len(set(run)) == len(run)
            assert len(run) == min(size, batch_size - place)
            visits.append(np.searchsorted(puzzles.group_indices, owner, side='right') - 1)
            place += len(run)
    groups = puzzles.num_groups
    for start in range(0, len(visits) - groups + 1, groups):
        assert sorted(visits[start : start + groups]) == list(range(groups))


def test_epochs_differ_and_seeds_repeat():
    puzzles = _grouped(groups=30)
    first, again, other = (sampling.BatchPlan([puzzles], 8, seed=s) for s in (5, 5, 6))
    a, b, c = (np.concatenate(_batches(p, 40)) for p in (first, again, other))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    plans = [
        sampling.epoch_plan(5, e, puzzles.group_indices, puzzles.puzzle_indices) for e in (0, 1)
    ]
    assert not np.array_equal(plans[0].examples[:8], plans[1].examples[:8])


def test_examples_of_a_visit_come_in_any_order():
    puzzles = _grouped(groups=1, max_puzzles=1, max_examples=9, seed=4)
    count = puzzles.num_examples
    assert count > 2
    plan = sampling.BatchPlan([puzzles], count, seed=0)
    assert len({tuple(batch) for batch in _batches(plan, 50)}) > 5


def test_every_puzzle_of_a_group_comes_up():
    puzzles = _grouped(groups=2, max_puzzles=4)
    plan = sampling.BatchPlan([puzzles], 16, seed=0)
    assert set(np.concatenate(_batches(plan, 100))) == set(range(puzzles.num_examples))


@pytest.mark.parametrize('done', [0, 1, 13])
def test_resume_from_json(done):
    puzzles = _grouped()
    straight = sampling.BatchPlan([puzzles], 8, seed=1)
    want = _batches(straight, done + 20)[done:]
    stopped = sampling.BatchPlan([puzzles], 8, seed=1)
    _batches(stopped, done)
    resumed = sampling.BatchPlan([puzzles], 8, seed=1)
    resumed.set_state(json.loads(json.dumps(stopped.get_state())))
    np.testing.assert_array_equal(want, _batches(resumed, 20))
    assert resumed.get_state() == straight.get_state()
    assert straight.position.examples == (done + 20) * 8


def test_resume_refuses_other_data():
    state = sampling.BatchPlan([_grouped()], 8, seed=1).get_state()
    with pytest.raises(ConfigError, match='groups'):
        sampling.BatchPlan([_grouped(groups=8)], 8, seed=1).set_state(state)
    with pytest.raises(ConfigError, match='seed'):
        sampling.BatchPlan([_grouped()], 8, seed=2).set_state(state)


def test_total_steps():
    metadata = DatasetMetadata(11, 81, 1, total_groups=1000, mean_puzzle_examples=1.5)
    assert sampling.total_steps(metadata, epochs=10, global_batch_size=768) == 19
    with pytest.raises(ConfigError, match='fill no batch'):
        sampling.total_steps(dataclasses.replace(metadata, total_groups=2), 10, 768)
