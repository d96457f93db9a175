"""One run of the study: as many steps as its FLOPs allow, then the tests; what is left of it.

A run is trained by the sweep machinery, in a process of its own, in WORKDIR/TASK/ARM/seed=N: one
that was interrupted resumes from its last checkpoint. What counts is kept in a small record beside
the results, so that a study continues where only the records are left.
"""

from collections.abc import Callable, Mapping
import dataclasses
import hashlib
import json
import math
from pathlib import Path
import resource
import subprocess
import sys
import time
from typing import Any

from experiments import originals
from experiments.study import arms
from experiments.study.arms import Arm, Task
from hrm_jax import curriculum, files
from hrm_jax.config import ExperimentConfig
from hrm_jax.data import records
from hrm_jax.errors import WorkdirError
from hrm_jax.run import sweep as sweeps
from hrm_jax.run.writers import read_records

EVALUATIONS = 6  # while it trains, on some of the test puzzles
DEEPER = 4  # times the trained depth


class Interrupted(Exception):
    """A run ended early; the message names its exit code."""


@dataclasses.dataclass(frozen=True)
class Record:
    """What is known of a finished run.

    Attributes:
      task, arm, seed: which run.
      digest: of its settings.
      settings: changes of the arm, for the reader.
      steps: train steps.
      flops: of the training, matrix products.
      parameters: trained numbers, and those of the puzzle table.
      curve: (step, exact accuracy on some of the test puzzles) while it trains.
      tests: name of a test -> metric -> value, on all test puzzles.
      gflops: name of a test -> billions of FLOPs for a puzzle.
      core_seconds: CPU time of its processes.
      commit: of the checkout.
    """

    task: str
    arm: str
    seed: int
    digest: str
    settings: Mapping[str, Any]
    steps: int
    flops: float
    parameters: tuple[int, int]
    curve: list[tuple[int, float]]
    tests: Mapping[str, Mapping[str, float]]
    gflops: Mapping[str, float]
    core_seconds: float
    commit: str

    @property
    def key(self) -> tuple[str, str, int]:
        return self.task, self.arm, self.seed

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> 'Record':
        lists = {'curve': [tuple(point) for point in values['curve']],
                 'parameters': tuple(values['parameters'])}  # fmt: skip
        return cls(**{**values, **lists})


def slug(name: str) -> str:
    """Name of a folder or file."""
    return name.replace(' ', '-')


def with_length(config: ExperimentConfig, data: Path, budget: float) -> ExperimentConfig:
    """Returns the configuration that trains for ``budget`` FLOPs, sizes of the data filled in.

    The schedule ends where the run does, up to the rounding to whole epochs between evaluations.
    """
    metadata = records.load(data, 'train').metadata
    model = config.model.for_dataset(
        vocab_size=metadata.vocab_size,
        seq_len=metadata.seq_len,
        num_puzzle_identifiers=metadata.num_puzzle_identifiers,
    )
    sized = dataclasses.replace(config, model=model)
    batch = config.train.global_batch_size
    steps = max(EVALUATIONS, round(budget / (curriculum.mean_train_flops(sized) * batch)))
    epoch = metadata.total_groups * metadata.mean_puzzle_examples
    every = max(1, math.ceil(steps * batch / epoch / EVALUATIONS))
    train = dataclasses.replace(
        config.train, epochs=every * EVALUATIONS, eval_interval=every, max_steps=steps
    )
    data_config = dataclasses.replace(config.data, path=str(data))
    return dataclasses.replace(sized, train=train, data=data_config)


def configuration(task: Task, arm: Arm, workdir: Path, scale: float) -> ExperimentConfig:
    """Returns the configuration of an arm's runs; their seed is set on the command line."""
    config = arms.experiment({**arm.settings(task), 'name': f'{task.name}, {arm.name}'})
    data = arms.data_folder(workdir, task, arm.hints).absolute()
    return with_length(config, data, task.flops * scale)


def digest(config: ExperimentConfig) -> str:
    """Returns a short digest of the settings that make a run what it is."""
    changed = originals.changed(config)
    values = {key: value for key, value in changed.items() if originals.has_influence(key)}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def run(
    task: Task,
    arm: Arm,
    seed: int,
    config: ExperimentConfig,
    workdir: Path,
    spend: Callable[[float], None],
    log: Callable[[str], None],
) -> Record:
    """Trains and tests one run, or resumes it.

    Args:
      task, arm, seed: which.
      config: from ``configuration``.
      workdir: of the study.
      spend: is told the core-seconds of what was done, also when it was interrupted.
      log: prints a message.

    Raises:
      Interrupted: a signal ended it, or it failed.
    """
    folder = workdir / task.name / slug(arm.name)
    file = workdir / task.name / f'{slug(arm.name)}.json'
    if (
        file.is_file()
        and folder.exists()
        and ExperimentConfig.from_json(file.read_text()) != config
    ):
        raise WorkdirError(
            f'{folder} has runs with other settings than the study has now. Give another '
            f'--workdir, or remove that folder.'
        )
    files.write_text(file, config.to_json())
    began = _core_seconds()
    place = folder / f'seed={seed}'
    result = place / 'tests.json'
    try:
        one = sweeps.Sweep(str(file), (), (sweeps.Run({}, seed),))
        code = sweeps.execute(one, folder, lambda text: log(f'{task.name}, {arm.name}, {text}'))
        if code:
            raise Interrupted(f'{task.name}, {arm.name}, seed {seed}: exit code {code}')
        command = [sys.executable, '-m', 'experiments.study.tests', str(place), str(result),
                   json.dumps(tests_of(config, arm))]  # fmt: skip
        done = subprocess.run(command, check=False)
        if done.returncode:
            raise Interrupted(f'{task.name}, {arm.name}, tests: exit code {done.returncode}')
    finally:
        spent = _core_seconds() - began
        spend(spent)
    found = files.read_json(result, WorkdirError, dict)
    lines = read_records(place / 'metrics.jsonl')
    return Record(
        task=task.name, arm=arm.name, seed=seed, digest=digest(config),
        settings={**arm.base, **arm.changes},
        steps=config.train.max_steps,
        flops=curriculum.mean_train_flops(config) * config.train.max_steps
        * config.train.global_batch_size,
        parameters=tuple(found['parameters']),
        curve=[(line['step'], line['eval/all/exact_accuracy']) for line in lines
               if 'eval/all/exact_accuracy' in line],
        tests=found['tests'], gflops=found['gflops'], core_seconds=spent, commit=commit(),
    )  # fmt: skip


def tests_of(config: ExperimentConfig, arm: Arm) -> dict[str, dict[str, Any]]:
    """Returns the tests of an arm: name -> settings; named by depth where nothing else differs."""
    usual = config.act.halt_max_steps
    depths = {f'D{steps}': {'eval.halt_max_steps': steps} for steps in (usual, DEEPER * usual)}
    deepest = {'eval.halt_max_steps': DEEPER * usual}
    more = {name: {**deepest, **settings} for name, settings in arm.tests.items()}
    return {**depths, **more}


def score_of(arm: Arm, config: ExperimentConfig) -> str:
    """Name of the test that an arm is judged by."""
    usual = config.act.halt_max_steps
    return f'D{DEEPER * usual if arm.deep else usual}'


def commit() -> str:
    """Short hash of the checkout, 'unknown' outside of one."""
    command = ['git', 'rev-parse', '--short', 'HEAD']
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or 'unknown'


def _core_seconds() -> float:
    """CPU time of this process and of all its children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + used.ru_utime + used.ru_stime
