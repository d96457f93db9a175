"""Plan of a run, made before it starts: configuration, data, devices, and its schedule."""

from collections.abc import Sequence
import dataclasses
import functools
import os
from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np

from hrm_jax import files, metrics, partitioning
from hrm_jax.checkpoint import data_facts, places
from hrm_jax.config import ExperimentConfig
from hrm_jax.data import factors, puzzles, records, sampling
from hrm_jax.errors import ConfigError
from hrm_jax.model import flops

_STEPS_AT_ONCE = 8
_LONG_RUN = 20_000  # steps: 5 % of their time is more than compiling one more program takes


@dataclasses.dataclass(frozen=True)
class Plan:
    """What stays the same during a run: configuration, data, devices, length."""

    config: ExperimentConfig
    train_data: records.PuzzleDataset
    eval_data: records.PuzzleDataset
    mesh: Mesh
    total_steps: int  # of the learning-rate schedule
    last_step: int  # where this run ends; earlier with train.max_steps
    factors: np.ndarray | None = None  # of composed embeddings: data/factors.py

    @functools.cached_property
    def data_facts(self) -> dict[str, Any]:
        """What a checkpoint records about the meaning of the data (checkpoint/data_facts.py)."""
        splits = {self.config.eval.split: self.eval_data, 'train': self.train_data}
        return data_facts.data_facts(splits)

    def _due(self, step: int) -> int:
        """Evaluations that the schedule has up to a step, evenly spread over all of it."""
        every = self.config.train.eval_interval
        whole = self.config.train.epochs // every if every else 1
        return step * whole // self.total_steps

    def lasting(self, total_steps: int) -> 'Plan':
        """This plan with another length of the schedule."""
        last = min(total_steps, self.config.train.max_steps or total_steps)
        return dataclasses.replace(self, total_steps=total_steps, last_step=last)

    @property
    def number_of_evaluations(self) -> int:
        """Evaluations of this run."""
        before = self.last_step - 1
        return min(self._due(before), before) + 1

    def evaluates_after(self, step: int) -> bool:
        """Whether an evaluation is due; one always is after the last step."""
        return step == self.last_step or self._due(step) > self._due(step - 1)

    def saves_after(self, step: int) -> bool:
        every = self.config.checkpoint.every_steps
        return self.evaluates_after(step) or (every > 0 and step % every == 0)

    @functools.cached_property
    def _steps_at_most(self) -> int:
        config, rows = self.config, self.config.train.global_batch_size
        wanted = config.train.steps_per_dispatch
        if wanted == 1 or (wanted == 0 and self.last_step < _LONG_RUN):
            return 1
        of_row = flops.train_step(config.model, config.act, config.loss)
        in_a_second = partitioning.steps_per_call(of_row, rows, self.mesh)
        if wanted == 0:
            return _STEPS_AT_ONCE if in_a_second >= 2 * _STEPS_AT_ONCE else 1
        return min(wanted, in_a_second)

    def steps_at_once(self, step: int) -> int:
        """How many of the steps after this one go to the devices in one call.

        ``train.steps_per_dispatch``, or as many as take about a second; but single ones up to the
        next save where it is nearer, as every number of steps is a program to compile. Chosen
        (0), it is more than one where that program pays: steps are tiny, and there are many.
        """
        count = self._steps_at_most
        alone = range(step + 1, step + count)
        return 1 if any(self.saves_after(between) for between in alone) else count


def make_plan(config: ExperimentConfig) -> Plan:
    """Reads the data and fills what depends on it into the configuration.

    Raises:
      ConfigError: settings that do not fit the data or the devices.
      DatasetError: the data set is missing or damaged.
    """
    ConfigError.require(
        not config.eval.rollouts.checkpoints,
        'eval.rollouts.checkpoints is for hrm-jax eval: while a model is trained, its own weights '
        'are evaluated. Leave it out here.',
    )
    config = _with_absolute_paths(config)
    mesh = partitioning.make_mesh(config=config.mesh)
    partitioning.check_fits(config, mesh)
    train_data, eval_data = (
        records.load(config.data.path, split, config.data.format, config.data.task)
        for split in ('train', config.eval.split)
    )
    metadata = train_data.metadata
    if (metadata.vocab_size, metadata.seq_len) != (
        eval_data.metadata.vocab_size, eval_data.metadata.seq_len
    ):  # fmt: skip
        raise records.DatasetError(
            f'the splits of {config.data.path} must agree on vocab_size and seq_len. Build the '
            f'data set again as a whole.'
        )
    for data, split in ((train_data, 'train'), (eval_data, config.eval.split)):
        records.DatasetError.require(
            data.has_answers,
            f'the split {split!r} of {config.data.path} must have answers; no label of it counts. '
            f'Train on another data set, or set eval.split to one with answers. (A split without '
            f'answers is predicted with --mode=eval.)',
        )
    found = None
    if config.model.composes_embeddings:
        found = factors.of_data(_all_splits(config, (train_data, eval_data)))
    model = config.model.for_dataset(
        vocab_size=metadata.vocab_size,
        seq_len=metadata.seq_len,
        num_puzzle_identifiers=metadata.num_puzzle_identifiers,
        puzzle_tasks=0 if found is None else found[1],
        first_symbol=metadata.task_of().first_symbol,
        boxes=metadata.task_of().boxes,
    )
    ConfigError.require(
        metadata.task_of().first_symbol is not None
        or not (model.has_symbols and model.shared_symbols),
        f'model.symbol_exchange={model.symbol_exchange} treats all symbols alike, but those of the '
        f'task {metadata.task or "of unknown name"} are not known to be interchangeable. Set '
        f'model.shared_symbols=False, or model.symbol_exchange=none.',
    )
    ConfigError.require(
        metadata.task_of().first_symbol is not None
        or not (model.lattice.on and 'digits' in model.lattice.views),
        f'model.lattice.views={model.lattice.views} exchanges symbols, and those of the task '
        f'{metadata.task or "of unknown name"} are not known to be interchangeable. Use '
        f'views=board or none.',
    )
    config = dataclasses.replace(config, model=model)
    if model.has_puzzle_table:
        puzzles.check_identifiers(eval_data, model.num_puzzle_identifiers)
    train = config.train
    total = sampling.total_steps(metadata, train.epochs, train.global_batch_size)
    total *= config.act.steps_per_batch
    last = min(total, train.max_steps or total)
    _check_metric_names(config, eval_data.metadata.sets)
    return Plan(
        config, train_data, eval_data, mesh, total, last, None if found is None else found[0]
    )


def _all_splits(
    config: ExperimentConfig, loaded: Sequence[records.PuzzleDataset]
) -> list[records.PuzzleDataset]:
    """Every split of the data set: their identifiers are numbered together."""
    others = {'train', 'test', 'predict'} - {'train', config.eval.split}
    return [*loaded] + [
        records.load(config.data.path, split, config.data.format, config.data.task)
        for split in sorted(others)
        if os.path.isfile(os.path.join(config.data.path, split, records.METADATA))
    ]


def _with_absolute_paths(config: ExperimentConfig) -> ExperimentConfig:
    """The paths as they are recorded, so that the run finds its data from any folder."""

    def absolute(path: str) -> str:
        return os.path.abspath(files.expanded(path)) if path and '://' not in path else path

    data, directory = config.data, config.checkpoint.directory
    if directory:
        directory = str(places.absolute(places.as_path(directory)))
    return dataclasses.replace(
        config,
        data=dataclasses.replace(data, path=absolute(data.path), source=absolute(data.source)),
        checkpoint=dataclasses.replace(config.checkpoint, directory=directory),
    )


def facts(plan: Plan) -> dict[str, Any]:
    """What must be the same in every process of a run, JSON-able."""
    config = plan.config.to_dict()
    for key in ('path', 'source'):  # the same data may be stored elsewhere
        del config['data'][key]
    del config['checkpoint']['directory']
    data = {
        'train': plan.data_facts['digest'],
        plan.config.eval.split: plan.eval_data.digest,
    }
    return {'config': config, 'data set': data, 'jax': jax.__version__}


def _check_metric_names(config: ExperimentConfig, sets: tuple[str, ...]) -> None:
    """Raises ConfigError now, not after hours, where a watched metric will never come."""
    train_names, eval_names = metric_names(sets)
    if config.chooses_answers:
        eval_names = _names(metrics.of_chosen(config), [f'eval/{one}' for one in sets])
    eval_names += [f'eval/{one}/{name}' for one in sets for name in config.eval.depth_metrics]
    watched = [('train.early_stopping.metric', config.train.early_stopping.metric,
                train_names + eval_names)]  # fmt: skip
    if config.checkpoint.keep_best:
        watched.append(('checkpoint.best_metric', config.checkpoint.best_metric, eval_names))
    for key, name, known in watched:
        if name and name not in known:
            raise ConfigError(f'{key} must be one of {", ".join(known)}; got {name!r}.')


def metric_names(sets: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Names of the training metrics and of the evaluation metrics of these sets."""

    evaluation = _names(metrics.EvalMetrics, [f'eval/{one}' for one in sets])
    return _names(metrics.TrainMetrics, ['train']), evaluation


def _names(collection: type, prefixes: Sequence[str]) -> list[str]:
    fields = [field.name for field in dataclasses.fields(collection) if field.name[0] != '_']
    return [f'{prefix}/{name}' for prefix in prefixes for name in fields]
