"""Order of the training examples: pure functions of a seed.

Semantics of the original's puzzle_dataset.py with its quirks fixed: ONE generator for
everything, keyed by seed and epoch; an endless stream of epochs, so every batch is full and
a run of N steps has exactly N batches.

* An epoch visits every group once, in random order; a visit draws one of the group's puzzles
  uniformly and takes its examples in random order.
* Batches are taken from the visits one after the other, across epochs. The examples of a visit
  that do not fit into a batch are dropped; the next batch starts with the next visit.
* The order depends on the seed, the batch size and the data, never on the number of
  processes: each process takes its rows from the same global batch.
"""

import dataclasses
from typing import Any

import numpy as np

from hrm_jax.data.puzzles import DatasetMetadata, PuzzleSet
from hrm_jax.errors import ConfigError

_PURPOSES = {'order': 0, 'augment': 1, 'hints': 2}


def generator(seed: int, purpose: str, index: int) -> np.random.Generator:
    """The stream of random numbers for one purpose and one epoch or batch."""
    key = np.random.SeedSequence([seed, _PURPOSES[purpose], index])
    return np.random.Generator(np.random.Philox(key))


def total_steps(metadata: DatasetMetadata, epochs: int, global_batch_size: int) -> int:
    """Returns the length of a run as the original counts it.

    Raises:
      ConfigError: the run would not fill one batch.
    """
    examples = epochs * metadata.total_groups * metadata.mean_puzzle_examples
    steps = int(examples / global_batch_size)
    if steps < 1:
        raise ConfigError(
            f'train.epochs={epochs} of {metadata.total_groups} groups are {examples:g} examples '
            f'and fill no batch of {global_batch_size}. Raise train.epochs or lower '
            f'train.global_batch_size.'
        )
    return steps


@dataclasses.dataclass(frozen=True)
class EpochPlan:
    """One epoch.

    Attributes:
      examples: int64 [X], examples in the order of the visits.
      visit_starts: int64 [G + 1], where each visit begins in ``examples``.
    """

    examples: np.ndarray
    visit_starts: np.ndarray


def epoch_plan(
    seed: int, epoch: int, group_indices: np.ndarray, puzzle_indices: np.ndarray
) -> EpochPlan:
    """Draws one epoch from group and puzzle offsets (int64 [G + 1] and [U + 1])."""
    rng = generator(seed, 'order', epoch)
    groups = rng.permutation(len(group_indices) - 1)
    first, sizes = group_indices[groups], np.diff(group_indices)[groups]
    puzzles = first + (rng.random(len(groups)) * sizes).astype(np.int64)
    counts = np.diff(puzzle_indices)[puzzles]
    starts = np.concatenate([[0], np.cumsum(counts)])
    if starts[-1] == len(counts):  # one example each: nothing to order within a visit
        return EpochPlan(puzzle_indices[puzzles], starts)
    visits = np.repeat(np.arange(len(counts)), counts)
    examples = puzzle_indices[puzzles][visits] + np.arange(starts[-1]) - starts[visits]
    order = np.lexsort((rng.random(len(examples)), visits))
    return EpochPlan(examples[order], starts)


@dataclasses.dataclass
class Position:
    """Where the stream of batches stands; small, and JSON-able as ``dataclasses.asdict``.

    Attributes:
      epoch: the epoch that the next batch starts in.
      visit: the next visit of that epoch.
      batches: batches drawn.
      examples: examples drawn by all processes.
    """

    epoch: int = 0
    visit: int = 0
    batches: int = 0
    examples: int = 0


class BatchPlan:
    """Endless stream of global batches, as example numbers.

    Sets of a split are numbered one after the other, as one pool of groups.

    Raises:
      ConfigError: an empty batch.
    """

    def __init__(self, sets: list[PuzzleSet], global_batch_size: int, seed: int):
        if global_batch_size < 1:
            raise ConfigError(f'the batch size must be at least 1; got {global_batch_size}.')
        self.batch_size, self.seed = global_batch_size, seed
        self.group_indices = _concatenate_offsets([s.group_indices for s in sets])
        self.puzzle_indices = _concatenate_offsets([s.puzzle_indices for s in sets])
        self.position = Position()
        self._plan: tuple[int, EpochPlan] | None = None

    def _epoch(self, epoch: int) -> EpochPlan:
        if self._plan is None or self._plan[0] != epoch:
            plan = epoch_plan(self.seed, epoch, self.group_indices, self.puzzle_indices)
            self._plan = (epoch, plan)
        return self._plan[1]

    def __next__(self) -> np.ndarray:
        """Returns int64 [B], the examples of the next global batch."""
        at = dataclasses.replace(self.position)
        parts, room = [], self.batch_size
        while room:
            plan = self._epoch(at.epoch)
            start = int(plan.visit_starts[at.visit])
            part = plan.examples[start : start + room]
            parts.append(part)
            room -= len(part)
            at.visit = int(np.searchsorted(plan.visit_starts, start + len(part)))
            if at.visit >= len(plan.visit_starts) - 1:
                at.epoch, at.visit = at.epoch + 1, 0
        at.batches += 1
        at.examples += self.batch_size
        self.position = at
        return np.concatenate(parts)

    def get_state(self) -> dict[str, Any]:
        return {
            **dataclasses.asdict(self.position),
            'seed': self.seed,
            'global_batch_size': self.batch_size,
            'groups': len(self.group_indices) - 1,
            'puzzles': len(self.puzzle_indices) - 1,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to a saved position, at the cost of drawing one epoch's order.

        Another batch size than the saved one resumes at the same visit.

        Raises:
          ConfigError: the state belongs to other data or another seed.
        """
        own = self.get_state()
        for key in ('seed', 'groups', 'puzzles'):
            if state.get(key) != own[key]:
                raise ConfigError(
                    f'the saved data position has {key}={state.get(key)} and this run has '
                    f'{own[key]}. Resume with the same seed and data set, or start a new workdir.'
                )
        fields = (f.name for f in dataclasses.fields(Position))
        self.position = Position(**{name: int(state[name]) for name in fields})


def _concatenate_offsets(parts: list[np.ndarray]) -> np.ndarray:
    ends = np.cumsum([0] + [part[-1] for part in parts])
    return np.concatenate([[0]] + [p[1:] + e for p, e in zip(parts, ends, strict=False)])
