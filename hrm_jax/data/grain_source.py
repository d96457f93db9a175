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


class _Prefetched:
    """Hands on the items of a grain iterator and lets go of it before the program ends.

    Left to the interpreter's shutdown, grain's iterator would be closed after its modules
    are gone, and print it on the console.
    """

    def __init__(self, iterator: grain.DatasetIterator):
        self._iterator: grain.DatasetIterator | None = iterator
        reference = weakref.ref(self)
        atexit.register(lambda: (one := reference()) and one.close())

    def __iter__(self) -> '_Prefetched':
        return self

    def __next__(self) -> Any:
        return next(self._open)

    def get_state(self) -> dict[str, Any]:
        return self._open.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        self._open.set_state(state)

    @property
    def _open(self) -> grain.DatasetIterator:
        assert self._iterator is not None, 'batches are asked for after the end of the program'
        return self._iterator

    def close(self) -> None:
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None


def prefetching(batches: Any, buffer_size: int) -> _Prefetched:
    """Returns an iterator that makes ``buffer_size`` batches ahead in a thread of grain's.

    Its state is that of the batches handed out, not of those made ahead.
    """
    dataset = grain.experimental.ThreadPrefetchIterDataset(
        BatchDataset(batches), prefetch_buffer_size=buffer_size
    )
    return _Prefetched(iter(dataset))
