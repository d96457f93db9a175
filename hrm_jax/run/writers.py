"""Where metrics go: metrics.jsonl always, TensorBoard and Weights & Biases when there.

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
from hrm_jax.errors import ConfigError

Metrics = Mapping[str, float]


def _finite_or_null(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: an accuracy over no puzzles becomes null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }


def read_records(path: Path) -> list[dict[str, Any]]:
    """Returns the records of a JSONL file up to the first line that is not whole."""
    records = []
    if path.exists():
        for line in path.read_text(encoding='utf-8', errors='replace').splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:  # the process died while it wrote this line
                break
    return records


class MetricLog:
    """Append-only JSONL file that can be cut back to a step.

    The newest record is held in memory, because an evaluation may add to it, and travels in
    the checkpoint's metadata. So the file and the checkpoint agree wherever a process dies.

    Args:
      path: the file.
      last_step: step that the run continues from. Later records, of a process that went on
        after its last checkpoint, are cut away.
      last_record: the record of that step as the checkpoint has it.

    Attributes:
      held: the newest record, not yet in the file.
      missing: how many of the steps before ``last_step`` have no record.
    """

    def __init__(self, path: Path, last_step: int = 0, last_record: dict[str, Any] | None = None):
        kept = [record for record in read_records(path) if record['step'] < last_step]
        files.write_text(path, ''.join(json.dumps(r) + '\n' for r in kept))
        self.held = last_record
        self.missing = max(last_step - 1, 0) - len(kept)
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


class _TensorBoardWriter:
    """TensorBoard event files; tensorboardX writes them in a thread of its own."""

    def __init__(self, directory: Path, first_step: int):
        import tensorboardX

        # Events of steps that an interrupted run did after its last checkpoint are hidden.
        purge = first_step if first_step > 1 else None
        self._writer = tensorboardX.SummaryWriter(os.fspath(directory), purge_step=purge)

    def write_scalars(self, step: int, scalars: Metrics) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, float(value), step)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _WandbWriter:
    """Weights & Biases run that goes on under the same id after a resume."""

    def __init__(self, directory: Path, config: ExperimentConfig):
        try:
            import wandb  # pyright: ignore[reportMissingImports]  # not among the requirements
        except ImportError as error:
            raise ConfigError(
                'logging.wandb=true needs the package wandb. Install it (pip install wandb) or '
                'leave logging.wandb at false.'
            ) from error
        id_path = directory / 'wandb_id.txt'
        self._run = wandb.init(
            project=config.logging.wandb_project,
            name=config.name,
            id=id_path.read_text().strip() if id_path.exists() else None,
            resume='allow',
            dir=os.fspath(directory),
            config=config.to_dict(),
        )
        files.write_text(id_path, self._run.id)

    def write_scalars(self, step: int, scalars: Metrics) -> None:
        self._run.log(dict(scalars), step=step)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._run.finish()


class Writers:
    """All destinations of a run's metrics behind one object.

    Args:
      directory: the working directory.
      config: says which destinations are wanted.
      last_step, last_record: where the run continues (``MetricLog``).
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
        if self.log.missing:
            log(
                f'note: {directory / "metrics.jsonl"} lacks {self.log.missing} of the records '
                f'before step {last_step}.'
            )
        self._timing = (directory / 'timing.jsonl').open('a', encoding='utf-8')
        self._others = []
        if config.logging.tensorboard:
            try:
                self._others.append(_TensorBoardWriter(directory / 'tensorboard', last_step + 1))
            except ImportError as error:
                log(
                    f'note: no TensorBoard files, because {error.name} is not installed '
                    f'(pip install tensorboardX); metrics.jsonl is complete without it.'
                )
        if config.logging.wandb:
            self._others.append(_WandbWriter(directory, config))

    def scalars(self, step: int, metrics: Metrics) -> None:
        """Sends averages or evaluation results to TensorBoard and W&B."""
        for writer in self._others:
            writer.write_scalars(step, {k: v for k, v in metrics.items() if math.isfinite(v)})

    def timing(self, step: int, **values: Any) -> None:
        """Records speeds (per second) and durations (seconds) in timing.jsonl."""
        self._timing.write(json.dumps({'step': step} | _finite_or_null(values)) + '\n')
        self._timing.flush()

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
