"""Graph colouring: rules, solutions, equal graphs, and a set without leaks."""

import numpy as np
import pytest

from data_builders import colouring
from hrm_jax import tasks
from hrm_jax.data import records
from hrm_jax.errors import BuildError, PuzzleError

KIND = tasks.kind_of('colouring')
TASK = KIND(9, 7)  # three vertices, three colours
TRIANGLE = 'r11\n1g1\n11.'  # the third must be blue


def test_rules_of_questions_and_answers():
    question, answer = TASK.parse(TRIANGLE), TASK.parse('r11\n1g1\n11b')
    assert TASK.is_valid(question, answer)
    assert not TASK.is_valid(question, question)  # a vertex is open
    assert not TASK.is_valid(question, np.where(np.arange(9) == 8, 4, answer))  # red beside red
    assert not TASK.is_valid(question, np.where(np.arange(9) == 1, 1, answer))  # an edge is gone
    swapped = TASK.parse('g11\n1r1\n11b')
    assert not TASK.is_valid(question, swapped)  # given colours have changed
    assert TASK.text(answer) == 'r111g111b'
    with pytest.raises(PuzzleError, match='vertices 1 and 2 are joined and have one colour'):
        TASK.parse('r10\n1r0\n00.')
    with pytest.raises(PuzzleError, match='row 1, column 2 must equal row 2, column 1'):
        TASK.parse('r10\n0g0\n00.')
    with pytest.raises(PuzzleError, match=r"row 1, column 1 must be one of '\.' 'r' 'g' 'b'; got"):
        TASK.parse('y00\n0r0\n00g')
    with pytest.raises(PuzzleError, match=r"row 1, column 2 must be one of '0' '1'; got 'r'"):
        TASK.parse('rr0\nrg0\n00.')


def test_a_valid_colouring_need_not_be_the_label():
    path = TASK.parse('.10\n1g1\n01.')  # each end is red or blue
    label, other = TASK.parse('r10\n1g1\n01b'), TASK.parse('b10\n1g1\n01r')
    assert (label != other).any()
    assert TASK.judge(path, label) == TASK.judge(path, other) == {'valid': True}
    assert TASK.judge(label, other) == {'valid': False}
    assert TASK.difficulty(path) == 2


def test_solutions_are_counted():
    assert TASK.count_solutions(TASK.parse(TRIANGLE)) == 1
    assert TASK.count_solutions(TASK.parse('.10\n1g1\n01.'), limit=9) == 4
    assert TASK.count_solutions(TASK.parse('.11\n1.1\n11.'), limit=9) == 6
    assert TASK.count_solutions(TASK.parse('.00\n0.0\n00.'), limit=99) == 27
    assert TASK.count_solutions(TASK.parse('.11\n1.1\n11.'), max_nodes=1) is None
    two = KIND(9, 6)
    assert two.count_solutions(two.parse('.11\n1.1\n11.')) == 0


def test_equal_graphs_share_their_invariant_whatever_their_numbers():
    rng = np.random.default_rng(0)
    joined = np.triu(rng.random((9, 9)) < 0.4, 1)
    joined |= joined.T
    for _ in range(5):
        order = rng.permutation(9)
        assert colouring.invariant(joined[np.ix_(order, order)]) == colouring.invariant(joined)
    other = joined.copy()
    other[0, 1] = other[1, 0] = not other[0, 1]
    assert colouring.invariant(other) != colouring.invariant(joined)


def test_a_set_has_one_answer_each_and_no_graph_on_both_sides(tmp_path):
    settings = {'vertices': 6, 'train_count': 30, 'test_count': 10, 'show': False}
    manifest = colouring.build(str(tmp_path / 'data'), **settings)
    assert manifest['notes']['leaks']['equal'] == 0
    graphs = {}
    for split in ('train', 'test'):
        data = records.load(tmp_path / 'data', split)
        task, puzzles = data.metadata.task_of(), data.sets['all']
        assert (data.metadata.task, data.metadata.vocab_size) == ('colouring', 7)
        for question, answer in zip(puzzles.inputs, puzzles.labels, strict=True):
            assert task.is_valid(question, answer)
            assert task.count_solutions(question) == 1
            assert task.difficulty(question) >= 3
        boards = puzzles.labels.reshape(-1, 6, 6)
        off = ~np.eye(6, dtype=bool)
        graphs[split] = {colouring.invariant((board == KIND.JOINED) & off) for board in boards}
    assert not graphs['train'] & graphs['test']


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'vertices': 3}, r'--vertices must be in 4\.\.30; got 3'),
        ({'colours': 5}, r'--colours must be in 2\.\.4; got 5'),
        ({'edge_prob': 0.0}, '--edge-prob must be above 0'),
        ({'min_open': 10}, r'--min-open must be in 1\.\.9; got 10'),
        ({'vertices': 4, 'min_open': 2, 'train_count': 9999}, 'only .* were found, not'),
        ({'test_count': 0}, 'must be at least 1'),
    ],
)
def test_impossible_settings_are_refused(tmp_path, monkeypatch, changes, message):
    monkeypatch.setattr(colouring, '_MISSES', 50)
    with pytest.raises(BuildError, match=message):
        colouring.build(str(tmp_path / 'data'), show=False, **changes)
    assert not (tmp_path / 'data').exists()
