"""The training batches as a grain dataset; imported only where grain is installed."""

import atexit
from typing import Any
import weakref

import grain


class _Iterator(grain.DatasetIterator):
    def __init__(self, batches: Any):
        super().__init__()
        self._batches = batches

    def __next__(self) -> Any:
        return next(self._batches)

    def get_state(self) -> dict[str, Any]:
        return self._batches.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        self._batches.set_state(state)


class BatchDataset(grain.IterDataset):
    """An item is a whole batch: a pipeline of single examples is too slow for one accelerator."""

    def __init__(self, batches: Any):
        super().__init__()
        self._batches = batches

    def __iter__(self) -> grain.DatasetIterator:
        return _Iterator(self._batches)


def prefetching(batches: Any, buffer_size: int) -> grain.DatasetIterator:
    """Returns a grain iterator that makes ``buffer_size`` batches ahead in a thread.

    Its state is that of the batches handed out, not of those made ahead.
    """
    dataset = BatchDataset(batches)
    iterator = iter(
        grain.experimental.ThreadPrefetchIterDataset(dataset, prefetch_buffer_size=buffer_size)
    )
    # Its thread must end before the interpreter takes grain's modules apart.
    reference = weakref.ref(iterator)
    atexit.register(lambda: (it := reference()) and it.close())
    return iterator
