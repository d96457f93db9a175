"""Mazes with one path of a given length."""

import numpy as np
import pytest

from data_builders import maze
from hrm_jax.errors import BuildError
from hrm_jax.tasks import Maze


def test_paths_are_single_and_as_long_as_asked():
    tables = maze.generate(11, 12, 4, np.random.default_rng(1), paths=(14, 20))
    task = Maze(121, len(Maze.symbols))
    for table in tables.values():
        for question, answer in zip(table.questions, table.answers, strict=True):
            assert 14 <= task.difficulty(question) <= 20
            assert task.count_shortest_paths(question) == 1
            assert all(task.judge(question, answer).values())
    free = maze.generate(11, 12, 4, np.random.default_rng(1))['train']
    lengths = [task.difficulty(question) for question in free.questions]
    assert min(lengths) < 14 or max(lengths) > 20  # without limits they are not kept


def test_impossible_lengths_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    with pytest.raises(BuildError, match='in this order; got 9, 4'):
        maze.generate(9, 2, 1, rng, paths=(9, 4))
    with pytest.raises(BuildError, match=r'not 3 different .*size 5 with paths of 90 to any'):
        maze.generate(5, 2, 1, rng, paths=(90, None))
    with pytest.raises(BuildError, match='are of generated mazes'):
        maze.build(str(tmp_path / 'data'), source=str(tmp_path), min_path=3, show=False)
