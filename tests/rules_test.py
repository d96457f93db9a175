"""Scores by the rules: each measure differs from exact match where it must, worked out by hand."""

import json

import numpy as np
import pytest

from hrm_jax import metrics
from hrm_jax.cli import score
from hrm_jax.data import pipeline, puzzles, records
from hrm_jax.errors import PuzzleError
from hrm_jax.scoring import predictions, rules
from hrm_jax.tasks import Maze, PathFinding, Sudoku
from hrm_jax.tasks.nqueens import NQueens
from tests import commands

OPEN = 'S  ', '   ', '  G'
LABEL = 'Soo', '  o', '  G'
OTHER = 'S  ', 'o  ', 'ooG'  # as short
LONG = 'So ', 'oo ', 'ooG'  # leads there, with needless marks
BROKEN = 'So ', '   ', ' oG'
THROUGH = 'S#G', '   ', '   '


def maze(rows) -> np.ndarray:
    return Maze.encode('\n'.join(rows))


def task_of(board: np.ndarray) -> Maze:
    return Maze(len(board), len(Maze.symbols))


@pytest.mark.parametrize(
    ('answer', 'valid', 'shortest'),
    [
        (LABEL, True, True), (OTHER, True, True), (LONG, True, False), (BROKEN, False, False),
        (OPEN, False, False),
    ],
)  # fmt: skip
def test_a_maze_is_judged_by_its_walls_and_not_by_its_label(answer, valid, shortest):
    question = maze(OPEN)
    judged = task_of(question).judge(question, maze(answer))
    assert judged == {'valid_path': valid, 'shortest_path': shortest}


def test_a_path_through_a_wall_or_over_moved_ends_is_not_valid():
    question = maze(THROUGH)
    for answer in (('SoG', '   ', '   '), ('S#o', '  G', '   '), ('ooS', '   ', '  G')):
        assert not any(task_of(question).judge(question, maze(answer)).values())
    around = maze(('S#G', 'ooo', '   '))
    assert all(task_of(question).judge(question, around).values())
    beside = maze((' SG', '   ', '   '))  # neighbours: no mark is needed, and one is too many
    assert all(task_of(beside).judge(beside, beside).values())
    marked = maze(('oSG', '   ', '   '))
    assert task_of(beside).judge(beside, marked) == {'valid_path': True, 'shortest_path': False}


def test_shortest_paths_are_counted():
    for rows, count, length in (
        (OPEN, 6, 4), (THROUGH, 1, 4), (('SG', '  '), 1, 1), (('S#', '#G'), 0, -1),
        (('S   ', ' ## ', ' ## ', '   G'), 2, 6),
        # 3 ways to the bridge, and 3 on
        (('S  ##', '   ##', '## ##', '##   ', '##  G'), 9, 8),
    ):  # fmt: skip
        board = maze(rows)
        assert task_of(board).count_shortest_paths(board) == count, rows
        assert task_of(board).difficulty(board) == length, rows
    large = np.full(900, Maze.FLOOR)
    large[[0, 899]] = Maze.START, Maze.END
    assert task_of(large).count_shortest_paths(large) == 30067266499541040  # 58 over 29
    with pytest.raises(PuzzleError, match='there must be one S'):
        task_of(large).difficulty(np.full(900, Maze.FLOOR))


def test_a_valid_board_need_not_be_the_label():
    sudoku = Sudoku(16, 6)
    question = Sudoku.encode([[0] * 4] * 4)
    one = Sudoku.encode([[1, 2, 3, 4], [3, 4, 1, 2], [2, 1, 4, 3], [4, 3, 2, 1]])
    other = Sudoku.encode([[4, 3, 2, 1], [2, 1, 4, 3], [3, 4, 1, 2], [1, 2, 3, 4]])
    assert (one != other).any()
    assert sudoku.judge(question, one) == sudoku.judge(question, other) == {'valid': True}
    assert sudoku.judge(one, other) == {'valid': False}  # all are given, and changed
    assert (sudoku.difficulty(question), sudoku.difficulty(one)) == (0, 16)
    queens = NQueens(16, 3)
    empty = np.full(16, 1)
    first, second = empty.copy(), empty.copy()
    first[[1, 7, 8, 14]] = second[[2, 4, 11, 13]] = 2
    assert queens.judge(empty, first) == queens.judge(empty, second) == {'valid': True}
    assert queens.judge(first, second) == {'valid': False}
    assert queens.difficulty(first) == 4
    assert PathFinding(9, 5).judged == ('valid_path', 'shortest_path')


@pytest.fixture(scope='module')
def mazes():
    """Five mazes in memory: one of 4 moves four times, and one of 1 move."""
    near = ('SG ', '   ', '   ')
    inputs = np.stack([maze(rows) for rows in (OPEN, OPEN, OPEN, OPEN, near)])
    labels = np.stack([maze(rows) for rows in (LABEL, LABEL, LABEL, LABEL, near)])
    metadata = puzzles.DatasetMetadata(
        vocab_size=6, seq_len=9, num_puzzle_identifiers=1, total_groups=5,
        mean_puzzle_examples=1.0, task='maze',
    )  # fmt: skip
    one = puzzles.PuzzleSet.of_examples(inputs.astype(np.uint8), labels.astype(np.uint8))
    return puzzles.PuzzleDataset(metadata, {'all': one})


def write(folder, answers, example, **facts):
    with predictions.Writer(folder, 'all', {'split': 'test'} | facts) as writer:
        writer.add(predictions=np.stack(answers).astype(np.uint8), example=np.array(example))
    return folder


def test_measures_standard_errors_and_bands(tmp_path, mazes):
    answers = [maze(rows) for rows in (LABEL, OTHER, LONG, BROKEN, ('SG ', '   ', '   '))]
    folder = write(tmp_path / 'p', answers, range(5))
    scores = rules.score(predictions.find([folder]), mazes)
    assert scores.shares == {'exact': 0.4, 'valid_path': 0.8, 'shortest_path': 0.6}
    assert scores.errors['valid_path'] == pytest.approx((0.8 * 0.2 / 5) ** 0.5)
    assert scores.difficulty == 'path_length'
    assert [(one.low, one.high, one.puzzles) for one in scores.bands] == [(1, 1, 1), (4, 4, 4)]
    assert scores.bands[1].shares == {'exact': 0.25, 'valid_path': 0.75, 'shortest_path': 0.5}
    logged = []
    values = rules.score_folder(folder, mazes, False, logged.append)
    assert values['eval/all/shortest_path'] == 0.6
    assert values['eval/all/exact_accuracy_stderr'] == pytest.approx((0.24 / 5) ** 0.5)
    assert 'all by path_length' in logged[0]
    assert all(metrics.meaning(name) for name in values)


def test_missing_answers_are_wrong_unless_only_a_part_was_asked_for(tmp_path, mazes):
    found = predictions.find([write(tmp_path / 'p', [maze(OTHER)] * 2, [0, 2])])
    scores = rules.score(found, mazes)
    assert (scores.puzzles, scores.missing, scores.shares['shortest_path']) == (5, 3, 0.4)
    part = rules.score(found, mazes, only_answered=True)
    assert (part.puzzles, part.missing, part.shares['shortest_path']) == (2, 0, 1.0)


def test_the_command_scores_a_folder_on_disk(tmp_path, mazes, capsys):
    folder = tmp_path / 'data'
    for split in ('train', 'test'):
        (folder / split).mkdir(parents=True)
        one = mazes.sets['all']
        arrays = {
            'inputs': one.inputs, 'labels': one.labels, 'puzzle_identifiers': np.zeros(5, np.int32),
            'puzzle_indices': np.arange(6), 'group_indices': np.arange(6),
        }  # fmt: skip
        for name, values in arrays.items():
            np.save(folder / split / f'all__{name}.npy', values)
        (folder / split / 'dataset.json').write_text(mazes.metadata.to_json())
    assert records.load(folder, 'test').metadata.task == 'maze'
    answers = write(tmp_path / 'p', [maze(OTHER)] * 4, range(4), data=str(folder))
    assert commands.exit_code(score.main, 'rules', answers) == 0
    out, err = capsys.readouterr()
    values = json.loads(out)
    assert values['shares'] == {'exact': 0.0, 'valid_path': 0.8, 'shortest_path': 0.8}
    assert values['missing'] == 1
    assert 'counted as wrong: 1' in err
    part = write(
        tmp_path / 'q', [maze(OTHER)] * 4, range(4), data=str(folder), subset='random4-seed0'
    )
    assert commands.exit_code(score.main, 'rules', part) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)['shares']['valid_path'] == 1.0
    assert 'all others do not count' in err


def test_a_subset_is_drawn_by_its_own_seed():
    one = puzzles.PuzzleSet.of_examples(np.zeros((100, 4)), np.zeros((100, 4)))
    first = pipeline.eval_examples(one, drawn=(10, 0))
    assert len(set(first.tolist())) == 10
    assert (np.diff(first) > 0).all()
    assert first.tolist() != list(range(10))
    assert first.tolist() == pipeline.eval_examples(one, drawn=(10, 0)).tolist()
    assert first.tolist() != pipeline.eval_examples(one, drawn=(10, 1)).tolist()
    assert pipeline.eval_examples(one, drawn=(500, 0)).tolist() == list(range(100))
    assert pipeline.eval_examples(one, 7).tolist() == list(range(7))
