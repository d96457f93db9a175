"""Batches for fixed halting: each one stays until its rows have had all their ACT steps.

Under ``act.halting=fixed`` all rows take and leave their puzzles together, and a train step in
between ignores what comes in. Handing out the same batch again keeps an epoch an epoch.
"""

from typing import Any

from hrm_jax.data.pipeline import BatchIterator
from hrm_jax.types import Batch


class HeldBatches:
    """Hands out every batch of an iterator several times in a row.

    The position is that of the iterator before the batch at hand, and how often that was given.
    """

    def __init__(self, batches: BatchIterator, times: int):
        self._batches = batches
        self._times = times
        self._before: dict[str, Any] = batches.get_state()
        self._batch: Batch | None = None
        self._given = times

    def __iter__(self) -> 'HeldBatches':
        return self

    def __next__(self) -> Batch:
        if self._given == self._times:
            self._before = self._batches.get_state()
            self._batch, self._given = next(self._batches), 0
        self._given += 1
        return self._batch

    def get_state(self) -> dict[str, Any]:
        done = self._given == self._times
        before = self._batches.get_state() if done else self._before
        return {**before, 'given': 0 if done else self._given}

    def set_state(self, state: dict[str, Any]) -> None:
        state = dict(state)
        given = state.pop('given', 0)
        if given >= self._times:
            raise ValueError(
                f'the saved position is inside a batch that was to be given more than {given} '
                f'times; now it is {self._times}. Keep act.halt_max_steps as it was.'
            )
        self._batches.set_state(state)
        self._before, self._given = state, self._times
        for _ in range(given):
            next(self)


def hold(batches: BatchIterator, times: int) -> BatchIterator:
    """Returns an iterator that gives every batch ``times`` times."""
    return batches if times == 1 else HeldBatches(batches, times)
