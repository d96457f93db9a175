"""Metric writers: metrics.jsonl always, TensorBoard and Weights & Biases when installed.

``metrics.jsonl`` has one record per train step, and an evaluation's metrics join the record
of the step that they were made after. It holds nothing that depends on the clock, so two
runs of the same configuration give the same bytes, also when one of them was interrupted.
"""

from collections.abc import Callable, Mapping
import json
import math
import os
from pathlib import Path
from typing import Any

from hrm_jax import files
from hrm_jax.config import ExperimentConfig
from hrm_jax.run import trackers

Metrics = Mapping[str, float]


def _finite_or_null(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: an accuracy over no puzzles becomes null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The record in a line; None where the line is damaged or truncated (its process died)."""
    try:
        record = json.loads(line.decode('utf-8'))
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    step = record.get('step')
    return record if isinstance(step, int) and not isinstance(step, bool) else None


def read_records(path: Path) -> list[dict[str, Any]]:
    """Returns the records of a metrics file; damaged lines are left out."""
    if not path.exists():
        return []
    return [record for line in path.read_bytes().split(b'\n') if (record := _parsed(line))]


class MetricLog:
    """Append-only JSONL file that can be taken back to a step.

    The newest record is held in memory, because an evaluation may add to it, and travels in
    the checkpoint's metadata. So the file and the checkpoint agree wherever a process dies.

    No line is ever deleted: what must not stay in the file is appended to one of the same name in
    ``set_aside/``.

    Args:
      path: the file.
      last_step: step that the run resumes from. Later records, of a process that continued
        after its last checkpoint, are set aside, as this run writes them again.
      last_record: the record of that step as the checkpoint has it.

    Attributes:
      held: the newest record, not yet in the file.
      missing: how many of the steps before ``last_step`` have no record.
      damaged: how many lines were no records and are set aside.
      aside: the file that has what was set aside.
    """

    def __init__(self, path: Path, last_step: int = 0, last_record: dict[str, Any] | None = None):
        self.aside = path.parent / 'set_aside' / path.name
        kept: dict[int, bytes] = {}
        later: list[bytes] = []
        damaged: list[bytes] = []
        content = path.read_bytes() if path.exists() else b''
        *lines, rest = content.split(b'\n')
        if rest and _parsed(rest) is not None:
            lines, rest = [*lines, rest], b''
        for line in lines:
            record = _parsed(line)
            if record is None:
                damaged.append(line)
            elif record['step'] >= last_step:
                later.append(line)
            else:
                before = kept.pop(record['step'], None)  # two writers at once: the later one
                damaged += [] if before in (None, line) else [before]
                kept[record['step']] = line
        if rest:
            later.append(rest)  # the process died while it wrote this line
        if later or damaged:
            self.aside.parent.mkdir(exist_ok=True)
            with self.aside.open('ab') as file:
                file.write(b''.join(line + b'\n' for line in later + damaged))
                file.flush()
                os.fsync(file.fileno())
        # Only a record of the last step may stand in the checkpoint alone.
        text = b''.join(line + b'\n' for line in kept.values())
        if text != content or not path.exists():
            with files.replacing(path) as beside:
                beside.write_bytes(text)
        self.held = last_record
        self.damaged = len(damaged)
        self.missing = max(last_step - 1, 0) - sum(step > 0 for step in kept)
        self._file = path.open('a', encoding='utf-8')

    def append(self, step: int, metrics: Metrics) -> None:
        """Adds the record of a step."""
        self._write_held()
        self.held = {'step': step} | _finite_or_null(metrics)

    def extend(self, metrics: Metrics) -> None:
        """Adds metrics to the newest record."""
        self.held = (self.held or {'step': 0}) | _finite_or_null(metrics)

    def _write_held(self) -> None:
        if self.held is not None:
            self._file.write(json.dumps(self.held) + '\n')
            self.held = None

    def flush(self) -> None:
        """Brings every record but the held one to the disk: what a checkpoint relies on."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._write_held()
        self._file.close()


class Writers:
    """All destinations of a run's metrics behind one object.

    Args:
      directory: the working directory.
      config: states which destinations are wanted.
      last_step, last_record: where the run resumes (``MetricLog``).
      log: prints a message.

    """

    def __init__(
        self,
        directory: Path,
        config: ExperimentConfig,
        last_step: int = 0,
        last_record: dict[str, Any] | None = None,
        log: Callable[[str], None] = print,
    ):
        self.log = MetricLog(directory / 'metrics.jsonl', last_step, last_record)
        if self.log.damaged:
            log(
                f'note: damaged lines of {directory / "metrics.jsonl"} were moved to '
                f'{self.log.aside} ({self.log.damaged}); all others are kept.'
            )
        if self.log.missing > 0:
            log(
                f'note: {directory / "metrics.jsonl"} lacks {self.log.missing} of the records '
                f'before step {last_step}.'
            )
        self._timing = (directory / 'timing.jsonl').open('a', encoding='utf-8')
        self._others: list[trackers.Tracker] = []
        if config.logging.tensorboard:
            try:
                self._others.append(trackers.TensorBoard(directory / 'tensorboard', last_step + 1))
            except ImportError as error:
                log(
                    f'note: no TensorBoard files, because {error.name} is not installed '
                    f'(pip install tensorboardX); metrics.jsonl is complete without it.'
                )
        if config.logging.wandb:
            self._others.append(trackers.Wandb(directory, config, log))
        measured = [f'train/{name}' for name in ('lm_loss', 'exact_accuracy')]
        for writer in self._others:
            writer.write_settings(config, [*measured, config.checkpoint.best_metric])

    def scalars(self, step: int, metrics: Metrics) -> None:
        """Sends averages or evaluation results to TensorBoard and W&B."""
        for writer in self._others:
            writer.write_scalars(step, {k: v for k, v in metrics.items() if math.isfinite(v)})

    def timing(self, step: int, **values: Any) -> None:
        """Records speeds (per second) and durations (seconds) in timing.jsonl."""
        self._timing.write(json.dumps({'step': step} | _finite_or_null(values)) + '\n')
        self._timing.flush()
        self.scalars(step, {f'timing/{name}': value for name, value in values.items()})

    def flush(self) -> None:
        self.log.flush()
        for writer in self._others:
            writer.flush()

    def close(self) -> None:
        self.log.close()
        self._timing.close()
        for writer in self._others:
            writer.close()


class NoLog:
    """Stands for ``MetricLog`` where another process keeps it."""

    held = None

    def append(self, step: int, metrics: Metrics) -> None:
        pass

    def extend(self, metrics: Metrics) -> None:
        pass


class NoWriters:
    """Stands for ``Writers`` in the processes that write nothing."""

    log = NoLog()

    def scalars(self, step: int, metrics: Metrics) -> None:
        pass

    def timing(self, step: int, **values: Any) -> None:
        pass

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass
