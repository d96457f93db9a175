"""Evaluation of a split.

By default every puzzle gets the same number of ACT steps, as in the original; with
``eval.halting=adaptive`` each stops when its halting rule halts it (inference/early_exit.py). With
``eval.rollouts`` every puzzle has several chains, one of which is chosen (inference/rollouts.py).
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np

from hrm_jax import eval_step, metrics, partitioning
from hrm_jax.config import ExperimentConfig
from hrm_jax.data import pipeline, records
from hrm_jax.inference import bounded, early_exit, rollouts
from hrm_jax.inference.rollouts_choice import has_halted
from hrm_jax.run import distributed
from hrm_jax.run.progress import Progress
from hrm_jax.scoring import identifiers
from hrm_jax.scoring.collect import Collector
from hrm_jax.types import IGNORE_LABEL_ID, Batch, Sums, Weights

EvalStep = (
    Callable[..., eval_step.EvalResult]
    | bounded.BoundedEvalStep
    | early_exit.Worker
    | rollouts.Runner
)
_QUEUE = 8  # puzzles given to the device at a time, per slot


def make_step(config: ExperimentConfig, mesh: Mesh, with_logits: bool = False) -> EvalStep:
    """Compiles what ``evaluate`` runs, by ``eval.rollouts`` and ``eval.halting``."""
    size = config.eval_batch_size
    if config.chooses_answers:
        return rollouts.Runner(config, mesh, size, size * _QUEUE)
    match config.eval.halting:
        case 'max':
            steps = bounded.steps_per_call(config, size, mesh)
            if steps < eval_step.read_depths(config)[-1]:
                return bounded.BoundedEvalStep(config, mesh, steps, with_logits)
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
    more: Sequence[Weights] = (),
) -> dict[str, float] | None:
    """Answers every puzzle of the split and returns its metrics.

    Args:
      config: the experiment; ``config.eval`` sets batch size and number of puzzles.
      step: from ``make_step``.
      weights: on the mesh.
      dataset: the split.
      mesh: where to run.
      should_stop: asked between batches, and about once a second where one takes longer.
      collector: takes every answer.
      more: weights of ``eval.rollouts.checkpoints``.

    Returns:
      ``eval/<set>/<metric>`` -> value, or None when ``should_stop`` ended it. Losses are means
      over puzzles here; in training they are means over rows.
    """
    if isinstance(step, rollouts.Runner):
        return _evaluate_rollouts(config, step, (weights, *more), dataset, should_stop, collector)
    if isinstance(step, early_exit.Worker):
        return _evaluate_adaptive(config, step, weights, dataset, should_stop, collector)
    size, limit = config.eval_batch_size, config.eval.max_examples
    rows = partitioning.process_rows(mesh, size)
    drawn = config.eval.drawn
    batches = pipeline.eval_batches(dataset, size, rows, limit, drawn)
    places = _places(config, dataset)
    answered: dict[str, int] = {}  # examples of each set
    totals: dict[str, metrics.EvalMetrics] = {}  # by 'set', or 'set/deeper metric'
    pending: dict[str, Sums] = {}
    count = pipeline.num_eval_batches(dataset, size, limit, drawn)
    with Progress('evaluate', count, unit='batch') as bar:
        for set_name, batch, real in batches:
            batch = partitioning.put_global(batch, mesh)
            asked = _asked(config, batch)
            first = answered.get(set_name, 0)
            answered[set_name] = first + real
            if isinstance(step, bounded.BoundedEvalStep):
                result = step(weights, asked, config.seed, first, should_stop)
            else:
                result = step(weights, asked, config.seed, first)
            if result is None:
                return None
            deeper = zip(config.eval.depth_metrics, result.deeper, strict=True)
            scored = {set_name: result.sums} | {f'{set_name}/{name}': sums for name, sums in deeper}
            _add(totals, pending)  # one batch late: the device always has work
            pending = scored
            if collector is not None:
                example = places[set_name][first : first + real]
                collector.add_batch(set_name, example, batch, result, config.eval_steps)
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


def _places(config: ExperimentConfig, dataset: records.PuzzleDataset) -> dict[str, np.ndarray]:
    """Places of the evaluated examples in their sets."""
    return {
        name: pipeline.eval_examples(puzzles, config.eval.max_examples, config.eval.drawn)
        for name, puzzles in dataset.sets.items()
    }


def _asked(config: ExperimentConfig, batch: Batch) -> Batch:
    """What the model gets of a batch; answers are kept under its own identifiers."""
    model = config.model
    rows = model.num_puzzle_identifiers if model.has_puzzle_table else 1
    ids = batch.puzzle_identifiers
    return batch.replace(
        puzzle_identifiers=identifiers.asked(config.eval.identifiers, ids, rows, config.seed)
    )


def _add(totals: dict[str, metrics.EvalMetrics], scored: dict[str, Sums]) -> None:
    for name, sums in scored.items():
        part = metrics.eval_metrics(jax.tree.map(np.sum, jax.device_get(sums)))
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
    limit, drawn, values = config.eval.max_examples, config.eval.drawn, {}
    count = pipeline.num_eval_batches(dataset, worker.queue, limit, drawn)
    places = _places(config, dataset)
    with Progress('evaluate', count, unit='batch') as bar:
        for set_name, one_set in _sets_of(dataset):
            seen: list[Batch] = []
            total = metrics.eval_metrics(Sums.zeros())
            given = pipeline.eval_batches(one_set, worker.queue, None, limit, drawn)
            batches = _real_rows(given, seen, bar)
            asked = (_asked(config, batch) for batch in batches)
            for answers, sums in worker.answer(weights, asked, config.seed, should_stop):
                total = total.merge(metrics.eval_metrics(sums))
                if collector is not None and distributed.is_first():
                    rows = _rows_by_number(seen, answers.number, worker.queue)
                    example = places[set_name][answers.number]
                    collector.add(set_name, example, rows, vars(answers))
                if should_stop():
                    return None
            if should_stop():
                return None
            values |= metrics.to_floats(total, f'eval/{set_name}')
    return values


def _evaluate_rollouts(
    config: ExperimentConfig,
    runner: rollouts.Runner,
    weights: Sequence[Weights],
    dataset: records.PuzzleDataset,
    should_stop: Callable[[], bool],
    collector: Collector | None,
) -> dict[str, float] | None:
    """Every process queues all puzzles, as with early exit. Labels score what was chosen."""
    task = dataset.metadata.task_of()
    stated = dataset.metadata.transform
    transform = task.symmetries if stated == 'none' else stated
    limit, drawn, values = config.eval.max_examples, config.eval.drawn, {}
    count = pipeline.num_eval_batches(dataset, runner.queue, limit, drawn)
    places = _places(config, dataset)
    names = ('', *config.eval.depth_metrics)
    with Progress('evaluate', count, unit='batch') as bar:
        for set_name, one_set in _sets_of(dataset):
            seen: list[Batch] = []
            nothing = metrics.rollout_metrics(config, _score_rollouts(config, [], None))
            totals = [nothing for _ in names]
            given = pipeline.eval_batches(one_set, runner.queue, None, limit, drawn)
            batches = _real_rows(given, seen, bar)
            asked = (_asked(config, batch) for batch in batches)
            found_in = runner.run(weights, asked, task, transform, config.seed, should_stop)
            for found in found_in:
                if should_stop():
                    return None
                if not found:
                    continue
                numbers = np.array([one[0].number for one in found], np.int64)
                rows = _rows_by_number(seen, numbers, runner.queue)
                for depth in range(len(names)):
                    sums = _score_rollouts(config, [one[depth] for one in found], rows.labels)
                    totals[depth] = totals[depth].merge(metrics.rollout_metrics(config, sums))
                if collector is not None and distributed.is_first():
                    collector.add(set_name, places[set_name][numbers], rows, _chosen(found))
            if should_stop():
                return None
            values |= metrics.to_floats(totals[0], f'eval/{set_name}')
            for name, total in zip(names[1:], totals[1:], strict=True):
                values[f'eval/{set_name}/{name}'] = float(total.compute()['exact_accuracy'])
    return values


def _score_rollouts(
    config: ExperimentConfig, found: Sequence[rollouts.Rollout], labels_NS: np.ndarray | None
) -> dict[str, float]:
    """Sums of the metrics over rollouts; those of puzzles without a scored cell are left out."""
    sums = dict.fromkeys(metrics.SearchMetrics.__annotations__, 0.0) | {'count': 0.0}
    for row, one in enumerate(found):
        assert labels_NS is not None
        scored = labels_NS[row] != IGNORE_LABEL_ID
        if not scored.any():
            continue
        right_C = (one.chains.predictions == labels_NS[row])[:, scored].mean(1)
        solved_C = right_C == 1
        solved = bool(solved_C[one.chosen])
        if config.model.lattice.on:
            claimed = bool(has_halted(one.chains, config.act)[one.chosen])
            sums['abstained'] += not claimed
            sums['wrong'] += claimed and not solved
            sums['rounds'] += one.chains.steps[one.chosen]
            solved = solved and claimed
        sums['count'] += 1
        sums['accuracy'] += right_C[one.chosen]
        sums['exact_accuracy'] += solved
        sums['q_halt_accuracy'] += (one.chains.q_halt[one.chosen] >= 0) == solved
        sums['steps'] += one.steps
        sums['gflops'] += rollouts.flops_of(config, one.steps) / 1e9
        sums['chain_accuracy'] += solved_C.mean()
        sums['any_accuracy'] += solved_C.any()
        sums['agreement'] += len(one.agreeing) / len(solved_C)
    return sums


def _chosen(found: Sequence[Sequence[rollouts.Rollout]]) -> dict[str, np.ndarray]:
    """The chosen answers at the usual depth, as a collector takes them."""
    firsts = [one[0] for one in found]
    return {
        'predictions': np.array([one.chains.predictions[one.chosen] for one in firsts]),
        'q_halt': np.array([one.chains.q_halt[one.chosen] for one in firsts]),
        'q_continue': np.array([one.chains.q_continue[one.chosen] for one in firsts]),
        'steps': np.array([one.chains.steps[one.chosen] for one in firsts]),
    }


def _sets_of(dataset: records.PuzzleDataset) -> Iterator[tuple[str, records.PuzzleDataset]]:
    """Each set of a split by itself."""
    for name in dataset.metadata.sets:
        metadata = dataclasses.replace(dataset.metadata, sets=(name,))
        yield name, dataclasses.replace(dataset, metadata=metadata)


def _real_rows(
    batches: Iterator[tuple[str, Batch, int]], seen: list[Batch], bar: Progress
) -> Iterator[Batch]:
    """Yields the batches without the rows that only pad the last one, and remembers them."""
    for _, batch, real in batches:
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
