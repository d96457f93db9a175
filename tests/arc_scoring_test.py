"""ARC scoring: crops, undone augmentations, votes, both rules, what must not be accepted."""

import dataclasses
import json

import numpy as np
import pytest

from hrm_jax.cli import score
from hrm_jax.data import augment
from hrm_jax.data import puzzles as puzzles_lib
from hrm_jax.errors import PredictionError
from hrm_jax.scoring import arc, arc_names, predictions
from tests import commands

A, B, C = [[1, 2, 3]], [[4], [5]], [[6, 7], [8, 9]]
COLOURS = '0918273645'


def canvas(grid):
    tokens = np.zeros((30, 30), np.uint8)
    cells = np.asarray(grid, np.uint8)
    tokens[: cells.shape[0], : cells.shape[1]] = cells + 2
    return tokens.reshape(1, 900)


def augmented(grid, dihedral):
    """The grid as the builder writes it: recoloured, turned, with end markers."""
    cells = np.asarray(grid)
    maps = np.array([[dihedral, *map(int, COLOURS)]], np.uint8)
    return augment.place_arc(
        canvas(grid), np.array([cells.shape]), maps, np.zeros((1, 2), np.uint8)
    )


class Rows:
    """Builds the arrays of prediction rows."""

    def __init__(self):
        self.identifiers = ['<blank>']
        self.rows = []

    def add(self, name, question, truth, answer, q=0.0, dihedral=None, separator='_'):
        if dihedral is None:
            full, change = name, canvas
        else:
            full = f'{name}{separator}t{dihedral}{separator}{COLOURS}'
            change = lambda grid: augmented(grid, dihedral)  # noqa: E731
        if full not in self.identifiers:
            self.identifiers.append(full)
        index = self.identifiers.index(full)
        self.rows.append((index, *(change(g)[0] for g in (question, truth, answer)), q))
        return self

    def arrays(self, order=None):
        rows = self.rows if order is None else [self.rows[i] for i in order]
        columns = [np.array(column) for column in zip(*rows, strict=True)]
        names = ('puzzle_identifiers', 'inputs', 'labels', 'predictions', 'q_halt')
        return dict(zip(names, columns, strict=True))

    def result(self, order=None, test_puzzles=None):
        maps = arc_names.PuzzleMaps.from_identifiers(self.identifiers)
        scorer = arc.ArcScorer(maps, test_puzzles)
        scorer.add(**self.arrays(order))
        return scorer.result()


@pytest.mark.parametrize(
    ('rows', 'expected'),
    [
        (['235', '241', '111'], (2, 2)),
        (['23', '2', ''], (1, 2)),
        (['2', '2', '2'], (3, 1)),
        (['', '23'], (0, 0)),
        (['234', '20', '2'], (1, 3)),
        (['23', '1', '234567'], (1, 2)),
    ],
)
def test_crop_takes_the_first_largest_corner(rows, expected):
    tokens = np.zeros((1, 30, 30), np.int32)
    for index, row in enumerate(rows):
        tokens[0, index, : len(row)] = list(map(int, row))
    tokens[0, 20:] = 5  # what lies beyond the end does not matter
    assert tuple(arc.crop_extents(tokens.reshape(1, 900))[0]) == expected


def test_full_canvas_and_out_of_range_tokens():
    full = np.full((1, 900), 11)
    assert tuple(arc.crop_extents(full)[0]) == (30, 30)
    full[0, 3] = 12
    assert tuple(arc.crop_extents(full)[0]) == (30, 3)
    full[0, 0] = -100
    assert tuple(arc.crop_extents(full)[0]) == (0, 0)


def test_every_augmentation_is_undone():
    for dihedral in range(8):
        for grid in (A, B, C):
            maps = np.array([[dihedral, *map(int, COLOURS)]], np.uint8)
            inverse = augment.inverse_maps('arc', maps, 30)
            [back] = arc.undo(augmented(grid, dihedral), inverse)
            assert arc.to_rows(back) == grid
            assert back == arc.to_bytes(grid)


def test_names_may_hold_underscores_and_both_separators_are_read():
    names = ['<blank>', 'a_b', f'a_b_t3_{COLOURS}', f'a_b|||t3|||{COLOURS}', 'c_t9', 'c']
    maps = arc_names.PuzzleMaps.from_identifiers(names)
    assert maps.bases == ('a_b', 'c_t9', 'c')
    assert maps.base_of.tolist() == [-1, 0, 0, 0, 1, 2]
    assert maps.is_original.tolist() == [False, True, False, False, True, True]
    assert (maps.inverse[2] == maps.inverse[3]).all()
    assert maps.inverse[2][0] == 1


def voting_rows():
    """Puzzle x: B wins by votes, then A by halting, then C; puzzle y: one of two tests right."""
    rows = Rows()
    rows.add('x', A, C, B, q=-5).add('x', A, C, B, q=-5, dihedral=1)
    rows.add('x', A, C, A, q=2, dihedral=2).add('x', A, C, C, q=1, dihedral=3)
    rows.add('y', A, A, A).add('y', A, A, A, dihedral=6)
    rows.add('y', B, C, A).add('y', B, C, A, dihedral=6)
    return rows


def test_votes_first_then_halting_and_both_rules():
    result = voting_rows().result()
    assert result.puzzles['x'].first_right == (3,)
    assert result.puzzles['y'].first_right == (1, 0)
    assert result.hrm == {1: 0, 2: 0, 5: 0.5, 10: 0.5, 100: 0.5, 1000: 0.5}
    assert result.trm == {1: 0.25, 2: 0.25, 5: 0.75, 10: 0.75, 100: 0.75, 1000: 0.75}
    # Without votes: x answers B, y answers one of its two tests.
    assert (result.single_hrm[1000], result.single_trm[1000]) == (0, 0.25)
    assert result.submission['x'] == [{'attempt_1': B, 'attempt_2': A}]
    assert result.submission['y'][1] == {'attempt_1': A, 'attempt_2': A}


def test_order_and_splitting_of_rows_change_nothing():
    rows = voting_rows()
    expected = rows.result()
    order = np.random.default_rng(0).permutation(len(rows.rows))
    maps = arc_names.PuzzleMaps.from_identifiers(rows.identifiers)
    scorer = arc.ArcScorer(maps)
    for index in order:
        scorer.add(**rows.arrays([index]))
    assert scorer.result().puzzles.keys() == expected.puzzles.keys()
    assert scorer.result().hrm == expected.hrm
    assert scorer.result().trm == expected.trm


def test_two_checkpoints_add_their_votes():
    rows = voting_rows()
    maps = arc_names.PuzzleMaps.from_identifiers(rows.identifiers)
    scorer = arc.ArcScorer(maps)
    scorer.add(**rows.arrays())
    later = rows.arrays()
    later['predictions'] = later['labels']
    for _ in range(2):
        scorer.add(**later)
    assert scorer.result().hrm[1] == 1
    assert [s.tests for s in scorer.result().puzzles.values()] == [1, 2]


def test_truth_from_a_file_counts_puzzles_without_predictions():
    tests = {
        'x': {'test': [{'input': A, 'output': B}]},
        'z': {'test': [{'input': A, 'output': B}]},
        'open': {'test': [{'input': A}]},
    }
    rows = Rows().add('x', A, A, B)
    result = rows.result(test_puzzles=tests)
    assert result.missing == ('z', 'open')
    assert result.hrm[1] == 0.5
    assert result.submission['z'] == [{'attempt_1': [[0]], 'attempt_2': [[0]]}]
    assert 'open' not in result.puzzles


def test_padding_rows_do_not_count_whatever_they_hold():
    rows = voting_rows()
    arrays = rows.arrays()
    padded = {k: np.concatenate([v, v[:1]]) for k, v in arrays.items()}
    padded['puzzle_identifiers'][-1] = 0
    padded['q_halt'][-1] = np.nan
    scorer = arc.ArcScorer(arc_names.PuzzleMaps.from_identifiers(rows.identifiers))
    scorer.add(**padded)
    assert scorer.result().rows == len(rows.rows)
    assert scorer.result().trm == rows.result().trm


def _score(scorer, arrays):
    scorer.add(**arrays)
    return scorer.result()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda a: a['puzzle_identifiers'].__setitem__(0, 99), 'identifiers must be in 0..'),
        (lambda a: a['inputs'].__setitem__(1, canvas(C)[0]), 'must be a test of its puzzle'),
        (lambda a: a['puzzle_identifiers'].__setitem__(slice(None), 0), 'every row was padding'),
        (lambda a: a.__setitem__('labels', None), 'the truth must come from'),
    ],
)
def test_what_does_not_belong_together_is_an_error(change, message):
    rows = voting_rows()
    arrays = rows.arrays()
    change(arrays)
    scorer = arc.ArcScorer(arc_names.PuzzleMaps.from_identifiers(rows.identifiers))
    with pytest.raises(PredictionError, match=message):
        _score(scorer, arrays)


def test_stored_maps_score_like_names(tmp_path):
    rows = voting_rows()
    names = rows.identifiers[1:]
    parsed = arc_names.PuzzleMaps.from_identifiers(rows.identifiers)
    maps = augment.inverse_maps('arc', parsed.inverse[1:], 30)
    order = np.argsort(parsed.base_of[1:], kind='stable')
    counts = np.bincount(parsed.base_of[1:])
    puzzles = puzzles_lib.PuzzleSet(
        inputs=canvas(A), labels=canvas(A), names=parsed.bases, maps=maps[order],
        group_indices=np.concatenate([[0], np.cumsum(counts)]),
        puzzle_indices=np.arange(len(names) + 1), puzzle_first=np.zeros(len(names), int),
        puzzle_identifiers=(order + 1).astype(np.int32),
    )  # fmt: skip
    scorer = arc.ArcScorer(arc_names.PuzzleMaps.from_set(puzzles, len(rows.identifiers)))
    scorer.add(**rows.arrays())
    assert scorer.result().metrics() == rows.result().metrics()
    without = dataclasses.replace(puzzles, maps=None)
    with pytest.raises(PredictionError, match='identifiers'):
        arc_names.PuzzleMaps.from_set(without, len(rows.identifiers))


def test_command_merges_files_and_writes_the_submission(tmp_path, capsys):
    rows = voting_rows()
    (tmp_path / 'identifiers.json').write_text(json.dumps(rows.identifiers))
    for process in range(2):
        arrays = rows.arrays(range(process, len(rows.rows), 2))
        with predictions.Writer(tmp_path / 'run', 'all', {}, process, 2) as writer:
            writer.add(**arrays)
    arguments = ['arc', str(tmp_path / 'run'), '--submission', str(tmp_path / 's.json')]
    assert (
        commands.exit_code(score.main, *arguments, '--identifiers', tmp_path / 'identifiers.json')
        == 0
    )
    printed = json.loads(capsys.readouterr().out)
    assert printed['arc/trm_pass@5'] == 0.75
    assert printed['rows'] == 8
    assert json.loads((tmp_path / 's.json').read_text())['x'] == [{'attempt_1': B, 'attempt_2': A}]
    assert commands.exit_code(score.main, *arguments) == 1
    assert '--identifiers' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('tests', 'match'),
    [
        (None, 'must have a list test'),
        ([None], 'test 1 must have an input'),
        ([{'output': A}], 'test 1 must have an input'),
        ([{'input': A, 'output': 5}], 'test 1 must have grids of colours'),
        ([{'input': A}, {'input': [[1], [2, 3]]}], 'test 2 must have grids of colours'),
        ([{'input': [[10]]}], 'test 1 must have grids of colours'),
        ([{'input': [['a']]}], 'test 1 must have grids of colours'),
        ([{'input': [[300]]}], 'test 1 must have grids of colours'),
    ],
)
def test_odd_files_of_tests_name_puzzle_and_test(tests, match):
    maps = arc_names.PuzzleMaps.from_identifiers(['<blank>', 'p'])
    with pytest.raises(PredictionError, match=f"test_puzzles.json, puzzle 'p',? {match}"):
        arc.ArcScorer(maps, {'p': {'test': tests}})
    with pytest.raises(PredictionError, match='must have a list test'):
        arc.ArcScorer(maps, {'p': tests})


def test_tests_whose_answer_is_not_known_are_submitted_only():
    maps = arc_names.PuzzleMaps.from_identifiers(['<blank>', 'p', 'q'])
    tests = {'p': {'test': [{'input': A, 'output': None}]}, 'q': {'test': [{'input': B}]}}
    scorer = arc.ArcScorer(maps, tests)
    scorer.add(np.array([1]), canvas(A), None, canvas(C), np.zeros(1))
    result = scorer.result()
    assert result.puzzles == {}
    assert result.submission['p'] == [{'attempt_1': C, 'attempt_2': C}]
    assert result.missing == ('q',)
