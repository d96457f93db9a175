"""The vote on the answer to one ARC question, and the form in which a competition takes answers.

A grid travels as bytes: height, width, then the cells row by row as tokens (2 + colour).
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from hrm_jax.data import augment
from hrm_jax.errors import PredictionError

FIRST, LAST = augment.FIRST_COLOUR, augment.FIRST_COLOUR + augment.ARC_COLOURS - 1
NOTHING = bytes(2)  # a grid of 0 x 0
ATTEMPTS = ('attempt_1', 'attempt_2')
_SMALLEST = [[0]]  # what stands where there is no answer

# Name of a task -> one dict of ``ATTEMPTS`` per test input, rows of colours each.
Submission = dict[str, list[dict[str, list[list[int]]]]]


def to_bytes(grid: Sequence[Sequence[int]]) -> bytes:
    """Turns rows of colours into the form in which grids are compared."""
    cells = np.asarray(grid, np.uint8)
    if cells.ndim != 2:
        return NOTHING
    return bytes(cells.shape) + (cells + FIRST).tobytes()


def to_rows(grid: bytes) -> list[list[int]]:
    """Turns bytes back into rows of colours."""
    cells = np.frombuffer(grid, np.uint8, offset=2) - np.uint8(FIRST)
    return cells.reshape(grid[0], grid[1]).tolist()


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One answer that views gave.

    Attributes:
      answer: the grid as bytes.
      votes: views that gave it.
      confidence: mean halting probability of those views, 0..1.
    """

    answer: bytes
    votes: int
    confidence: float


class Votes:
    """Candidates for the answer to one question."""

    def __init__(self) -> None:
        # Answer -> [votes, sum of probabilities]; the order of arrival decides between candidates
        # that are equal in both.
        self._found: dict[bytes, list[float]] = {}

    def add(self, answer: bytes, confidence: float) -> None:
        """Counts one view."""
        entry = self._found.setdefault(answer, [0, 0.0])
        entry[0] += 1
        entry[1] += confidence

    def ranked(self) -> list[Candidate]:
        """All candidates, by votes and then by confidence."""
        found = [Candidate(a, int(n), total / n) for a, (n, total) in self._found.items()]
        return sorted(found, key=lambda one: (one.votes, one.confidence), reverse=True)

    def best(self) -> list[Candidate]:
        """The two best candidates that are grids; fewer where there are fewer."""
        return [one for one in self.ranked() if any(one.answer[:2])][: len(ATTEMPTS)]


def attempts(votes: Votes | None, grids_only: bool = True) -> dict[str, list[list[int]]]:
    """The two best candidates; a single one is given twice, none as the smallest grid.

    Args:
      votes: on one question; None: nothing was answered.
      grids_only: leaves out answers without cells, which no competition takes; False: as TRM's
        evaluators/arc.py.
    """
    chosen = [] if votes is None else votes.best() if grids_only else votes.ranked()[:2]
    best = [to_rows(one.answer) for one in chosen] or [_SMALLEST]
    return {ATTEMPTS[0]: best[0], ATTEMPTS[1]: best[-1]}


def check_submission(submission: Any, tests: Mapping[str, int]) -> None:
    """Checks a submission against the competition's form.

    Args:
      submission: parsed JSON.
      tests: name of every task that is asked for -> number of its test inputs.

    Raises:
      PredictionError: a task or a test is missing or too much, or an attempt is not a grid of 1 to
        30 rows of 1 to 30 colours; the first of them is named.
    """
    require = PredictionError.require
    require(isinstance(submission, Mapping), 'a submission must be a JSON object of tasks.')
    for name in [*tests, *submission]:
        require(
            name in submission and name in tests,
            f'a submission must have the tasks that are asked for; {name!r} is '
            f'{"not asked for" if name in submission else "missing"}.',
        )
        given = submission[name]
        require(
            isinstance(given, list) and len(given) == tests[name],
            f'task {name!r} must have a list of {tests[name]} answers, one per test input.',
        )
        for number, one in enumerate(given, 1):
            where = f'task {name!r}, test {number}'
            require(
                isinstance(one, Mapping) and set(one) == set(ATTEMPTS),
                f'{where} must have {" and ".join(ATTEMPTS)}, nothing else.',
            )
            for key in ATTEMPTS:
                require(
                    _is_grid(one[key]),
                    f'{where}, {key} must be 1 to 30 rows of one length, 1 to 30 colours 0 to 9.',
                )


def _is_grid(rows: Any) -> bool:
    side = augment.ARC_SIDE
    return (
        isinstance(rows, list)
        and 1 <= len(rows) <= side
        and all(isinstance(row, list) and 1 <= len(row) == len(rows[0]) <= side for row in rows)
        and all(type(c) is int and 0 <= c < augment.ARC_COLOURS for row in rows for c in row)
    )


@dataclasses.dataclass(frozen=True)
class SubmissionScore:
    """What a submission is worth.

    Attributes:
      score: mean over tasks of the share of tests with a right attempt, as the competition counts.
      solved: tasks of which every test has a right attempt.
      tasks: tasks with known answers.
      first: tests whose first attempt is right.
      right: tests with a right attempt.
      tests: tests with known answers.
    """

    score: float
    solved: int
    tasks: int
    first: int
    right: int
    tests: int


def score_submission(submission: Submission, truth: Mapping[str, Sequence[Any]]) -> SubmissionScore:
    """Counts what a submission has right.

    Args:
      submission: of the form that ``check_submission`` checks.
      truth: name of a task -> its answers, rows of colours each.
    """
    shares, solved, first, right, tests = [], 0, 0, 0, 0
    for name, answers in truth.items():
        given = submission[name]
        hits = [[one[key] == answer for key in ATTEMPTS]
                for one, answer in zip(given, answers, strict=True)]  # fmt: skip
        found = sum(any(one) for one in hits)
        first += sum(one[0] for one in hits)
        right, tests = right + found, tests + len(hits)
        solved += found == len(hits)
        shares.append(found / len(hits))
    score = float(np.mean(shares)) if shares else 0.0
    return SubmissionScore(score, solved, len(shares), first, right, tests)
