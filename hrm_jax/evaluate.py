"""Evaluation of a split.

By default every puzzle gets the same number of ACT steps, as in the original; with
``eval.halting=adaptive`` each stops when its halting rule says so (inference/early_exit.py).
"""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
from pathlib import Path
import time
from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np

from hrm_jax import eval_step, metrics, partitioning, train_state
from hrm_jax.checkpoint import compatible, layout, store
from hrm_jax.config import ExperimentConfig
from hrm_jax.data import pipeline, puzzles, records
from hrm_jax.inference import early_exit
from hrm_jax.run import distributed, summary
from hrm_jax.run.progress import Progress
from hrm_jax.scoring.collect import Collector
from hrm_jax.types import Batch, Sums, Weights

EvalStep = Callable[..., eval_step.EvalResult] | early_exit.Worker
PREDICTIONS = 'predictions'
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
            first = answered.get(set_name, 0)
            answered[set_name] = first + real
            result = step(weights, batch, config.seed, first)
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
            for answers, sums in worker.answer(weights, batches, config.seed):
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


def evaluate_checkpoint(
    config: ExperimentConfig, workdir: Path, selector: str = 'latest', log=print
) -> dict[str, float]:
    """Evaluates a saved model on ``eval.split`` of ``data.path``.

    Keeps what ``eval.save_outputs`` names in ``<workdir>/predictions/step_<step>_<split>``,
    and scores ARC by votes from there; writes nothing else.

    Args:
      config: names the data and the model, which must be the checkpoint's.
      workdir: where a step, 'latest' or 'best' is looked up.
      selector: step, 'latest', 'best', or the folder of a checkpoint or of a run.
      log: prints a message.

    Returns:
      ``eval/<set>/<metric>`` -> value.

    Raises:
      CheckpointError: there is none, it is damaged, or it is of another model.
      DatasetError: the data set is missing or damaged.
    """
    log = log if distributed.is_first() else lambda _message: None
    path = layout.resolve(selector, workdir)
    dataset = records.load(
        config.data.path, config.eval.split, config.data.format, config.data.task
    )
    config = _with_sizes(config, dataset, path)
    mesh = partitioning.make_mesh(config=config.mesh)
    partitioning.check_fits(config, mesh, training=False)
    saved = store.read_model(path)
    averaged = saved.ema is not None and config.eval.use_ema
    weights = train_state.put_weights(config, mesh, saved.inference_weights(averaged))
    kind = 'moving average of the weights' if averaged else 'weights'
    log(f'evaluating step {saved.step} of {path.parent.parent} ({kind})')
    step = make_step(config, mesh, 'logits' in config.eval.save_outputs)
    folder = Path(workdir) / PREDICTIONS / f'step_{saved.step}_{config.eval.split}'
    collector = Collector.for_evaluation(config, dataset, folder, path, log)
    began = time.perf_counter()
    with collector or contextlib.nullcontext():
        values = evaluate(config, step, weights, dataset, mesh, collector=collector)
    assert values is not None  # nothing asks it to stop
    seconds = time.perf_counter() - began
    count = sum(
        min(one.num_examples, config.eval.max_examples or one.num_examples)
        for one in dataset.sets.values()
    )
    log(f'{count} puzzles in {seconds:.1f} s, {count / seconds:.0f} per second with compiling')
    if collector is not None:
        log(f'predictions: {folder}')
        values |= collector.arc_scores(log)
    log(summary.metrics_table(values))
    return values


def _with_sizes(
    config: ExperimentConfig, dataset: records.PuzzleDataset, path: Path
) -> ExperimentConfig:
    """Fills in the sizes of the data set and checks the model against the checkpoint's."""
    meta = layout.read_meta(path)
    sizes = {name: getattr(dataset.metadata, name) for name in ('vocab_size', 'seq_len')}
    rows = meta['config']['model']['num_puzzle_identifiers']
    model = config.model
    if all(getattr(model, name) in (0, size) for name, size in sizes.items()):
        model = model.for_dataset(**sizes, num_puzzle_identifiers=rows)
    config = dataclasses.replace(config, model=model)
    compatible.check_same_model(meta, config, path)
    if config.model.prefix_len:
        puzzles.check_identifiers(dataset, config.model.num_puzzle_identifiers)
    return config
