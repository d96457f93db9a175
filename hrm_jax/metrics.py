"""Metrics from sums: the numbers that are logged; only here are metrics divided.

The train and eval steps return ``Sums``; here they become ``clu.metrics`` collections, which
merge over steps, batches and sets and divide once, at the end.
"""

from collections.abc import Callable
import dataclasses
from typing import TypeVar

from clu import metrics as clu_metrics
from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from hrm_jax.types import Sums


@struct.dataclass
class Ratio(clu_metrics.Metric):
    """A sum over a count, float32 []; NaN where nothing was counted."""

    total: jax.Array
    count: jax.Array

    @classmethod
    def empty(cls) -> 'Ratio':
        return cls(total=jnp.float32(0), count=jnp.float32(0))

    def merge(self, other: 'Ratio') -> 'Ratio':
        return type(self)(total=self.total + other.total, count=self.count + other.count)

    def compute(self) -> jax.Array:
        with np.errstate(invalid='ignore'):
            return self.total / self.count


@struct.dataclass
class RatioOrZero(Ratio):
    """``Ratio``, but 0 where nothing was counted: often no row halts in a train step."""

    def compute(self) -> jax.Array:
        return self.total / jnp.maximum(self.count, 1)


def _over(count: str, total: str, kind: type[Ratio] = Ratio) -> type[Ratio]:
    """Metric class that divides one sum by another; both are named."""

    @struct.dataclass
    class Quotient(kind):
        @classmethod
        def from_model_output(cls, **sums: jax.Array) -> Ratio:
            return cls(total=sums[total], count=sums[count])

    return Quotient


_C = TypeVar('_C', bound=clu_metrics.Collection)


def _with_fields(**kinds: type[Ratio]) -> Callable[[type[_C]], type[_C]]:
    """Class decorator that gives a collection its fields, in this order.

    clu makes the metric of a field by the class that the field is annotated with. Those classes are
    made by calls, which are no type expressions, so the annotations are set here.
    """

    def declare(collection: type[_C]) -> type[_C]:
        collection.__annotations__ = kinds
        return collection

    return declare


@struct.dataclass
@_with_fields(
    lm_loss=_over('batch', 'lm_loss'),
    q_halt_loss=_over('batch', 'q_halt_loss'),
    q_continue_loss=_over('batch', 'q_continue_loss'),
    accuracy=_over('count', 'accuracy', RatioOrZero),
    exact_accuracy=_over('count', 'exact_accuracy', RatioOrZero),
    q_halt_accuracy=_over('count', 'q_halt_accuracy', RatioOrZero),
    steps=_over('count', 'steps', RatioOrZero),
    q_halt_mean=_over('rows', 'q_halt_mean', RatioOrZero),
    q_continue_mean=_over('rows', 'q_continue_mean', RatioOrZero),
    halted=_over('batch', 'count'),
)
class TrainMetrics(clu_metrics.Collection):
    """Metrics of training rows (pretrain.py, train_batch).

    The losses and Q values are means over all rows, the accuracies and ``steps`` over the
    rows that halted; ``halted`` is their share.
    """


@struct.dataclass
@_with_fields(
    accuracy=_over('count', 'accuracy'),
    exact_accuracy=_over('count', 'exact_accuracy'),
    q_halt_accuracy=_over('count', 'q_halt_accuracy'),
    steps=_over('count', 'steps'),
    lm_loss=_over('count', 'lm_loss'),
    q_halt_loss=_over('count', 'q_halt_loss'),
    q_halt_mean=_over('rows', 'q_halt_mean'),
    q_continue_mean=_over('rows', 'q_continue_mean'),
)
class EvalMetrics(clu_metrics.Collection):
    """Metrics of evaluated puzzles, all divided by their number (pretrain.py, evaluate)."""


def train_metrics(sums: Sums, rows: int) -> TrainMetrics:
    """Metrics of one train step over ``rows`` rows, the global batch size."""
    return TrainMetrics.single_from_model_output(batch=jnp.float32(rows), **_fields(sums))


def eval_metrics(sums: Sums) -> EvalMetrics:
    """Metrics of one evaluated batch, padding rows left out."""
    return EvalMetrics.single_from_model_output(**_fields(sums))


def _fields(sums: Sums) -> dict[str, jax.Array]:
    return {field.name: getattr(sums, field.name) for field in dataclasses.fields(sums)}


def to_floats(collection: clu_metrics.Collection, prefix: str) -> dict[str, float]:
    """Divides, waits for the device, and names every metric ``prefix/name``."""
    return {f'{prefix}/{name}': float(value) for name, value in collection.compute().items()}
