"""Solving one ARC task file: several views of each test, answers voted on."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from hrm_jax.data import augment
from hrm_jax.errors import PuzzleError
from hrm_jax.inference.solver import Solver
from hrm_jax.scoring import arc
from hrm_jax.scoring.arc_names import PuzzleMaps
from hrm_jax.scoring.arc_votes import Votes, to_rows


@dataclasses.dataclass(frozen=True)
class ArcAnswer:
    """Answers to one test of a task.

    Attributes:
      question: rows of colours.
      attempts: the two best answers, rows of colours each.
      votes: views that gave them.
      confidence: mean halting probability of those views.
      steps: mean ACT steps of all views.
      right: whether the first attempt is the task's own answer; None: it states none.
      right_attempt: the attempt that is the task's own answer, from 1; 0: neither; None: it
        states none.
    """

    question: list[list[int]]
    attempts: list[list[list[int]]]
    votes: list[int]
    confidence: list[float]
    steps: float
    right: bool | None
    right_attempt: int | None = None


def solve_task(
    solver: Solver,
    task: Mapping[str, Any],
    name: str = '',
    maps: PuzzleMaps | None = None,
    samples: int = 1,
    steps: int = 0,
    seed: int = 0,
) -> tuple[list[ArcAnswer], bool]:
    """Answers every test of a task.

    The model knows a task by its rows in the puzzle table. For one that it was trained on
    (``name`` in ``maps``) the views are its trained augmentations; for any other they are
    random ones with the blank row, and the model can only guess.

    Args:
      solver: with an ARC checkpoint.
      task: parsed JSON with ``test`` pairs.
      name: of the task, usually the file's stem.
      maps: the puzzles that the model was trained on.
      samples: views of each test.
      steps: longest run in ACT steps; 0: as trained.
      seed: of random views.

    Returns:
      The answers, and whether the model knows the task.

    Raises:
      PuzzleError: the task is malformed; the pair and cell are named.
    """
    side = solver.task.side
    tests = [_grid(pair, 'input', index, side) for index, pair in enumerate(_tests(task))]
    identifiers, inverse = _views(name, maps, samples, seed)
    forward = augment.inverse_maps('arc', inverse, side)  # the inverse of the way back
    answers = []
    for grid, pair in zip(tests, _tests(task), strict=True):
        canvas = np.zeros((len(forward), side, side), np.uint8)
        canvas[:, : grid.shape[0], : grid.shape[1]] = grid + augment.FIRST_COLOUR
        extents = np.tile(np.array(grid.shape), (len(forward), 1))
        corner = np.zeros((len(forward), 2), np.uint8)
        views = augment.place_arc(canvas.reshape(-1, side * side), extents, forward, corner)
        found = solver.solve(list(views), steps=steps, identifiers=identifiers)
        grids = arc.undo(np.stack([one.answer for one in found]), inverse)
        votes = Votes()
        for answer, one in zip(grids, found, strict=True):
            votes.add(answer, one.confidence or 0.0)
        best = votes.best() or votes.ranked()[:1]
        attempts = [to_rows(candidate.answer) for candidate in best]
        truth = pair.get('output')
        answers.append(
            ArcAnswer(
                question=grid.tolist(),
                attempts=attempts,
                votes=[candidate.votes for candidate in best],
                confidence=[candidate.confidence for candidate in best],
                steps=float(np.mean([one.steps for one in found])),
                right=None if truth is None else attempts[0] == truth,
                right_attempt=None
                if truth is None
                else attempts.index(truth) + 1
                if truth in attempts
                else 0,
            )
        )
    return answers, bool(identifiers.any())


def _tests(task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    tests = task.get('test') if isinstance(task, Mapping) else None
    if not isinstance(tests, list) or not tests:
        raise PuzzleError('an ARC task must be a JSON object with a list "test" of pairs.')
    return tests


def _grid(pair: Any, field: str, index: int, side: int) -> np.ndarray:
    where = f'test pair {index + 1}, {field}'
    rows = pair.get(field) if isinstance(pair, Mapping) else None
    if not isinstance(rows, list) or not 1 <= len(rows) <= side:
        raise PuzzleError(f'{where} must be a list of 1 to {side} rows.')
    for r, row in enumerate(rows):
        if not isinstance(row, list) or not 1 <= len(row) <= side or len(row) != len(rows[0]):
            raise PuzzleError(f'{where}, row {r + 1} must have as many cells as row 1, 1..{side}.')
        for c, cell in enumerate(row):
            if type(cell) is not int or not 0 <= cell < augment.ARC_COLOURS:
                raise PuzzleError(
                    f'{where}, row {r + 1}, column {c + 1} must be a colour 0..9; got {cell!r}.'
                )
    return np.array(rows, np.uint8)


def _views(name, maps, samples, seed) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the puzzle table and the maps back, the task as it stands first."""
    if maps is not None and name in maps.bases:
        known = np.flatnonzero(maps.base_of == maps.bases.index(name))
        known = sorted(known, key=lambda i: not maps.is_original[i])[:samples]
        return np.array(known, np.int32), maps.inverse[known]
    uniforms = np.random.default_rng(seed).random((samples, augment.ARC_COLOURS), np.float32)
    inverse = augment.random_maps('arc', uniforms, augment.ARC_SIDE).astype(np.uint8)
    inverse[0] = augment.identity_map('arc', augment.ARC_SIDE)
    return np.zeros(samples, np.int32), inverse
