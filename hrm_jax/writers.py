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
import sys
import types
from typing import Any

import jax

from hrm_jax import workdir as workdir_lib
from hrm_jax.config import ConfigError, ExperimentConfig

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
        workdir_lib.write_atomically(path, ''.join(json.dumps(r) + '\n' for r in kept))
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


def _clu_summary_writer(directory: Path, first_step: int):
    """Returns a clu metric writer for TensorBoard that needs no TensorFlow.

    clu's own summary writer imports TensorFlow at import time of the package, so a module of
    that name, over tensorboardX, has to be in place before.
    """
    import tensorboardX

    class SummaryWriter:
        def __init__(self, logdir: str):
            purge = first_step if first_step > 1 else None
            self._writer = tensorboardX.SummaryWriter(logdir, purge_step=purge)

        def write_scalars(self, step: int, scalars: Metrics) -> None:
            for name, value in scalars.items():
                self._writer.add_scalar(name, float(value), step)

        def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
            for name, value in texts.items():
                self._writer.add_text(name, value, step)

        def flush(self) -> None:
            self._writer.flush()

        def close(self) -> None:
            self._writer.close()

    name = 'clu.metric_writers.summary_writer'
    if name not in sys.modules:
        module = types.ModuleType(name)
        module.SummaryWriter = SummaryWriter
        sys.modules[name] = module
    from clu import metric_writers

    return metric_writers.AsyncMultiWriter([SummaryWriter(os.fspath(directory))])


class _WandbWriter:
    """Weights & Biases run that goes on under the same id after a resume."""

    def __init__(self, directory: Path, config: ExperimentConfig):
        try:
            import wandb
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
        workdir_lib.write_atomically(id_path, self._run.id)

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
      say: prints a message for the user.

    """

    def __init__(
        self,
        directory: Path,
        config: ExperimentConfig,
        last_step: int = 0,
        last_record: dict[str, Any] | None = None,
        say: Callable[[str], None] = print,
    ):
        self.log = MetricLog(directory / 'metrics.jsonl', last_step, last_record)
        if self.log.missing:
            say(
                f'note: {directory / "metrics.jsonl"} lacks {self.log.missing} of the records '
                f'before step {last_step}.'
            )
        self._timing = (directory / 'timing.jsonl').open('a', encoding='utf-8')
        self._others = []
        if config.logging.tensorboard:
            try:
                self._others.append(_clu_summary_writer(directory / 'tensorboard', last_step + 1))
            except ImportError as error:
                say(
                    f'note: no TensorBoard files, because {error.name} is not installed '
                    f'(pip install clu tensorboardX); metrics.jsonl is complete without it.'
                )
        if config.logging.wandb:
            self._others.append(_WandbWriter(directory, config))

    def scalars(self, step: int, metrics: Metrics) -> None:
        """Sends averages or evaluation results to TensorBoard and W&B."""
        for writer in self._others:
            writer.write_scalars(step, {k: v for k, v in metrics.items() if math.isfinite(v)})

    def timing(self, step: int, **values: Any) -> None:
        """Notes speeds (per second) and durations (seconds) in timing.jsonl."""
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


class Progress:
    """Progress bar through tqdm where it is installed, else a line now and then.

    Only the first of several processes shows it.

    Args:
      title: stands before the bar.
      total, initial: steps in all, and those already done.
      unit: what is counted.
    """

    def __init__(self, title: str, total: int, initial: int = 0, unit: str = 'step'):
        self._bar = None
        self._silent = jax.process_index() > 0
        try:
            import tqdm
        except ImportError:
            tqdm = None
        if tqdm is not None and not self._silent:
            # A file or pipe keeps every refresh for ever, a terminal does not.
            pause = 0.2 if sys.stderr.isatty() else 10.0
            self._bar = tqdm.tqdm(
                desc=title, total=total, initial=initial, unit=unit, mininterval=pause,
                dynamic_ncols=True, leave=True, file=sys.stderr,
                bar_format='{desc}: {percentage:3.0f}% {bar:12} {n_fmt}/{total_fmt} '
                '[{elapsed}<{remaining}{postfix}]',
            )  # fmt: skip
        self._title, self._total, self._done, self._text = title, total, initial, ''

    def update(self, steps: int, text: str | None = None) -> None:
        """Advances by ``steps``; ``text`` stands behind the bar."""
        self._done += steps
        self._text = self._text if text is None else text
        if self._bar is not None:
            if text is not None:
                self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(steps)
        elif text is not None:
            self.say(f'{self._title}: {self._done}/{self._total} {text}')

    def say(self, message: str) -> None:
        """Prints a line without tearing the bar."""
        if self._bar is not None:
            self._bar.write(message, file=sys.stderr)
        elif not self._silent:
            print(message, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leaves the bar as it is; may be called again."""
        if self._bar is not None:
            self._bar.refresh()
            self._bar.close()
            self._bar = None

    def __enter__(self) -> 'Progress':
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()
