"""Evaluation of a split.

By default every puzzle gets the same number of ACT steps, as in the original; with
``eval.halting=adaptive`` each stops when its halting rule halts it (inference/early_exit.py).
"""

from collections.abc import Callable, Iterator
import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np

from hrm_jax import eval_step, metrics, partitioning
from hrm_jax.config import ExperimentConfig
from hrm_jax.data import pipeline, records
from hrm_jax.inference import early_exit
from hrm_jax.run import distributed
from hrm_jax.run.progress import Progress
from hrm_jax.scoring.collect import Collector
from hrm_jax.types import Batch, Sums, Weights

EvalStep = Callable[..., eval_step.EvalResult] | early_exit.Worker
_QUEUE = 8  # puzzles given to the device at a time, per slot


def make_step(config: ExperimentConfig, mesh: Mesh, with_logits: bool = False) -> EvalStep:
    """Compiles what ``evaluate`` runs, by ``eval.halting``."""
    size = config.eval_batch_size
    match config.eval.halting:
        case 'max':
            return eval_step.make_eval_step(config, mesh, with_logits)
        case 'adaptive':
            return early_exit.Worker(config, mesh, size, size * _QUEUE)
    raise ValueError(f'no halting of evaluations called {config.eval.halting!r}')


def evaluate(
    config: ExperimentConfig,
    step: EvalStep,
    weights: Weights,
    dataset: records.PuzzleDataset,
    mesh: Mesh,
    should_stop: Callable[[], bool] = lambda: False,
    collector: Collector | None = None,
) -> dict[str, float] | None:
    """Answers every puzzle of the split and returns its metrics.

    Args:
      config: the experiment; ``config.eval`` sets batch size and number of puzzles.
      step: from ``make_step``.
      weights: on the mesh.
      dataset: the split.
      mesh: where to run.
      should_stop: asked between batches.
      collector: takes every answer.

    Returns:
      ``eval/<set>/<metric>`` -> value, or None when ``should_stop`` ended it. Losses are means
      over puzzles here; in training they are means over rows.
    """
    if isinstance(step, early_exit.Worker):
        return _evaluate_adaptive(config, step, weights, dataset, should_stop, collector)
    size, limit = config.eval_batch_size, config.eval.max_examples
    rows = partitioning.process_rows(mesh, size)
    batches = pipeline.eval_batches(dataset, size, rows, limit)
    answered: dict[str, int] = {}  # examples of each set
    totals: dict[str, metrics.EvalMetrics] = {}  # by 'set', or 'set/deeper metric'
    pending: dict[str, Sums] = {}
    with Progress('evaluate', pipeline.num_eval_batches(dataset, size, limit), unit='batch') as bar:
        for set_name, batch, real in batches:
            batch = partitioning.put_global(batch, mesh)
            asked = _asked(config, batch)
            first = answered.get(set_name, 0)
            answered[set_name] = first + real
            result = step(weights, asked, config.seed, first)
            deeper = zip(config.eval.depth_metrics, result.deeper, strict=True)
            scored = {set_name: result.sums} | {f'{set_name}/{name}': sums for name, sums in deeper}
            _add(totals, pending)  # one batch late: the device always has work
            pending = scored
            if collector is not None:
                collector.add_batch(set_name, first, real, batch, result, config.eval_steps)
            bar.update(1)
            if should_stop():
                return None
        _add(totals, pending)
    values: dict[str, float] = {}
    for name, total in totals.items():
        if name in answered:
            values |= metrics.to_floats(total, f'eval/{name}')
        else:
            values[f'eval/{name}'] = float(total.compute()['exact_accuracy'])
    return values


def _asked(config: ExperimentConfig, batch: Batch) -> Batch:
    """What the model gets of a batch; answers are kept under its own identifiers."""
    match config.eval.identifiers:
        case 'own':
            return batch
        case 'blank':
            return batch.replace(puzzle_identifiers=batch.puzzle_identifiers * 0)
    raise ValueError(f'no identifiers called {config.eval.identifiers!r}')


def _add(totals: dict[str, metrics.EvalMetrics], scored: dict[str, Sums]) -> None:
    for name, sums in scored.items():
        part = metrics.eval_metrics(jax.device_get(sums))
        totals[name] = totals[name].merge(part) if name in totals else part


def _evaluate_adaptive(
    config: ExperimentConfig,
    worker: early_exit.Worker,
    weights: Weights,
    dataset: records.PuzzleDataset,
    should_stop: Callable[[], bool],
    collector: Collector | None,
) -> dict[str, float] | None:
    """Every process queues all puzzles and gets all answers; the first one keeps them."""
    limit, values = config.eval.max_examples, {}
    count = pipeline.num_eval_batches(dataset, worker.queue, limit)
    with Progress('evaluate', count, unit='batch') as bar:
        for set_name in dataset.metadata.sets:
            metadata = dataclasses.replace(dataset.metadata, sets=(set_name,))
            one_set = dataclasses.replace(dataset, metadata=metadata)
            seen: list[Batch] = []
            total = metrics.eval_metrics(Sums.zeros())
            batches = _real_rows(one_set, worker.queue, limit, seen, bar)
            asked = (_asked(config, batch) for batch in batches)
            for answers, sums in worker.answer(weights, asked, config.seed):
                total = total.merge(metrics.eval_metrics(sums))
                if collector is not None and distributed.is_first():
                    rows = _rows_by_number(seen, answers.number, worker.queue)
                    collector.add(set_name, answers.number, rows, vars(answers))
                if should_stop():
                    return None
            values |= metrics.to_floats(total, f'eval/{set_name}')
    return values


def _real_rows(
    dataset: records.PuzzleDataset, size: int, limit: int, seen: list[Batch], bar: Progress
) -> Iterator[Batch]:
    """Yields the batches without the rows that only pad the last one, and remembers them."""
    for _, batch, real in pipeline.eval_batches(dataset, size, max_examples=limit):
        batch = jax.tree.map(lambda x, real=real: x[:real], batch)
        seen.append(batch)
        yield batch
        bar.update(1)


def _rows_by_number(batches: list[Batch], number: np.ndarray, size: int) -> Any:
    """Rows by their number in a stream of batches of ``size`` rows."""
    pick = [(int(n) // size, int(n) % size) for n in number]
    return jax.tree.map(
        lambda *leaves: np.stack([leaves[b][r] for b, r in pick])
        if pick else leaves[0][:0], *batches
    )  # fmt: skip
