"""Step log: turns the sums of train steps into records, averages, progress and stop checks."""

from collections.abc import Mapping
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hrm_jax import metrics, optim
from hrm_jax.config import ExperimentConfig
from hrm_jax.run.early_stopping import EarlyStopping
from hrm_jax.run.progress import Progress, duration
from hrm_jax.run.writers import NoWriters, Writers
from hrm_jax.types import Sums

_LOSSES = ('train/lm_loss', 'train/q_halt_loss', 'train/q_continue_loss')
_SHORTEST_SECONDS = 0.5  # a speed over less means little
_STEPS_FOR_A_NOTE = 3  # steps whose time is known before a run is called too long
_TOO_LONG = 60 * 86_400.0  # seconds
_RATES = ('train/lr', 'train/puzzle_emb_lr', 'train/muon_lr')


def duration_note(seconds: float, steps_per_second: float, how: str = '') -> str:
    """A sentence where a run takes longer than anybody waits; '' elsewhere."""
    if seconds < _TOO_LONG:
        return ''
    return (
        f'note: at {steps_per_second:.3g} steps/s this run takes {how}{duration(seconds)} on this '
        f'machine. Less work: a smaller configuration (quickstart, sudoku_extreme_1k_laptop), '
        f'fewer epochs (--config.train.epochs), a smaller batch '
        f'(--config.train.global_batch_size), or a GPU or TPU.'
    )


class StepLog:
    """Records every train step one call late, so that the device never waits for the log.

    Args:
      config: the experiment.
      total_steps: length of the learning-rate schedule.
      writers: where records and averages go.
      early_stopping: sees evaluations and the averages of ``train.log_every_steps`` steps.

    Attributes:
      progress: bar of the run, None before ``start``.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        total_steps: int,
        writers: Writers | NoWriters,
        early_stopping: EarlyStopping,
    ):
        self._config, rows = config, config.train.global_batch_size
        schedules = optim.schedules(config.optimizer, total_steps)

        @jax.jit
        def measure(step, sums):
            collection = metrics.train_metrics(sums, rows)
            rates = {name: schedule(step) for name, schedule in schedules.items()}
            return collection, collection.compute() | rates

        self._measure = measure
        self._merge = jax.jit(lambda one, other: one.merge(other))
        self._rows, self._every = rows, config.train.log_every_steps
        self._writers, self._early = writers, early_stopping
        self.progress: Progress | None = None
        self._pending: list[tuple[int, metrics.TrainMetrics, dict[str, jax.Array]]] = []
        self._window: metrics.TrainMetrics | None = None
        self._restored: list[float] | None = None
        self._newest: tuple[int, Any] | None = None  # step dispatched last, its loss (jax array)
        self._done: tuple[int, float] | None = None  # steps seen to be done, and when
        self._mark: tuple[int, float] | None = None  # the same, where the speed is taken from
        self._speed: float | None = None
        self._has_line = self._warned = False
        self._first_step = 0  # logged
        self._last_step = min(total_steps, config.train.max_steps or total_steps)
        self._shown = metrics.names_of(config, metrics.TrainMetrics, 'train')

    def start(self, progress: Progress) -> None:
        """Shows the run on ``progress``."""
        self.progress = progress

    def close(self) -> None:
        """Ends the bar."""
        if self.progress is not None:
            self.progress.close()

    def record(self, step: int, *sums: Sums) -> None:
        """Takes the sums of the steps just dispatched and logs those of the call before.

        Args:
          step: number of the last of them.
          *sums: of each, in order.

        Raises:
          FloatingPointError: the loss of a step of the call before is not finite.
        """
        self._newest = (step, sums[-1].lm_loss)
        self.catch_up()
        numbers = range(step - len(sums) + 1, step + 1)
        self._pending = [
            (number, *self._measure(np.int32(number), one))
            for number, one in zip(numbers, sums, strict=True)
        ]
        if self._early.watches_training and any(number % self._every == 0 for number in numbers):
            self.catch_up()  # else the run would stop one call later than was asked

    def catch_up(self) -> None:
        """Waits for the newest step and logs all that is not logged yet.

        Raises:
          FloatingPointError: a loss is not finite.
        """
        pending, self._pending = self._pending, []
        for step, collection, on_device in pending:
            self._log(step, collection, on_device)

    def _log(
        self, step: int, collection: metrics.TrainMetrics, on_device: dict[str, jax.Array]
    ) -> None:
        values = {f'train/{name}': float(v) for name, v in jax.device_get(on_device).items()}
        self._look_at_clock(step)
        broken = [f'{n}={values[n]}' for n in _LOSSES if not math.isfinite(values[n])]
        if broken:
            raise FloatingPointError(f'the loss of step {step} is not finite ({", ".join(broken)})')
        self._writers.log.append(step, values)
        if self._restored is not None:
            restored = [jnp.asarray(v, x.dtype) for v, x in
                        zip(self._restored, jax.tree.leaves(collection), strict=True)]  # fmt: skip
            self._window = jax.tree.unflatten(jax.tree.structure(collection), restored)
            self._restored = None
        self._window = collection if self._window is None else self._merge(self._window, collection)
        assert self.progress is not None  # ``start`` comes before the first record
        if step % self._every == 0:
            self._note_duration(step)
            self._log_line(step, values)
        elif self._has_line:
            self.progress.update(1)
        else:  # nobody should wait for the first line
            self.progress.update(1, *self._facts(values), minor=True)
            self._note_duration(step)

    def _facts(self, values: Mapping[str, float]) -> list[str]:
        """What stands behind the bar, the most important first."""
        facts = [f'loss {values["train/lm_loss"]:.4f}']
        if (exact := values.get('train/exact_accuracy')) is not None:
            facts.append(f'exact {exact:.1%}')
        if speed := self._speed or self._speed_so_far():
            facts += [f'{speed:.3g} steps/s', f'{speed * self._rows:.4g} examples/s']
        return facts

    def _note_duration(self, step: int) -> None:
        """Prints once, as soon as it can be known, that a run takes longer than anybody waits."""
        speed = self._speed or self._speed_so_far()
        self._first_step = self._first_step or step
        if self._warned or not speed or step - self._first_step < _STEPS_FOR_A_NOTE:
            return
        self._warned = True
        if text := duration_note((self._last_step - step) / speed, speed):
            assert self.progress is not None
            self.progress.say(text)

    def _speed_so_far(self) -> float:
        """Steps per second since the clock started; 0: none yet."""
        if self._mark is None or self._done is None:
            return 0.0
        steps, seconds = self._done[0] - self._mark[0], self._done[1] - self._mark[1]
        return steps / seconds if seconds > 0 else 0.0

    def _log_line(self, step: int, values: Mapping[str, float]) -> None:
        assert self._window is not None  # see ``_log``
        assert self.progress is not None
        rates = {name: values[name] for name in _RATES if name in values}
        means = metrics.to_floats(self._window, 'train')
        self._window = None
        self._early.update(means)
        self._writers.scalars(step, {n: v for n, v in means.items() if n in self._shown} | rates)
        if self._measure_speed() and self._speed is not None:
            examples = self._speed * self._rows
            self._writers.timing(step, steps_per_second=self._speed, examples_per_second=examples)
        self._has_line = True
        self.progress.update(1, *self._facts(means))

    def _look_at_clock(self, step: int) -> None:
        # A device that computes while it is called (CPU) has finished the newest step as well.
        assert self._newest is not None  # ``record`` came before
        newest, loss = self._newest
        self._done = (newest if loss.is_ready() else step, time.perf_counter())
        self._mark = self._mark or self._done

    def _measure_speed(self) -> bool:
        """Takes the speed since the last time; leaves it as it was where that is no time ago."""
        assert self._mark is not None  # ``_look_at_clock`` came before
        assert self._done is not None
        (before, began), (done, now) = self._mark, self._done
        if done == before or (self._speed is not None and now - began < _SHORTEST_SECONDS):
            return False
        self._speed = (done - before) / max(now - began, 1e-9)
        self._mark = self._done
        return True

    def record_evaluation(self, step: int, values: Mapping[str, float], seconds: float) -> None:
        """Adds an evaluation to the record of its step."""
        self._writers.log.extend(values)
        self._writers.scalars(step, metrics.of_model(self._config, values))
        self._writers.timing(step, evaluation_seconds=seconds)
        self._early.update(values)

    def restart_clock(self) -> None:
        """Leaves the time up to now out of the speeds (compiling, evaluating, saving)."""
        self._mark = self._done and (self._done[0], time.perf_counter())

    def get_state(self) -> list[float] | None:
        """Sums of the steps since the last log line, JSON-able."""
        if self._restored is not None:
            return self._restored
        leaves = jax.device_get(jax.tree.leaves(self._window))
        return [leaf.item() for leaf in leaves] if self._window is not None else None

    def set_state(self, state: list[float] | None) -> None:
        """Takes the sums over; there must be no step in between."""
        self._restored = state
