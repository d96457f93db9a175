"""Evaluation of a saved model: what ``hrm-jax eval`` does."""

from collections.abc import Callable, Mapping
import contextlib
import dataclasses
from pathlib import Path
import time
from typing import Any

from hrm_jax import evaluate, partitioning, train_state
from hrm_jax.checkpoint import compatible, data_facts
from hrm_jax.checkpoint.store import SavedModel
from hrm_jax.config import ExperimentConfig
from hrm_jax.data import overlap, pipeline, puzzles, records
from hrm_jax.errors import UserError
from hrm_jax.inference import rollouts
from hrm_jax.interop import formats
from hrm_jax.run import device_memory, distributed, summary
from hrm_jax.scoring import identifiers
from hrm_jax.scoring.collect import Collector

PREDICTIONS = 'predictions'
# The field reports both depths of models that were trained with 16 steps.
_USUAL_STEPS, _DEEPER = 16, 4


def evaluate_checkpoint(
    config: ExperimentConfig, workdir: Path, selector: str = 'latest', log=print
) -> dict[str, float]:
    """Evaluates a saved model on ``eval.split`` of ``data.path``.

    Keeps what ``eval.save_outputs`` names in ``<workdir>/predictions/step_<step>_<split>``,
    and scores from there: ARC by votes, other tasks by their rules; writes nothing else.

    Args:
      config: names the data and the model, which must be the checkpoint's.
      workdir: where a step, 'latest' or 'best' is looked up.
      selector: step, 'latest', 'best', or a checkpoint of any format.
      log: prints a message.

    Returns:
      ``eval/<set>/<metric>`` -> value.

    Raises:
      CheckpointError: there is none, it is damaged, it is of another model, or the data set has
        another alphabet or other puzzle identifiers.
      DatasetError: the data set is missing or damaged.
    """
    log = log if distributed.is_first() else lambda _message: None
    saved, path = formats.open_model(selector, workdir)
    dataset = records.load(
        config.data.path, config.eval.split, config.data.format, config.data.task
    )
    config = _with_depths(_with_sizes(config, dataset, saved, path, log), log)
    mesh = partitioning.make_mesh(config=config.mesh)
    partitioning.check_fits(config, mesh, training=False)
    averaged = saved.ema is not None and config.eval.use_ema
    weights = train_state.put_weights(config, mesh, saved.inference_weights(averaged))
    more = [_more_weights(config, mesh, one, workdir) for one in config.eval.rollouts.checkpoints]
    kind = 'moving average of the weights' if averaged else 'weights'
    log(f'evaluating step {saved.step} of {path} ({kind}) on {dataset.path}, {config.eval.split}')
    step = evaluate.make_step(config, mesh, 'logits' in config.eval.save_outputs)
    drawn = f'_{config.eval.subset}' if config.eval.subset else ''
    folder = Path(workdir) / PREDICTIONS / f'step_{saved.step}_{config.eval.split}{drawn}'
    facts = _facts_of(config, dataset, saved)
    collector = Collector.for_evaluation(config, dataset, folder, path, log, facts)
    began = time.perf_counter()
    with collector or contextlib.nullcontext(), device_memory.explained(config, 'an evaluation'):
        values = evaluate.evaluate(
            config, step, weights, dataset, mesh, collector=collector, more=more
        )
    assert values is not None  # nothing asks it to stop
    values |= costs(config, values)
    if not dataset.has_answers:
        values = {}
        kept = 'its predictions are kept' if collector else 'set eval.save_outputs to keep them'
        log(f'the split {config.eval.split!r} has no answers, so nothing is scored; {kept}')
    seconds = time.perf_counter() - began
    count = _answered(config, dataset)
    log(f'{count} puzzles in {seconds:.1f} s, {count / seconds:.0f} per second with compiling')
    if note := limit_note(config, dataset):
        log(note)
    if distributed.is_first() and (note := leak_note(config, dataset, saved)):
        log(note)
    if collector is not None:
        log(f'predictions: {folder}')
        values |= collector.scores(log)
    values |= identifiers.worth(config, weights, dataset, mesh)
    log(summary.metrics_table(values, config))
    return values


def _with_depths(config: ExperimentConfig, log: Callable[[str], None]) -> ExperimentConfig:
    """The experiment with the depth 64 beside 16, where a model was trained with 16 steps."""
    section = config.eval
    usual = config.act.halt_max_steps == config.eval_steps == _USUAL_STEPS
    asked = section.depth_multiples or section.halting != 'max' or section.rollouts.on
    if not (section.deep and usual) or asked or config.model.flow:
        return config
    log(
        f'answers are read after {_USUAL_STEPS} and after {_DEEPER * _USUAL_STEPS} ACT steps '
        f'(acc{_DEEPER}x); --config.eval.deep=False: after {_USUAL_STEPS} alone'
    )
    return dataclasses.replace(
        config, eval=dataclasses.replace(section, depth_multiples=(_DEEPER,))
    )


def costs(config: ExperimentConfig, values: Mapping[str, float]) -> dict[str, float]:
    """Returns what a puzzle of each set costs: ``<set>/gflops``, from its ACT steps.

    Args:
      config: with the sizes of the data.
      values: metrics of an evaluation; those that have ``gflops`` keep theirs (rollouts).
    """
    try:
        each = rollouts.flops_of(config, 1) / 1e9
    except NotImplementedError:  # a block that nobody has counted
        return {}
    sets = (name.removesuffix('/steps') for name in values if name.endswith('/steps'))
    return {
        f'{one}/gflops': values[f'{one}/steps'] * each
        for one in sets
        if f'{one}/gflops' not in values
    }


def _more_weights(config: ExperimentConfig, mesh, selector: str, workdir: Path):
    """Weights of one of ``eval.rollouts.checkpoints``, on the mesh."""
    saved, path = formats.open_model(selector, workdir)
    compatible.check_same_model(saved.meta | {'config': saved.config.to_dict()}, config, path)
    averaged = saved.ema is not None and config.eval.use_ema
    return train_state.put_weights(config, mesh, saved.inference_weights(averaged))


def limit_note(config: ExperimentConfig, dataset: records.PuzzleDataset) -> str:
    """A sentence where an evaluation leaves puzzles out; '' where all are evaluated."""
    answered = _answered(config, dataset)
    asked = sum(one.num_examples for one in dataset.sets.values())
    if answered == asked:
        return ''
    which, why = 'the first', f'eval.max_examples={config.eval.max_examples}'
    if config.eval.subset:
        which, why = 'a random', f'eval.subset={config.eval.subset}'
    return f'note: only {which} {answered:,} of {asked:,} puzzles are evaluated and counted ({why})'


def leak_note(config: ExperimentConfig, dataset: records.PuzzleDataset, saved: SavedModel) -> str:
    """A sentence where puzzles of a split are in the training set, if that is at hand; else ''."""
    trained = (saved.meta.get('data_facts') or {}).get('digest', '')
    if not trained or dataset.digest == trained:
        return ''
    for path in dict.fromkeys((saved.config.data.path, config.data.path)):
        try:
            training = records.load(path, 'train', config.data.format, config.data.task)
        except (UserError, OSError):
            continue  # it is not here any more
        same = (training.metadata.seq_len, training.digest) == (dataset.metadata.seq_len, trained)
        if same and (count := overlap.count(dataset, training)):
            asked = sum(one.num_examples for one in dataset.sets.values())
            return (
                f'note: {count:,} of {asked:,} puzzles of {config.eval.split!r} are in the '
                f'training set of this model, {path}'
            )
    return ''


def _answered(config: ExperimentConfig, dataset: records.PuzzleDataset) -> int:
    """Number of puzzles that an evaluation answers."""
    options = config.eval.max_examples, config.eval.drawn
    return sum(len(pipeline.eval_examples(one, *options)) for one in dataset.sets.values())


def _facts_of(
    config: ExperimentConfig, dataset: records.PuzzleDataset, saved: SavedModel
) -> dict[str, Any]:
    """What the result of an evaluation records about its data."""
    split = config.eval.split
    return {
        'digest': dataset.digest,
        'training_digest': (saved.meta.get('data_facts') or {}).get('digest', ''),
        'vocabulary': data_facts.vocabulary_digest(dataset),
        'identifiers': data_facts.identifier_digests({split: dataset}).get(split, ''),
        'answered_with': config.eval.identifiers,
    }


def _with_sizes(
    config: ExperimentConfig,
    dataset: records.PuzzleDataset,
    saved: SavedModel,
    path: Any,
    log: Callable[[str], None],
) -> ExperimentConfig:
    """Fills in the sizes of the model and checks that it may answer the data set."""
    blank = config.eval.identifiers == 'blank'
    own = compatible.check_data(
        saved.config.model,
        saved.meta,
        dataset, path, blank=blank, split=config.eval.split, log=log,
    )  # fmt: skip
    other = compatible.is_other_size(saved.config.model, saved.meta, dataset)
    sizes = ('vocab_size', 'seq_len', 'num_puzzle_identifiers')
    of = dataset.metadata if other else saved.config.model
    model = config.model.for_dataset(
        **{name: getattr(of, name) for name in sizes},
        first_symbol=saved.config.model.first_symbol,
        puzzle_tasks=saved.config.model.puzzle_tasks,
        boxes=dataset.metadata.task_of().boxes,
    )
    chosen = config.eval.identifiers if own else 'blank'
    config = dataclasses.replace(
        config, model=model, eval=dataclasses.replace(config.eval, identifiers=chosen)
    )
    compatible.check_same_model(saved.meta | {'config': saved.config.to_dict()}, config, path)
    if config.model.has_puzzle_table and own:
        puzzles.check_identifiers(dataset, config.model.num_puzzle_identifiers)
    return config
