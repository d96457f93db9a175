"""Evaluation of a split: every puzzle gets the same number of ACT steps, as in the original."""

from collections.abc import Callable
import dataclasses
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from hrm_jax import checkpoint, compatibility, eval_step, metrics, partitioning
from hrm_jax.config import ExperimentConfig
from hrm_jax.data import pipeline, records
from hrm_jax.eval_step import EvalResult
from hrm_jax.plan import check_batch_size
from hrm_jax.writers import Progress

EvalStep = Callable[[Any, Any, Any, Any], EvalResult]


def evaluate(
    config: ExperimentConfig,
    step: EvalStep,
    weights: tuple[Any, Any, jax.Array | None],
    dataset: records.PuzzleDataset,
    mesh: Mesh,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Answers every puzzle of the split and returns its metrics.

    Args:
      config: the experiment; ``config.eval`` sets batch size and number of puzzles.
      step: from ``eval_step.make_eval_step``.
      weights: params, constants, puzzle table, on the mesh.
      dataset: the split.
      mesh: where to run.
      should_stop: asked between batches.

    Returns:
      ``eval/<set>/<metric>`` -> value; losses are means over puzzles here (in training they
      are means over rows), or None when it was told to stop.
    """
    size, limit = config.eval_batch_size, config.eval.max_examples
    batches = pipeline.eval_batches(
        dataset, size, jax.process_index(), jax.process_count(), max_examples=limit
    )
    found: dict[Any, metrics.EvalMetrics] = {}  # by set, or by set and deeper metric
    before = None
    count = pipeline.num_eval_batches(dataset, size, limit)
    with Progress('evaluate', count, unit='batch') as bar:
        for set_name, batch, _ in batches:
            result = step(*weights, partitioning.put_global(batch, mesh))
            deeper = zip(config.eval.depth_metrics, result.deeper, strict=True)
            scored = {set_name: result.sums} | {(set_name, name): sums for name, sums in deeper}
            for key, sums in scored.items():
                part = metrics.eval_metrics(sums)
                found[key] = found[key].merge(part) if key in found else part
            jax.block_until_ready(before)  # one batch late: the device always has work
            before = result.sums
            bar.update(1)
            if should_stop():
                return None
        values: dict[str, float] = {}
        for key, collection in found.items():
            if isinstance(key, str):
                values |= metrics.to_floats(collection, f'eval/{key}')
            else:
                values['eval/' + '/'.join(key)] = float(collection.exact_accuracy.compute())
    return values


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


def evaluate_checkpoint(
    config: ExperimentConfig, workdir: Path, selector: str = 'latest', say=print
) -> dict[str, float]:
    """Evaluates a saved model on ``eval.split`` of ``data.path``. Only reads the workdir.

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
    mesh = partitioning.make_mesh()
    check_batch_size('eval.global_batch_size', config.eval_batch_size, mesh)
    saved = checkpoint.restore_weights(path)
    weights = weights_of(config, saved.params, saved.ema, saved.constants, saved.puzzle_table)
    weights = jax.device_put(weights, partitioning.replicated(mesh))
    used = (
        'moving average of the weights' if weights_of(config, 0, saved.ema, 0, 0)[0] else 'weights'
    )
    say(f'evaluating step {saved.step} of {path.parent.parent} ({used})')
    values = evaluate(config, eval_step.make_eval_step(config, mesh), weights, dataset, mesh)
    say(describe(values))
    return values
