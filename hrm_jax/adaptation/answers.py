"""Answers of checkpoints to the views of every test, kept on disk; and the vote over them.

A pass is one view (an augmentation) of every test, answered by one checkpoint; it is one file, so
that a restart finds what was answered before. Passes are made in the order in which they help most:
the newest checkpoint first, the tasks as they stand first.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import math
from pathlib import Path
import time
from typing import Any

import jax
import numpy as np

from hrm_jax import files
from hrm_jax.data import puzzles as puzzles_lib
from hrm_jax.data.puzzles import PuzzleDataset, PuzzleSet
from hrm_jax.errors import PredictionError
from hrm_jax.inference.solver import Solver
from hrm_jax.scoring import arc, arc_names
from hrm_jax.scoring.arc_votes import Votes
from hrm_jax.types import Weights

_CHUNK = {'cpu': 8}  # questions that are answered at a time
_CHUNK_ELSEWHERE = 64
_FIELDS = ('example', 'tokens', 'confidence', 'steps')


@dataclasses.dataclass
class Ballot:
    """The vote on one test.

    Attributes:
      votes: its candidates.
      steps: ACT steps of every view.
    """

    votes: Votes = dataclasses.field(default_factory=Votes)
    steps: list[float] = dataclasses.field(default_factory=list)


class Answers:
    """Answers to the tests of one split.

    Args:
      folder: where they are kept.
      dataset: the split.
      views: versions of each test that vote; 0: all.
    """

    def __init__(self, folder: Path, dataset: PuzzleDataset, views: int):
        self._folder, self._dataset = folder, dataset
        [self._set] = dataset.sets.values()
        maps = arc_names.find(dataset)
        assert maps is not None  # of a set of our builder
        self._maps = maps
        most = int(np.diff(self._set.group_indices).max())
        self.views = min(views or most, most)
        self._chunk = _CHUNK.get(jax.default_backend(), _CHUNK_ELSEWHERE)
        self.seconds = math.inf  # of one chunk, once one was answered without compiling
        self._compiled = False

    @property
    def chunks(self) -> int:
        """Chunks of all passes of one checkpoint."""
        sizes = (len(view_examples(self._set, view)) for view in range(self.views))
        return sum(-(-size // self._chunk) for size in sizes)

    def measure(self, solver: Solver) -> None:
        """Times one chunk; the first call compiles, the second one is timed."""
        examples = view_examples(self._set, 0)[: self._chunk]
        for _ in range(2):
            self._timed(solver, examples)

    def complete(self, step: int) -> bool:
        """Whether a checkpoint has answered every view."""
        return all(self._path(step, view).exists() for view in range(self.views))

    def answer(self, solver: Solver, step: int, weights: Weights, deadline: float) -> bool:
        """Answers every view with one checkpoint, as far as the time goes.

        Args:
          solver: compiled for these weights' model.
          step: of the checkpoint.
          weights: of the checkpoint.
          deadline: of ``time.monotonic()``.

        Returns:
          Whether all views are answered.
        """
        solver.weights = jax.device_put(weights, jax.tree.leaves(solver.weights)[0].sharding)
        for view in range(self.views):
            if not self._path(step, view).exists() and not self._pass(solver, step, view, deadline):
                return False
        return True

    def _pass(self, solver: Solver, step: int, view: int, deadline: float) -> bool:
        examples, found = view_examples(self._set, view), []
        for start in range(0, len(examples), self._chunk):
            needed = 0.0 if math.isinf(self.seconds) else 1.5 * self.seconds
            if time.monotonic() + needed > deadline:
                break
            found.append(self._timed(solver, examples[start : start + self._chunk]))
        done = sum(map(len, (part['example'] for part in found)))
        if found:
            joined: dict[str, Any] = {
                name: np.concatenate([part[name] for part in found]) for name in _FIELDS
            }
            path = self._path(step, view, whole=done == len(examples))
            with files.replacing(path) as beside, open(beside, 'wb') as file:
                np.savez(file, **joined)
        return done == len(examples)

    def _timed(self, solver: Solver, examples: np.ndarray) -> dict[str, np.ndarray]:
        began = time.monotonic()
        found = self._solve(solver, examples)
        if self._compiled:
            self.seconds = time.monotonic() - began
        self._compiled = True
        return found

    def _solve(self, solver: Solver, examples: np.ndarray) -> dict[str, np.ndarray]:
        # One shape for all calls: the last chunk is filled up with its first question.
        asked = np.concatenate(
            [examples, np.repeat(examples[:1], self._chunk - len(examples), axis=0)]
        )
        questions, _ = puzzles_lib.stored_examples(self._set, self._dataset.metadata, asked)
        owners, _ = self._set.owners(asked)
        found = solver.solve(
            list(questions.astype(np.int32)),
            identifiers=self._set.puzzle_identifiers[owners],
            early_exit=solver.config.eval.halting == 'adaptive',
        )[: len(examples)]
        return {
            'example': examples.astype(np.int64),
            'tokens': np.stack([one.answer for one in found]).astype(np.uint8),
            'confidence': np.array([one.confidence or 0.0 for one in found], np.float64),
            'steps': np.array([one.steps for one in found], np.float64),
        }

    def _path(self, step: int, view: int, whole: bool = True) -> Path:
        return self._folder / f'step_{step}' / f'view_{view:05d}{"" if whole else "-part"}.npz'

    def ballots(self, steps: Sequence[int]) -> dict[str, dict[int, Ballot]]:
        """Counts the votes of some checkpoints.

        Args:
          steps: of the checkpoints.

        Returns:
          Name of a task -> number of a test within it -> its ballot.

        Raises:
          PredictionError: a file of answers is damaged.
        """
        found: dict[str, dict[int, Ballot]] = {}
        for rows in self._rows(steps):
            owners, within = self._set.owners(rows['example'])
            ids = self._set.puzzle_identifiers[owners]
            grids = arc.undo(rows['tokens'], self._maps.inverse[ids])
            for row, grid in enumerate(grids):
                name = self._maps.bases[self._maps.base_of[ids[row]]]
                ballot = found.setdefault(name, {}).setdefault(int(within[row]), Ballot())
                ballot.votes.add(grid, float(rows['confidence'][row]))
                ballot.steps.append(float(rows['steps'][row]))
        return found

    def _rows(self, steps: Sequence[int]) -> Iterator[dict[str, np.ndarray]]:
        for step in steps:
            for view in range(self.views):
                whole, part = (self._path(step, view, whole) for whole in (True, False))
                path = whole if whole.exists() else part
                if not path.exists():
                    continue
                try:
                    with np.load(path) as archive:
                        rows = {name: archive[name] for name in _FIELDS}
                except Exception as error:  # numpy and zipfile raise many kinds for damaged files
                    raise PredictionError(
                        f'{path} must hold the answers of one view; {error}. Remove it, and it is '
                        f'answered again.'
                    ) from error
                yield rows

    def truth(self) -> dict[str, list[bytes]]:
        """The answers that the split itself has, in the order of its tests."""
        found = {}
        for group, name in enumerate(self._set.names):
            first = int(self._set.group_indices[group])
            rows = np.arange(*self._set.puzzle_indices[first : first + 2])
            _, labels = puzzles_lib.stored_examples(self._set, self._dataset.metadata, rows)
            identity = self._maps.inverse[self._set.puzzle_identifiers[[first]]]
            found[name] = arc.undo(labels, np.repeat(identity, len(rows), axis=0))
        return found


def view_examples(puzzles: PuzzleSet, view: int) -> np.ndarray:
    """The examples of one version of every task: int64; tasks with fewer versions have none."""
    owned = puzzles.group_indices[:-1] + view
    owned = owned[owned < puzzles.group_indices[1:]]
    ranges = [np.arange(*puzzles.puzzle_indices[p : p + 2]) for p in owned.tolist()]
    return np.concatenate(ranges) if ranges else np.zeros(0, np.int64)


Log = Callable[[str], None]
