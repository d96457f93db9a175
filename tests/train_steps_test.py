"""Several steps in one call are the same steps, each with its metrics."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from hrm_jax import partitioning, train, train_state, train_step
from hrm_jax.checkpoint import layout
from tests import commands, tiny_run
from tests.train_step_test import CONFIG, STEPS, batches


@pytest.fixture(scope='module', autouse=True)
def _compiled():
    with commands.quick_compiles():
        yield


def test_steps_in_one_call_are_those_of_single_calls():
    mesh = partitioning.make_mesh()
    given = [partitioning.put_global(batch, mesh) for batch in batches()]
    state, found = train_state.create(CONFIG, mesh), []
    step = train_step.make_train_step(CONFIG, STEPS, mesh)
    for batch in given:
        state, sums = step(state, batch)
        found.append(sums)

    many = train_step.make_train_steps(CONFIG, STEPS, mesh)
    other, first = many(train_state.create(CONFIG, mesh), tuple(given[:4]))
    other, second = many(other, (given[4],))
    other, third = many(other, (given[5],))

    assert many._cache_size() == 2  # four at once, and single ones
    everything = ((*first, *second, *third), dataclasses.replace(other, rng=None))
    for one, two in zip(
        jax.tree.leaves(everything),
        jax.tree.leaves((tuple(found), dataclasses.replace(state, rng=None))),
        strict=True,
    ):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
    assert len({float(sums.lm_loss) for sums in found}) == STEPS


def test_a_run_logs_every_step_and_saves_where_it_should(tmp_path):
    data = tiny_run.write_dataset(tmp_path / 'data')
    records = {}
    for count in (1, 4):
        settings = {'max_steps': 10, 'steps_per_dispatch': count}
        config = tiny_run.config(data, train=settings, checkpoint={'every_steps': 5},
                                 model={'forward_dtype': 'float32'})  # fmt: skip
        folder = tmp_path / str(count)
        train.train(config, folder)
        lines = (folder / 'metrics.jsonl').read_text().splitlines()
        records[count] = [json.loads(line) for line in lines]
        assert layout.steps(folder) == [5, 10]
    assert [r['step'] for r in records[4]] == list(range(1, 11))
    for one, other in zip(records[1], records[4], strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-5)
