"""Writes the checkpoints of a run in the background, and makes sure that they can be read."""

from collections.abc import Callable, Mapping
import contextlib
import json
from pathlib import Path
import re
import time
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint._src.serialization import tensorstore_utils

from hrm_jax import locks
from hrm_jax.checkpoint import digest_item, digests, layout, retention
from hrm_jax.checkpoint.places import absolute, plain
from hrm_jax.checkpoint.store import items_of, wrapped
from hrm_jax.config import CheckpointConfig
from hrm_jax.errors import CheckpointError, StorageError
from hrm_jax.types import TrainState

PATIENCE = 600.0  # seconds of a storage that does not answer, before the run ends
_PAUSES = (5.0, 10.0, 20.0, 40.0, 60.0)  # seconds before a save is tried again
_FULL = re.compile(r'No space left|ENOSPC|File too large|Disk quota|EDQUOT')
_MEMORY = re.compile(r'[Oo]ut of memory|OOM|MemoryError|failed to allocate|[Cc]annot allocate')
# What passes by itself: the network, a file server that restarts, a stale handle, and a folder that
# orbax clears away while the save that failed in it still writes.
_PASSING = re.compile(
    r'UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|[Tt]imed? ?out|[Cc]onnection|Input/output error'
    r'|Stale file handle|Transport endpoint|Temporary failure|[Ss]ervice [Uu]navailable'
    r'|Too Many Requests|Host is down|No route to host|Network is (unreachable|down)'
    r'|Remote I/O error|Resource temporarily unavailable|Interrupted system call'
    r'|Directory not empty|\b(429|500|502|503|504)\b'
)


def is_passing(error: BaseException | str) -> bool:
    """Whether what a storage answered may be otherwise in a while."""
    text = error if isinstance(error, str) else f'{type(error).__name__} {error}'
    return bool(_PASSING.search(text)) and not _FULL.search(text) and not _MEMORY.search(text)


def for_writing(folder: Path) -> Path:
    """Makes a folder and returns the path by which orbax writes in it (``plain``).

    Where the file system has no locks, tensorstore, which locks every file that it writes, uses
    lock files for the rest of this process.

    Raises:
      OSError: it cannot be made.
      CheckpointError: see ``plain``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(folder, Path) and not locks.exist_in(folder):
        # orbax makes its contexts from these and has no setting for it.
        for name in ('_BASE_TS_CONTEXT', '_DEFAULT_OCDBT_TS_CONTEXT'):
            getattr(tensorstore_utils, name)['file_io_locking'] = {'mode': 'lockfile'}
    return plain(folder)


class Saver:
    """Writes the checkpoints of one run in the background and deletes the superfluous ones.

    A save that fails because the storage does not answer is tried again with the state of a later
    step, while training continues; for as long as ``patience`` allows.

    Args:
      workdir: the run's folder, locked by this process.
      config: how many to keep.
      log: prints a message.
      patience: seconds without a save that succeeds, after the first that failed.
      clock: time in seconds.
    """

    def __init__(
        self,
        workdir: Path,
        config: CheckpointConfig,
        log: Callable[[str], None] = print,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._workdir, self._config, self._log = Path(workdir), config, log
        self._folder = absolute(layout.root(workdir)) / layout.FOLDER
        self._writing: int | None = None
        self._patience, self._clock = patience, clock
        self._failed_since: float | None = None
        self._again_at, self._attempts = 0.0, 0
        self._repair_metrics()
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        config = self._config
        options = ocp.CheckpointManagerOptions(
            preservation_policy=retention.policy(config, self._folder),
            best_fn=lambda metrics: layout.score(metrics, config),
            cleanup_tmp_directories=True,
            enable_async_checkpointing=True,
        )
        try:
            return ocp.CheckpointManager(for_writing(self._folder), options=options)
        except CheckpointError:
            raise
        except Exception as error:
            raise self._failure('cannot be opened', error) from error

    def _repair_metrics(self) -> None:
        """Makes the scores that orbax keeps checkpoints by those of the metadata again."""
        for step in layout.steps(self._workdir) if jax.process_index() == 0 else ():
            path = self._folder / str(step)
            try:
                scores = layout.read_meta(path)['metrics']
            except CheckpointError:
                continue  # named where the run resumes
            file = path / 'metrics' / 'metrics'
            try:
                known = json.loads(file.read_text()) if file.exists() else {}
            except (OSError, ValueError, RecursionError):
                known = None
            if known != scores:
                file.parent.mkdir(exist_ok=True)
                file.write_text(json.dumps(scores))

    def _failure(self, what: str, error: BaseException) -> CheckpointError:
        text = str(error).strip()
        good = [step for step in layout.steps(self._workdir) if step != self._writing]
        reason = (text or type(error).__name__).splitlines()[0][:300]
        if _MEMORY.search(text) or isinstance(error, MemoryError):
            reason = f'there is not enough memory ({reason})'
        elif _FULL.search(text):
            reason = 'the disk is full'
        intact = (
            f'Checkpoints {", ".join(map(str, good))} are intact; correct the cause and give the '
            f'same command again to resume from step {good[-1]}.'
            if good
            else 'There is no earlier checkpoint.'
        )
        kind = StorageError if is_passing(error) else CheckpointError
        return kind(f'{self._folder} {what}: {reason}. {intact}')

    def _handle(self, error: Exception) -> None:
        """Raises what a failed save means, or arranges that it is tried again."""
        failure = self._failure(f'could not take step {self._writing}', error)
        now = self._clock()
        since = now if self._failed_since is None else self._failed_since
        # Several processes would have to agree on the step of the next attempt.
        alone = jax.process_count() == 1
        if not isinstance(failure, StorageError) or not alone or now - since >= self._patience:
            raise failure from error
        pause = _PAUSES[min(self._attempts, len(_PAUSES) - 1)]
        self._failed_since, self._again_at = since, now + pause
        self._attempts += 1
        self._log(
            f'warning: {failure} Training continues; the next attempt is in {pause:.0f} s, the '
            f'run ends after {self._patience:.0f} s of this.'
        )
        self._writing = None
        with contextlib.suppress(Exception):  # the failed save once more
            self._manager.close()
        self._manager = self._open()

    @property
    def is_behind(self) -> bool:
        """Whether the last save failed and has not been made up for."""
        return self._failed_since is not None

    def save_is_due(self) -> bool:
        """Looks after the save in the background, without waiting.

        Returns:
          Whether one failed and should be tried again now.

        Raises:
          CheckpointError: it failed in a way that does not pass.
        """
        try:
            self._manager.check_for_errors()
        except Exception as error:
            self._handle(error)
        return self.is_behind and self._writing is None and self._clock() >= self._again_at

    def seconds_to_next_attempt(self) -> float:
        """Time until a failed save should be tried again."""
        return max(0.0, self._again_at - self._clock())

    def save(self, state: TrainState, data: Any, meta: Mapping[str, Any]) -> bool:
        """Copies the state, then writes in the background. False if the step is there already.

        Args:
          state: as after ``meta['step']`` steps; may be donated once this returns.
          data: position of the data iterator after the same number of batches, JSON-able.
          meta: 'step', 'config', 'dataset', 'metrics' (of an evaluation, or empty) and
            whatever else is needed to resume, JSON-able.

        Raises:
          CheckpointError: this or the previous save failed.
        """
        step = int(meta['step'])
        self.wait()
        if step in layout.steps(self._workdir):
            return False
        self._writing = step
        trees = {
            name: wrapped(tree) for name, tree in items_of(state).items() if jax.tree.leaves(tree)
        }
        data, meta = layout.as_json(data), layout.as_json(dict(meta) | {'has_digests': True})
        items = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
        items |= {
            'data': ocp.args.JsonSave(data),
            'meta': ocp.args.JsonSave(layout.sealed(meta)),
            digests.ITEM: digest_item.DigestSave(
                digests.start(trees), {'data': layout.of_json(data), 'meta': ''}
            ),
        }
        try:
            plain(self._folder)  # a link in a folder for temporary files may have been removed
            saved = self._manager.save(
                step,
                args=ocp.args.Composite(**items),
                metrics=dict(meta['metrics'] or {}),
                force=True,
            )
        except Exception as error:
            self._handle(error)
            return False
        return bool(saved)

    def wait(self) -> None:
        """Waits until the last save is on the disk, and checks that it can be opened.

        Raises:
          CheckpointError: it failed; earlier checkpoints are named.
        """
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
            if self._writing is not None and jax.process_index() == 0:
                self._check_opens(self._writing)  # by the process that gives the folder its name
        except Exception as error:
            self._handle(error)
            return
        if self._writing is not None:
            self._failed_since, self._attempts = None, 0
        self._writing = None

    def _check_opens(self, step: int) -> None:
        """Raises OSError unless every array of a checkpoint is listed in its files."""
        path = self._folder / str(step)
        if step not in layout.steps(self._workdir):
            raise OSError('not written')
        saved = digests.read(path)
        if saved is None:
            raise OSError(f'{path} was written without digests')
        names: dict[str, set[str]] = {}
        for name in saved['arrays']:
            item, _, rest = name.partition('.')
            names.setdefault(item, set()).add(rest)
        layout.check_complete(path, layout.read_meta(path), saved)
        for item, wanted in names.items():
            lost = wanted - digests.stored_names(plain(self._folder) / str(step) / item)
            if lost:
                raise OSError(
                    f'{path / item} was written without {", ".join(sorted(lost)[:3])} '
                    f'({len(lost)} of {len(wanted)} arrays)'
                )

    def advice_after_a_broken_step(self) -> str:
        """Names the newest healthy checkpoint, and how to branch from it."""
        self.wait()
        step = retention.healthy_step(self._workdir)
        if step is None:
            return (
                'There is no earlier checkpoint. Lower optimizer.lr, lengthen the warm-up or set '
                'optimizer.grad_clip_norm.'
            )
        return (
            f'The newest checkpoint whose loss had not risen is {self._folder / str(step)}. '
            f'Continue from it in the same workdir with a lower learning rate: '
            f'--checkpoint={step} --config.optimizer.lr=... (later ones move to '
            f'{layout.SET_ASIDE}/), or begin anew with a longer warm-up or '
            f'optimizer.grad_clip_norm.'
        )

    def __enter__(self) -> 'Saver':
        return self

    def __exit__(self, kind: type | None, *_rest: object) -> None:
        """Finishes the save in the background, also while an error passes through."""
        try:
            self._manager.close()
        except Exception as error:
            if kind is None:
                raise self._failure(f'could not take step {self._writing}', error) from error
