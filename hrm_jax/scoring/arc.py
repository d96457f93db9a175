"""ARC scoring: undo the augmentation of every answer, vote, count what is solved.

Two rules are in use. HRM (arc_eval.ipynb of sapientinc/HRM): a puzzle counts when all of its
tests are solved. TRM (evaluators/arc.py of TinyRecursiveModels): a puzzle counts by the
share of its tests that are solved. Both look at the first K distinct candidates of a test,
ordered by votes and then by the mean halting probability (arc_votes.py, which also states how a
grid travels as bytes).
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any

import numpy as np

from hrm_jax.data import augment
from hrm_jax.errors import PredictionError
from hrm_jax.scoring.arc_names import PuzzleMaps
from hrm_jax.scoring.arc_votes import FIRST as _FIRST
from hrm_jax.scoring.arc_votes import LAST as _LAST
from hrm_jax.scoring.arc_votes import NOTHING as _NOTHING
from hrm_jax.scoring.arc_votes import Votes, attempts, to_bytes, to_rows

__all__ = ['ArcResult', 'ArcScorer', 'PuzzleScore', 'crop_extents', 'to_bytes', 'to_rows', 'undo']

KS = (1, 2, 5, 10, 100, 1000)
_REPORTED = (1, 2)  # of these the log has standard errors


def crop_extents(tokens_BS: np.ndarray) -> np.ndarray:
    """Finds the answered grid: int32 [B, 2], height and width from the top left corner.

    Walking down, the width is the smallest leading run of colours so far; the rows by width
    of the largest area win, the first of equal ones. No colour in the corner: (0, 0).

    Args:
      tokens_BS: [B, S], a square canvas; end markers, padding and anything else end a run.
    """
    side = math.isqrt(tokens_BS.shape[1])
    grid = tokens_BS.reshape(-1, side, side)
    other = (grid < _FIRST) | (grid > _LAST)
    run = np.where(other.any(2), other.argmax(2), side).astype(np.int32)
    width = np.minimum.accumulate(run, axis=1)
    area = width * np.arange(1, side + 1, dtype=np.int32)
    best = area.argmax(1)
    width = np.take_along_axis(width, best[:, None], 1)[:, 0]
    return np.stack([np.where(width > 0, best + 1, 0), width], 1).astype(np.int32)


def undo(tokens_BS: np.ndarray, inverse_BM: np.ndarray) -> list[bytes]:
    """Crops each row's grid and undoes its augmentation; returns grids as bytes."""
    extents = crop_extents(tokens_BS)
    cells = tokens_BS.astype(np.uint8)
    corner = np.zeros((len(cells), 2), np.uint8)
    side = math.isqrt(tokens_BS.shape[1])
    canvas = augment.place_arc(cells, extents, inverse_BM, corner).reshape(-1, side, side)
    swapped = augment.SWAPS_SIDES[inverse_BM[:, 0]][:, None]
    sides = np.where(swapped, extents[:, ::-1], extents).tolist()
    return [
        bytes((h, w)) + grid[:h, :w].tobytes() for grid, (h, w) in zip(canvas, sides, strict=True)
    ]


def _tests_of(name: str, puzzle: Any) -> list[tuple[bytes, bytes | None]]:
    """Returns the tests of a puzzle of test_puzzles.json: input, and the answer if it is known."""
    if not isinstance(puzzle, Mapping) or not isinstance(puzzle.get('test'), list):
        raise PredictionError(f'test_puzzles.json, puzzle {name!r} must have a list test.')
    found = []
    for number, pair in enumerate(puzzle['test'], start=1):
        where = f'test_puzzles.json, puzzle {name!r}, test {number}'
        PredictionError.require(
            isinstance(pair, Mapping) and pair.get('input') is not None,
            f'{where} must have an input.',
        )
        try:
            grids = [
                to_bytes(pair[key]) for key in ('input', 'output') if pair.get(key) is not None
            ]
        except (ValueError, TypeError, OverflowError):  # ragged, texts, numbers beyond a byte
            grids = [_NOTHING]
        PredictionError.require(
            all(len(grid) > 2 and max(grid[2:]) <= _LAST for grid in grids),
            f'{where} must have grids of colours 0 to 9: rows of one length.',
        )
        found.append((grids[0], grids[1] if len(grids) > 1 else None))
    return found


@dataclasses.dataclass(frozen=True)
class PuzzleScore:
    """One puzzle.

    Attributes:
      tests: number of its test grids.
      first_right: for each test the place of the truth among its candidates, from 1; 0: nowhere.
    """

    tests: int
    first_right: tuple[int, ...]

    def solved(self, k: int) -> int:
        """Number of tests whose truth is among the first ``k`` candidates."""
        return sum(0 < place <= k for place in self.first_right)


@dataclasses.dataclass(frozen=True)
class ArcResult:
    """Scores of a set of predictions.

    Attributes:
      hrm, trm: K -> share of puzzles in 0..1, by either rule, with votes.
      single_hrm, single_trm: the same from the rows without augmentation alone.
      puzzles: name -> score with votes.
      submission: name -> one dict ``attempt_1``, ``attempt_2`` per test, as the competition
        wants it.
      missing: puzzles without any prediction, and single tests (``NAME, test K``) without one;
        they count as not solved.
      rows: predictions used.
    """

    hrm: dict[int, float]
    trm: dict[int, float]
    single_hrm: dict[int, float]
    single_trm: dict[int, float]
    puzzles: dict[str, PuzzleScore]
    submission: dict[str, list[dict[str, list[list[int]]]]]
    missing: tuple[str, ...]
    rows: int

    def metrics(self) -> dict[str, float]:
        """Returns the scores under flat names, for the logs; none where nothing was scored."""
        if not self.puzzles:
            return {'arc/puzzles': 0, 'arc/missing': len(self.missing)}
        named = {'hrm_pass': self.hrm, 'trm_pass': self.trm,
                 'hrm_single': self.single_hrm, 'trm_single': self.single_trm}  # fmt: skip
        # pass@1 and pass@2 first: the competition grants two attempts.
        values: dict[str, float] = {}
        for k in _REPORTED:
            for rule, by_k in (('hrm_pass', self.hrm), ('trm_pass', self.trm)):
                values[f'arc/{rule}@{k}'] = by_k[k]
                values[f'arc/{rule}_stderr@{k}'] = self._standard_error(k, rule == 'trm_pass')
        values |= {f'arc/{name}@{k}': v for name, by_k in named.items() for k, v in by_k.items()}
        return values | {'arc/puzzles': len(self.puzzles), 'arc/missing': len(self.missing)}

    def _standard_error(self, k: int, fractional: bool) -> float:
        """Standard error of a pass@k over puzzles, from the spread of what each contributes."""
        solved = np.array([_credit(one, k, fractional) for one in self.puzzles.values()])
        return float(solved.std() / np.sqrt(len(solved)))


# (puzzle, input grid) -> the vote on its answer.
_Questions = dict[tuple[int, bytes], Votes]


# Name of a puzzle -> (question, answer) of each of its tests.
Truth = Mapping[str, Sequence[tuple[bytes, bytes | None]]]


class ArcScorer:
    """Collects predictions, in any order and from any number of files and checkpoints.

    Args:
      maps: what each puzzle identifier stands for.
      test_puzzles: name -> {'test': [{'input': grid, 'output': grid}, ...]} of every puzzle
        that counts (a TRM folder's test_puzzles.json).
      truth: the same as grids in bytes: name -> (question, answer) of each test; an answer of None
        is not known, and its puzzle does not count. Neither of the two: the truth is taken from the
        labels of the rows without augmentation, and puzzles without rows do not count.
    """

    def __init__(
        self,
        maps: PuzzleMaps,
        test_puzzles: Mapping[str, Any] | None = None,
        truth: Truth | None = None,
    ):
        self._maps = maps
        self._votes: _Questions = {}
        self._single: _Questions = {}
        self._rows = 0
        if test_puzzles is not None:
            truth = {name: _tests_of(name, puzzle) for name, puzzle in test_puzzles.items()}
        self._from_rows = truth is None
        # puzzle -> its tests in order, as (input grid, answer)
        self._truth: dict[int, list[tuple[bytes, bytes | None]]] = {}
        self._names = list(maps.bases)
        places = {name: index for index, name in enumerate(self._names)}
        for name, tests in (truth or {}).items():
            if name not in places:
                places[name] = len(self._names)
                self._names.append(name)
            self._truth[places[name]] = list(tests)

    def add(
        self,
        puzzle_identifiers: np.ndarray,
        inputs: np.ndarray,
        labels: np.ndarray | None,
        predictions: np.ndarray,
        q_halt: np.ndarray,
    ) -> None:
        """Counts rows; those with an identifier of no puzzle are padding.

        Args:
          puzzle_identifiers: int [B].
          inputs: int [B, S].
          labels: int [B, S], or None when the truth is known already.
          predictions: int [B, S].
          q_halt: float [B], logits.

        Raises:
          PredictionError: an identifier beyond the table, or no labels where they are needed.
        """
        ids = np.asarray(puzzle_identifiers)
        if ids.size and not 0 <= ids.min() <= ids.max() < len(self._maps.base_of):
            raise PredictionError(
                f'puzzle identifiers must be in 0..{len(self._maps.base_of) - 1}; got '
                f'{ids.min()}..{ids.max()}. Give the data set that the predictions were made on.'
            )
        keep = self._maps.base_of[ids] >= 0
        ids = ids[keep]
        if not ids.size:
            return
        bases, inverse = self._maps.base_of[ids].tolist(), self._maps.inverse[ids]
        originals = self._maps.is_original[ids]
        questions = undo(np.asarray(inputs)[keep], inverse)
        answers = undo(np.asarray(predictions)[keep], inverse)
        # Halting logits of padding rows may be anything, so the mask comes first.
        halt = _sigmoid(np.asarray(q_halt, np.float64)[keep]).tolist()
        for base, question, answer, q in zip(bases, questions, answers, halt, strict=True):
            _vote(self._votes, (base, question), answer, q)
        for row in np.flatnonzero(originals):
            _vote(self._single, (bases[row], questions[row]), answers[row], halt[row])
        if self._from_rows:
            self._learn_truth(bases, questions, originals, labels, keep, inverse)
        self._rows += len(ids)

    def _learn_truth(self, bases, questions, originals, labels, keep, inverse) -> None:
        rows = np.flatnonzero(originals)
        if labels is None:
            raise PredictionError(
                'the truth must come from test_puzzles.json or from labels; the predictions '
                'have none. Give the data set, or save labels (eval.save_outputs).'
            )
        truth = undo(np.asarray(labels)[keep][rows], inverse[rows])
        for row, answer in zip(rows, truth, strict=True):
            tests = self._truth.setdefault(bases[row], [])
            # A question to predict has no label that counts: it is answered, not scored.
            answer = None if answer == _NOTHING else answer
            if (questions[row], answer) not in tests:  # several checkpoints bring it again
                tests.append((questions[row], answer))

    def result(self) -> ArcResult:
        """Scores what was collected.

        Raises:
          PredictionError: there is no row at all, or a row's input is not a test of its puzzle.
        """
        self._check()
        counted = {p: tests for p, tests in self._truth.items() if all(t[1] for t in tests)}
        voted, single = (
            {self._names[p]: _score(p, tests, votes) for p, tests in counted.items()}
            for votes in (self._votes, self._single)
        )
        return ArcResult(
            hrm=_share(voted, fractional=False),
            trm=_share(voted, fractional=True),
            single_hrm=_share(single, fractional=False),
            single_trm=_share(single, fractional=True),
            puzzles=voted,
            submission={
                self._names[p]: [
                    attempts(self._votes.get((p, question)), grids_only=False)
                    for question, _ in tests
                ]
                for p, tests in self._truth.items()
            },
            missing=tuple(name for p in self._truth for name in self._missing(p)),
            rows=self._rows,
        )

    def _missing(self, puzzle: int) -> list[str]:
        """What of a puzzle nobody has answered: its name, or those of single tests."""
        tests, name = self._truth[puzzle], self._names[puzzle]
        lacking = [k for k, (question, _) in enumerate(tests, 1)
                   if (puzzle, question) not in self._votes]  # fmt: skip
        return [name] if len(lacking) == len(tests) else [f'{name}, test {k}' for k in lacking]

    def _check(self) -> None:
        if not self._rows:
            raise PredictionError('there must be predictions to score; every row was padding.')
        known = {(p, question) for p, tests in self._truth.items() for question, _ in tests}
        strange = [key for key in self._votes if key not in known]
        if strange:
            names = sorted({self._names[base] for base, _ in strange})
            what = 'a row without augmentation' if self._from_rows else 'the set that was asked for'
            raise PredictionError(
                f'the input of every row must be a test of its puzzle in {what}; '
                f'{len(strange)} are not (of {", ".join(names[:5])}). The predictions are '
                f'incomplete, or were made on another data set.'
            )


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -logits))


def _vote(votes: _Questions, key: tuple[int, bytes], answer: bytes, q: float) -> None:
    votes.setdefault(key, Votes()).add(answer, q)


def _score(puzzle: int, tests: list[tuple[bytes, bytes | None]], votes: _Questions) -> PuzzleScore:
    places = []
    for question, answer in tests:
        ranked = [one.answer for one in votes.get((puzzle, question), Votes()).ranked()]
        places.append(ranked.index(answer) + 1 if answer in ranked else 0)
    return PuzzleScore(len(tests), tuple(places))


def _credit(score: PuzzleScore, k: int, fractional: bool) -> float:
    """What a puzzle contributes to pass@k, 0..1."""
    solved = score.solved(k)
    return solved / score.tests if fractional else float(solved == score.tests)


def _share(scores: dict[str, PuzzleScore], fractional: bool) -> dict[int, float]:
    shares = {}
    for k in KS:
        solved = [_credit(one, k, fractional) for one in scores.values()]
        shares[k] = float(sum(solved) / len(solved)) if solved else 0.0
    return shares
