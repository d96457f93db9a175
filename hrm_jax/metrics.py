"""Metrics from sums: the numbers that are logged; only here are metrics divided.

The train and eval steps return ``Sums``; here they become ``clu.metrics`` collections, which
merge over steps, batches and sets and divide once, at the end.
"""

from collections.abc import Callable, Mapping
import dataclasses
import re
from typing import TypeVar

from clu import metrics as clu_metrics
from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from hrm_jax.config import ExperimentConfig
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


@struct.dataclass
@_with_fields(
    accuracy=_over('count', 'accuracy'),
    exact_accuracy=_over('count', 'exact_accuracy'),
    q_halt_accuracy=_over('count', 'q_halt_accuracy'),
    steps=_over('count', 'steps'),
    gflops=_over('count', 'gflops'),
    chain_accuracy=_over('count', 'chain_accuracy'),
    any_accuracy=_over('count', 'any_accuracy'),
    agreement=_over('count', 'agreement'),
)
class RolloutMetrics(clu_metrics.Collection):
    """Metrics of chosen answers (inference/rollouts.py), all divided by the number of puzzles."""


@struct.dataclass
@_with_fields(
    **RolloutMetrics.__annotations__,
    abstained=_over('count', 'abstained'),
    wrong=_over('count', 'wrong'),
    rounds=_over('count', 'rounds'),
)
class SearchMetrics(clu_metrics.Collection):
    """``RolloutMetrics`` of models that know when they have no answer (model/lattice.py).

    ``exact_accuracy``, ``abstained`` and ``wrong`` add up to 1.
    """


# What the metrics mean, where they are printed.
MEANINGS = {
    'accuracy': 'share of cells that are right',
    'exact_accuracy': 'share of puzzles whose every cell is right',
    'q_halt_accuracy': 'share of puzzles of which the model knows whether its answer is right',
    'exact_accuracy_stderr': 'standard error of exact_accuracy',
    'valid': 'share of puzzles whose answer obeys the rules, whatever the label',
    'valid_stderr': 'standard error of valid',
    'valid_path': 'share of mazes whose answer leads from start to end',
    'valid_path_stderr': 'standard error of valid_path',
    'shortest_path': 'share of mazes whose answer is any shortest path',
    'shortest_path_stderr': 'standard error of shortest_path',
    'steps': 'ACT steps spent on a puzzle',
    'gflops': 'billions of multiplications and additions spent on a puzzle',
    'chain_accuracy': 'share of the chains of a puzzle whose every cell is right',
    'any_accuracy': 'share of puzzles that at least one chain gets right, whatever is chosen',
    'agreement': 'share of the chains of a puzzle that give the chosen answer',
    'abstained': 'share of puzzles for which no chain claims a solution',
    'wrong': 'share of puzzles whose claimed solution is wrong',
    'rounds': 'steps of the chain that gives the answer',
    'lm_loss': 'loss of the answer, lower is better',
    'q_halt_loss': 'loss of the halting decision, lower is better',
    'q_continue_loss': 'loss of the value of another step, lower is better',
    'q_halt_mean': 'mean halting logit; above 0 the model takes its answer for right',
    'q_continue_mean': 'mean logit of the value of another step',
    'halted': 'share of the rows that finished in a step',
    'arc/hrm_pass': 'share of puzzles with all tests solved by one of K answers, by vote',
    'arc/trm_pass': 'the same, a puzzle counting by the share of its tests',
    'arc/hrm_single': 'as hrm_pass, without augmentations',
    'arc/trm_single': 'as trm_pass, without augmentations',
    'arc/hrm_blank_id': 'as hrm_single, each puzzle under the blank identifier',
    'arc/trm_blank_id': 'as trm_single, each puzzle under the blank identifier',
    'arc/hrm_random_id': 'as hrm_single, each puzzle under the identifier of a random other one',
    'arc/trm_random_id': 'as trm_single, each puzzle under the identifier of a random other one',
    'arc/hrm_pass_stderr': 'standard error of hrm_pass over puzzles',
    'arc/trm_pass_stderr': 'standard error of trm_pass over puzzles',
    'arc/puzzles': 'puzzles that were counted',
    'arc/missing': 'puzzles without a prediction, counted as wrong',
}


def meaning(name: str) -> str:
    """Returns what a metric of the log means, '' for an unknown one.

    Args:
      name: such as ``eval/all/accuracy`` or ``eval/all/arc/hrm_pass@2``.
    """
    found = next((m for m in sorted(MEANINGS, key=len, reverse=True)
                  if name.partition('@')[0].endswith(f'/{m}')), None)  # fmt: skip
    if found:
        return MEANINGS[found].replace('one of K', f'one of {name.partition("@")[2]}')
    depth = re.search(r'/acc(\d+)x\Z', name)
    return f'exact_accuracy with {depth[1]} times the ACT steps' if depth else ''


def is_of_model(config: ExperimentConfig, name: str) -> bool:
    """Whether the model of a configuration has what a metric measures."""
    last = name.rpartition('/')[2]
    if last.startswith('q_continue'):
        learned = config.act.halting == 'q_learning' and config.act.train_q_continue
        return config.model.q_head and learned
    return config.model.q_head or config.model.lattice.on or not last.startswith('q_')


def of_model(config: ExperimentConfig, values: Mapping[str, float]) -> dict[str, float]:
    """Returns the metrics of what the model has: nothing about Q where it has no Q head."""
    return {name: value for name, value in values.items() if is_of_model(config, name)}


def names_of(config: ExperimentConfig, collection: type, prefix: str) -> list[str]:
    """Returns the names of a collection's metrics of what the model has, ``prefix/name``."""
    names = (f'{prefix}/{name}' for name in collection.__annotations__)
    return [name for name in names if is_of_model(config, name)]


def train_metrics(sums: Sums, rows: int) -> TrainMetrics:
    """Metrics of one train step over ``rows`` rows, the global batch size."""
    return TrainMetrics.single_from_model_output(batch=jnp.float32(rows), **_fields(sums))


def eval_metrics(sums: Sums) -> EvalMetrics:
    """Metrics of one evaluated batch, padding rows left out."""
    return EvalMetrics.single_from_model_output(**_fields(sums))


def of_chosen(config: ExperimentConfig) -> type[clu_metrics.Collection]:
    """The collection of metrics of chosen answers."""
    return SearchMetrics if config.model.lattice.on else RolloutMetrics


def rollout_metrics(config: ExperimentConfig, sums: Mapping[str, float]) -> clu_metrics.Collection:
    """Metrics of some chosen answers, from sums over them; ``count`` is their number."""
    return of_chosen(config).single_from_model_output(
        **{name: jnp.float32(value) for name, value in sums.items()}
    )


def _fields(sums: Sums) -> dict[str, jax.Array]:
    return {field.name: getattr(sums, field.name) for field in dataclasses.fields(sums)}


def to_floats(collection: clu_metrics.Collection, prefix: str) -> dict[str, float]:
    """Divides, waits for the device, and names every metric ``prefix/name``."""
    return {f'{prefix}/{name}': float(value) for name, value in collection.compute().items()}
