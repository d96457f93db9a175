"""Running kernels without their hardware: slowly, step by step, through XLA."""

from collections.abc import Iterator
import contextlib
import contextvars

_interpreted: contextvars.ContextVar[bool] = contextvars.ContextVar('interpreted', default=False)


def is_on() -> bool:
    return _interpreted.get()


@contextlib.contextmanager
def interpreted() -> Iterator[None]:
    """Functions traced inside run their kernels in Pallas's interpreter, on any platform.

    For tests of the kernels' arithmetic. Functions that were compiled before keep what they
    were compiled with.
    """
    token = _interpreted.set(True)
    try:
        yield
    finally:
        _interpreted.reset(token)
