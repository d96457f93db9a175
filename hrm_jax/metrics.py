"""From sums to the numbers that are logged: the only place where metrics are divided.

The train and eval steps return ``Sums``; here they become ``clu.metrics`` collections, which
merge over steps, batches and sets and divide once, at the end.
"""

import flax
import jax
import jax.numpy as jnp

from hrm_jax.types import Sums

try:
    from clu import metrics as clu_metrics
except ImportError:  # a bare accelerator machine must still be able to train
    from hrm_jax import bare_metrics as clu_metrics


@flax.struct.dataclass
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
        return self.total / self.count


@flax.struct.dataclass
class RatioOrZero(Ratio):
    """As ``Ratio``, but 0 where nothing was counted: often no row halts in a train step."""

    def compute(self) -> jax.Array:
        return self.total / jnp.maximum(self.count, 1)


@flax.struct.dataclass
class TrainMetrics(clu_metrics.Collection):
    """Metrics of training rows (pretrain.py, train_batch).

    The losses and Q values are means over all rows, the accuracies and ``steps`` over the
    rows that halted; ``halted`` is their share.
    """

    lm_loss: Ratio
    q_halt_loss: Ratio
    q_continue_loss: Ratio
    accuracy: RatioOrZero
    exact_accuracy: RatioOrZero
    q_halt_accuracy: RatioOrZero
    steps: RatioOrZero
    q_halt_mean: RatioOrZero
    q_continue_mean: RatioOrZero
    halted: Ratio


@flax.struct.dataclass
class EvalMetrics(clu_metrics.Collection):
    """Metrics of evaluated puzzles, all divided by their number (pretrain.py, evaluate)."""

    accuracy: Ratio
    exact_accuracy: Ratio
    q_halt_accuracy: Ratio
    steps: Ratio
    lm_loss: Ratio
    q_halt_loss: Ratio
    q_halt_mean: Ratio
    q_continue_mean: Ratio


_PER_HALTED = ('accuracy', 'exact_accuracy', 'q_halt_accuracy', 'steps')
_Q_MEANS = ('q_halt_mean', 'q_continue_mean')


def train_metrics(sums: Sums, rows: int) -> TrainMetrics:
    """Metrics of one train step over ``rows`` rows, the global batch size."""
    rows = jnp.float32(rows)
    return TrainMetrics(
        _reduction_counter=clu_metrics._ReductionCounter.empty(),
        **{name: RatioOrZero(getattr(sums, name), sums.count) for name in _PER_HALTED},
        **{name: RatioOrZero(getattr(sums, name), sums.rows) for name in _Q_MEANS},
        **{
            name: Ratio(getattr(sums, name), rows)
            for name in ('lm_loss', 'q_halt_loss', 'q_continue_loss')
        },
        halted=Ratio(sums.count, rows),
    )


def eval_metrics(sums: Sums) -> EvalMetrics:
    """Metrics of one evaluated batch, padding rows left out."""
    return EvalMetrics(
        _reduction_counter=clu_metrics._ReductionCounter.empty(),
        **{
            name: Ratio(getattr(sums, name), sums.count)
            for name in (*_PER_HALTED, 'lm_loss', 'q_halt_loss')
        },
        **{name: Ratio(getattr(sums, name), sums.rows) for name in _Q_MEANS},
    )


def to_floats(collection: clu_metrics.Collection, prefix: str) -> dict[str, float]:
    """Divides, waits for the device, and names every metric ``prefix/name``."""
    return {f'{prefix}/{name}': float(value) for name, value in collection.compute().items()}
