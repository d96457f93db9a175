"""Resources that a run keeps open from first to last step: lock, log, saver, stop request."""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
import functools
import os
from pathlib import Path
import time
from typing import Any

import jax

from hrm_jax import files, partitioning
from hrm_jax.checkpoint import layout, places
from hrm_jax.checkpoint import lease as lease_lib
from hrm_jax.checkpoint.saver import Saver
from hrm_jax.config import ExperimentConfig
from hrm_jax.run import branches, copies, device_memory, distributed, estimate, summary
from hrm_jax.run import plan as plan_lib
from hrm_jax.run import start as start_lib
from hrm_jax.run import workdir as workdir_lib
from hrm_jax.run.early_stopping import EarlyStopping
from hrm_jax.run.progress import Progress
from hrm_jax.run.step_log import StepLog
from hrm_jax.run.writers import NoWriters, Writers
from hrm_jax.types import Sums, TrainState

Log = Callable[[str], None]
_SLOW_SAVE = 30.0  # seconds that training waits for the storage before a note is logged


@contextlib.contextmanager
def open_session(
    config: ExperimentConfig,
    workdir: str | os.PathLike,
    selector: str,
    log: Log,
    start_timeout: int,
    accept_data_change: bool = False,
) -> Iterator['Session']:
    """Prepares a run, and finishes what is still being written when the block ends.

    Reads the data, compares what the processes have, locks the workdir and makes or restores the
    first state.

    Args:
      config: the experiment.
      workdir: folder of the run; one process at a time.
      selector: checkpoint to begin from (start.py); empty: the latest of the workdir, if any.
      log: prints a message; only that of the first process is called.
      start_timeout: seconds that processes wait for each other before the first step.
      accept_data_change: resumes also where the training set is another one of the same sizes.

    Raises:
      UserError: of any kind; what is wrong and what to do.
    """
    first = distributed.is_first()
    log = log if first else lambda _message: None
    lease = lease_lib.Lease()
    with contextlib.ExitStack() as resources:
        with distributed.arrival(start_timeout) as facts:
            workdir = workdir_lib.prepare(workdir)
            resources.callback(workdir_lib.remove_if_empty, workdir)
            plan = plan_lib.make_plan(config)
            if first:
                resources.enter_context(workdir_lib.lock(workdir, log))
                lease = _lease(plan.config, workdir, resources, log)
            facts |= plan_lib.facts(plan)
        stop = resources.enter_context(distributed.stop_request())
        start = start_lib.begin(plan, workdir, selector, log, accept_data_change)
        yield Session(start, workdir, stop, resources, log, lease)


def _lease(
    config: ExperimentConfig, workdir: Path, resources: contextlib.ExitStack, log: Log
) -> lease_lib.Lease:
    """Of ``checkpoint.directory``; the workdir has its own lock."""
    directory = config.checkpoint.directory
    place = places.absolute(places.as_path(directory)) if directory else workdir
    if str(place) == str(workdir):
        return lease_lib.Lease()
    places.check_installed(place)
    return resources.enter_context(lease_lib.held(place, log))


class Session:
    """One run in progress, apart from its arrays.

    Attributes:
      start: where it began; ``start.plan`` is what stays the same while it lasts.
      workdir: its folder.
      stop: the stop request.
      log: prints a message.
    """

    def __init__(
        self,
        start: start_lib.Start,
        workdir: Path,
        stop: workdir_lib.StopRequest,
        resources: contextlib.ExitStack,
        log: Log,
        lease: lease_lib.Lease,
    ):
        self._lease = lease
        self.start, self.workdir, self.stop, self.log = start, workdir, stop, log
        self.plan, config = start.plan, start.plan.config
        self._resources = resources
        self._saver = resources.enter_context(Saver(workdir, config.checkpoint, log))
        self._writers: Writers | NoWriters = NoWriters()
        self._copies: copies.Copies | None = None
        if distributed.is_first():
            self._copies = copies.Copies(workdir, layout.root(workdir), log)
            self._copies.fetch()
            resources.callback(self._copies.close)
            files.write_text(workdir / workdir_lib.CONFIG, config.to_json() + '\n')
            self._writers = Writers(workdir, config, start.step, start.meta.get('record'), log)
        resources.callback(self._writers.close)
        self._early = EarlyStopping(config.train.early_stopping)
        self._steps = StepLog(config, self.plan.total_steps, self._writers, self._early)
        if start.meta:
            self._early.set_state(start.meta['early_stopping'])
            self._steps.set_state(start.meta['log'])
        self._log_header()

    @property
    def stops_early(self) -> bool:
        """Whether the watched metric no longer improves."""
        return self._early.should_stop

    @property
    def ends(self) -> bool:
        """Whether the run ends here: a stop signal, or early stopping."""
        return bool(self.stop) or self._early.should_stop

    def agree_to_end(self) -> bool:
        """``ends``, the same in all processes; to be called once per call of the train step."""
        return self.stop.agreed() or self._early.should_stop

    def run_steps(
        self, train_steps: Callable, state: TrainState, batches: tuple[Any, ...], step: int
    ) -> tuple[TrainState, tuple[Sums, ...]]:
        """Runs train steps; the first call also compiles, is timed, and begins the bar."""
        if self._steps.progress is not None:
            return train_steps(state, batches)
        self.log('compiling the train step ...')
        began = time.perf_counter()
        lower = functools.partial(train_steps.lower, state, batches)
        with device_memory.explained(self.plan.config, 'a train step', lower):
            state, sums = train_steps(state, batches)
            jax.block_until_ready(sums)
        self.log(f'compiled, and ran the first step, in {time.perf_counter() - began:.1f} s')
        bar = Progress('train', self.plan.last_step, step)
        self._steps.start(self._resources.enter_context(bar))
        return state, sums

    def log_steps(self, step: int, sums: tuple[Sums, ...]) -> None:
        """Records the steps of the call that ended with ``step`` (one call late)."""
        self._steps.record(step, *sums)

    def catch_up(self) -> None:
        """Waits for the newest step and records it.

        Raises:
          FloatingPointError: its loss is not finite.
        """
        self._steps.catch_up()

    def log_evaluation(self, step: int, values: Mapping[str, float], seconds: float) -> None:
        """Adds an evaluation to the record of its step."""
        self._steps.record_evaluation(step, values, seconds)

    def save_is_due(self) -> bool:
        """Whether a save in the background has failed and is to be tried again; does not wait.

        Raises:
          CheckpointError: it failed in a way that does not pass.
        """
        return self._saver.save_is_due()

    def save(
        self, state: TrainState, step: int, data_position: Any, scores: dict[str, float]
    ) -> None:
        """Writes a checkpoint in the background, after the one before is finished.

        Raises:
          WorkdirError: another run writes in ``checkpoint.directory`` now.
        """
        self._lease.check()
        self._writers.flush()
        if self._copies is not None:
            self._copies.start()
        began = time.perf_counter()
        self._saver.save(state, data_position, self._description(step, scores))
        seconds = time.perf_counter() - began
        self._writers.timing(step, save_seconds=seconds)
        if seconds > _SLOW_SAVE:
            self.log(
                f'note: training waited {seconds:.0f} s for the save before step {step}. Raise '
                f'checkpoint.every_steps, or use faster storage.'
            )
        self._steps.restart_clock()

    def add_scores(self, step: int, scores: dict[str, float]) -> None:
        """Adds the evaluation that a stop signal had interrupted to the checkpoint of the start."""
        assert self.start.path is not None  # only a resumed run has a step to evaluate
        if distributed.is_first():
            layout.add_evaluation(self.start.path, self._description(step, scores))

    def finish(self, step: int, scores: Mapping[str, float], save: Callable[[], None]) -> None:
        """Waits for the last save and logs how the run ended.

        Args:
          step: train steps done.
          scores: of the last evaluation.
          save: saves the state of the end once more, where the storage did not answer.
        """
        self._steps.close()
        self._saver.wait()
        while self._saver.is_behind:
            time.sleep(self._saver.seconds_to_next_attempt())
            save()
            self._saver.wait()
        self._log_summary(step, scores)

    def advice_after_a_broken_step(self) -> str:
        """Names the last good checkpoint, once it is on the disk."""
        return self._saver.advice_after_a_broken_step()

    def _description(self, step: int, scores: Mapping[str, float]) -> dict[str, Any]:
        """Metadata of a checkpoint: all that the arrays do not hold."""
        return {
            'step': step,
            'total_steps': self.plan.total_steps,
            'config': self.plan.config.to_dict(),
            'dataset': dataclasses.asdict(self.plan.train_data.metadata),
            'data_facts': self.plan.data_facts,
            'metrics': dict(scores),
            'record': self._writers.log.held,
            'log': self._steps.get_state(),
            'early_stopping': self._early.get_state(),
            'versions': start_lib.versions(),
            'branches': branches.read(self.workdir),
        }

    def _log_header(self) -> None:
        plan, data = self.plan, self.plan.train_data
        self.log(f'{plan.config.name}: {partitioning.describe(plan.mesh)}, jax {jax.__version__}')
        task = data.metadata.task or 'unknown'
        if data.task_is_guessed:
            task += ' (guessed; --config.data.task=NAME states another)'
        self.log(
            f'data: {data.path}, task {task}, {data.metadata.total_groups:,} groups of puzzles'
        )
        self.log(f'parameters:\n{summary.parameters(self.start.state.weights)}')
        self.log(
            f'steps: {plan.last_step:,}, {self.start.step:,} of them done; '
            f'{plan.config.train.global_batch_size:,} examples each'
        )
        if distributed.is_first() and not self.start.step and (note := estimate.warning(plan)):
            self.log(note)

    def _log_summary(self, step: int, scores: Mapping[str, float]) -> None:
        if scores:
            self.log(summary.metrics_table(scores, self.plan.config))
        where = f'checkpoint: {layout.root(self.workdir) / layout.FOLDER / str(step)}'
        if self.stop:
            self.log(f'{self.stop.name}: stopped after step {step} of {self.plan.last_step}; '
                     f'{where}\nThe same command resumes from there.')  # fmt: skip
        elif self._early.should_stop:
            self.log(f'stopped early after step {step}: {self._early.reason}; {where}')
        else:
            self.log(f'done: {step} steps; {where}')
