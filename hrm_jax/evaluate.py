"""Evaluation of a split.

By default every puzzle gets the same number of ACT steps, as in the original; with
``eval.halting=adaptive`` each leaves when its halting rule says so (adaptive.py).
"""

from collections.abc import Callable
import contextlib
import dataclasses
from pathlib import Path
import time
from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np

from hrm_jax import (
    adaptive,
    checkpoint,
    compatibility,
    distributed,
    eval_step,
    losses,
    metrics,
    partitioning,
    train_state,
)
from hrm_jax.config import ExperimentConfig
from hrm_jax.data import pipeline, puzzles, records
from hrm_jax.eval_step import EvalResult
from hrm_jax.plan import check_fits
from hrm_jax.scoring.arc import ScoringError
from hrm_jax.scoring.collect import Collector, score_arc_folder
from hrm_jax.scoring.predictions import PredictionError
from hrm_jax.types import Sums
from hrm_jax.writers import Progress

EvalStep = Callable[[Any, Any, Any, Any], EvalResult] | adaptive.Worker
PREDICTIONS = 'predictions'
_QUEUE = 8  # puzzles handed to the device at a time, per slot


def make_step(config: ExperimentConfig, mesh: Mesh, with_logits: bool = False) -> EvalStep:
    """Compiles what ``evaluate`` runs, as ``eval.halting`` says."""
    size = config.eval_batch_size
    if config.eval.halting == 'adaptive':
        return adaptive.Worker(config, mesh, size, size * _QUEUE)
    return eval_step.make_eval_step(config, mesh, with_logits)


def evaluate(
    config: ExperimentConfig,
    step: EvalStep,
    weights: tuple[Any, Any, jax.Array | None],
    dataset: records.PuzzleDataset,
    mesh: Mesh,
    should_stop: Callable[[], bool] = lambda: False,
    collector: Collector | None = None,
) -> dict[str, float] | None:
    """Answers every puzzle of the split and returns its metrics.

    Args:
      config: the experiment; ``config.eval`` sets batch size and number of puzzles.
      step: from ``make_step``.
      weights: params, constants, puzzle table, on the mesh.
      dataset: the split.
      mesh: where to run.
      should_stop: asked between batches.
      collector: takes every answer.

    Returns:
      ``eval/<set>/<metric>`` -> value; losses are means over puzzles here (in training they
      are means over rows), or None when it was told to stop.
    """
    if isinstance(step, adaptive.Worker):
        return _evaluate_adaptive(config, step, weights, dataset, should_stop, collector)
    size, limit = config.eval_batch_size, config.eval.max_examples
    rows = partitioning.process_rows(mesh, size)
    batches = pipeline.eval_batches(dataset, size, rows, limit)
    places: dict[str, int] = {}  # examples of each set that were answered
    found: dict[Any, metrics.EvalMetrics] = {}  # by set, or by set and deeper metric
    before: dict[Any, Sums] = {}

    def add(scored):
        for key, sums in scored.items():
            part = metrics.eval_metrics(jax.device_get(sums))
            found[key] = found[key].merge(part) if key in found else part

    count = pipeline.num_eval_batches(dataset, size, limit)
    with Progress('evaluate', count, unit='batch') as bar:
        for set_name, batch, real in batches:
            batch = partitioning.put_global(batch, mesh)
            result = step(*weights, batch)
            deeper = zip(config.eval.depth_metrics, result.deeper, strict=True)
            scored = {set_name: result.sums} | {(set_name, name): sums for name, sums in deeper}
            add(before)  # one batch late: the device always has work
            before = scored
            if collector is not None:
                place = places.get(set_name, 0)
                _collect(collector, set_name, place, real, batch, result, config)
                places[set_name] = place + real
            bar.update(1)
            if should_stop():
                return None
        add(before)
        values: dict[str, float] = {}
        for key, collection in found.items():
            if isinstance(key, str):
                values |= metrics.to_floats(collection, f'eval/{key}')
            else:
                values['eval/' + '/'.join(key)] = float(collection.exact_accuracy.compute())
    return values


def _collect(collector, set_name, place, real, batch, result, config) -> None:
    """Hands over the rows of a batch, without those that only pad it, on the first process."""
    answers = {
        name: getattr(result, name)
        for name in ('predictions', 'q_halt', 'q_continue', 'logits')
        if getattr(result, name) is not None
    }
    answers, batch = partitioning.to_host((answers, batch))
    if distributed.is_first():
        answers['steps'] = np.full(len(batch.inputs), eval_step.depth(config))
        answers, batch = jax.tree.map(lambda x: x[:real], (answers, batch))
        collector.add(set_name, place + np.arange(real), batch, answers)


def _evaluate_adaptive(
    config, worker, weights, dataset, should_stop, collector
) -> dict[str, float] | None:
    """Every process hands all puzzles over and gets all answers; the first one keeps them."""
    limit, values = config.eval.max_examples, {}
    count = pipeline.num_eval_batches(dataset, worker.queue, limit)
    with Progress('evaluate', count, unit='batch') as bar:
        for set_name in dataset.metadata.sets:
            metadata = dataclasses.replace(dataset.metadata, sets=(set_name,))
            one_set = dataclasses.replace(dataset, metadata=metadata)
            seen: list[Any] = []
            found = metrics.eval_metrics(losses.zero_sums())
            for answers, sums in worker.answer(
                weights, _real_rows(one_set, worker.queue, limit, seen, bar)
            ):
                found = found.merge(metrics.eval_metrics(sums))
                if collector is not None and distributed.is_first():
                    rows = _joined(seen, answers.number, worker.queue)
                    collector.add(set_name, answers.number, rows, vars(answers))
                if should_stop():
                    return None
            values |= metrics.to_floats(found, f'eval/{set_name}')
    return values


def _real_rows(dataset, size, limit, seen, bar):
    """Yields the batches without the rows that only pad the last one, and remembers them."""
    for _, batch, real in pipeline.eval_batches(dataset, size, max_examples=limit):
        batch = jax.tree.map(lambda x, real=real: x[:real], batch)
        seen.append(batch)
        yield batch
        bar.update(1)


def _joined(batches, number, size):
    """Rows by their number in a stream of batches of ``size`` rows."""
    pick = [(int(n) // size, int(n) % size) for n in number]
    return jax.tree.map(
        lambda *leaves: np.stack([leaves[b][r] for b, r in pick])
        if pick else leaves[0][:0], *batches
    )  # fmt: skip


def describe(values: dict[str, float]) -> str:
    """Returns the metrics of an evaluation as a small table, one set per block."""
    width = max(map(len, values), default=0)
    return '\n'.join(f'  {name:<{width}}  {value:.6g}' for name, value in values.items())


def weights_of(
    config: ExperimentConfig, params: Any, ema: Any, constants: Any, puzzle_table: Any
) -> tuple[Any, Any, Any]:
    """Picks what is evaluated: the moving average where there is one and it is wanted."""
    averaged = ema is not None and config.eval.use_ema
    return (ema if averaged else params), constants, puzzle_table


def _collector(config, dataset, folder, path, say) -> Collector | None:
    """Takes the answers where they are wanted and the folder can be written."""
    if not config.eval.save_outputs:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        say(f'predictions are not kept, as {folder} can not be made: {error.strerror}')
        return None
    facts = {
        'data': str(Path(config.data.path).absolute()),
        'split': config.eval.split,
        'checkpoint': str(path.absolute()),
        'halting': config.eval.halting,
    }
    return Collector(folder, config.eval, dataset, facts)


def _arc_values(config, dataset, folder, say) -> dict[str, float]:
    """Votes on ARC answers."""
    enough = {'predictions', 'q'} <= set(config.eval.save_outputs)
    if dataset.metadata.task != 'arc' or not enough or not distributed.is_first():
        return {}
    try:
        return score_arc_folder(folder, dataset)
    except (ScoringError, PredictionError) as error:
        say(f'no ARC score: {error}')
        return {}


def evaluate_checkpoint(
    config: ExperimentConfig, workdir: Path, selector: str = 'latest', say=print
) -> dict[str, float]:
    """Evaluates a saved model on ``eval.split`` of ``data.path``.

    Keeps what ``eval.save_outputs`` names in ``<workdir>/predictions/step_<step>_<split>``,
    and scores ARC by votes from there; writes nothing else.

    Args:
      config: names the data and the model, which must be the checkpoint's.
      workdir: where a step, 'latest' or 'best' is looked up.
      selector: step, 'latest', 'best', or the folder of a checkpoint or of a run.
      say: prints a message.

    Raises:
      CheckpointError: there is none, it is damaged, or it is of another model.
      DatasetError: the data set is missing or damaged.
    """
    path = checkpoint.resolve(selector, workdir)
    dataset = records.load(config.data.path, config.eval.split, config.data.format)
    meta = checkpoint.read_meta(path)
    sizes = ('vocab_size', 'seq_len')
    shape = {name: getattr(dataset.metadata, name) for name in sizes}
    shape['num_puzzle_identifiers'] = meta['config']['model']['num_puzzle_identifiers']
    model = config.model
    if all(getattr(model, name) in (0, shape[name]) for name in sizes):
        model = model.for_dataset(**shape)
    config = dataclasses.replace(config, model=model)
    compatibility.check_same_model(meta, config, path)
    if config.model.prefix_len:
        puzzles.check_identifiers(dataset, config.model.num_puzzle_identifiers)
    mesh = partitioning.make_mesh(config=config.mesh)
    check_fits(config, mesh, training=False)
    say = say if distributed.is_first() else lambda _message: None
    saved = checkpoint.restore_weights(path)
    weights = weights_of(config, saved.params, saved.ema, saved.constants, saved.puzzle_table)
    weights = train_state.put_weights(config, mesh, *weights)
    used = (
        'moving average of the weights' if weights_of(config, 0, saved.ema, 0, 0)[0] else 'weights'
    )
    say(f'evaluating step {saved.step} of {path.parent.parent} ({used})')
    step = make_step(config, mesh, 'logits' in config.eval.save_outputs)
    folder = Path(workdir) / PREDICTIONS / f'step_{saved.step}_{config.eval.split}'
    collector = _collector(config, dataset, folder, path, say)
    began = time.perf_counter()
    with collector or contextlib.nullcontext():
        values = evaluate(config, step, weights, dataset, mesh, collector=collector)
    seconds = time.perf_counter() - began
    count = sum(
        min(one.num_examples, config.eval.max_examples or one.num_examples)
        for one in dataset.sets.values()
    )
    say(f'{count} puzzles in {seconds:.1f} s, {count / seconds:.0f} per second with compiling')
    if collector is not None:
        say(f'predictions: {folder}')
        values |= _arc_values(config, dataset, folder, say)
    say(describe(values))
    return values
