"""Copies of a run's small files beside its checkpoints, so that a new machine has the whole run.

With ``checkpoint.directory`` the checkpoints are stored elsewhere; config.json, metrics.jsonl,
timing.jsonl and the TensorBoard files are copied there at each save, in the background, and fetched
by a workdir that has none of its own. A copy that fails never ends a run: the next save brings it.
"""

from collections.abc import Callable, Iterator
import contextlib
from pathlib import Path
import threading

from hrm_jax import files
from hrm_jax.checkpoint import places
from hrm_jax.run import branches
from hrm_jax.run import workdir as workdir_lib

_RECORDS = 'metrics.jsonl'
_FILES = (
    workdir_lib.CONFIG, _RECORDS, 'timing.jsonl', f'set_aside/{_RECORDS}', branches.FILE,
)  # fmt: skip
_FOLDER = 'tensorboard'
CLOSING = 60.0  # seconds that the end of a run waits for the last copy


class Copies:
    """Copies files of a workdir to the place of its checkpoints.

    Args:
      workdir: the run's folder.
      place: where its checkpoints are stored; the workdir itself: nothing is copied.
      log: prints a message.
    """

    def __init__(self, workdir: Path, place: Path, log: Callable[[str], None] = print):
        self._workdir, self._place, self._log = workdir, place, log
        self._wanted = str(place) != str(workdir)
        self._copied: dict[str, tuple[int, int]] = {}  # name -> size and time of change
        self._thread: threading.Thread | None = None
        self._warned = False

    def fetch(self) -> None:
        """Brings the files of a run to a workdir without records."""
        if not self._wanted or (self._workdir / _RECORDS).exists():
            return
        if not (self._place / _RECORDS).exists():
            return
        names = [name for name in _FILES if (self._place / name).exists()]
        folder = self._place / _FOLDER
        if folder.is_dir():
            names += [str(one.relative_to(self._place)) for one in places.files_below(folder)]
        # The records last: without them an interrupted copy begins again.
        for name in sorted(names, key=lambda name: name == _RECORDS):
            target = self._workdir / name
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                with files.replacing(target) as beside:
                    beside.write_bytes((self._place / name).read_bytes())
        self._log(f'fetched the records of the run from {self._place}')

    def start(self) -> None:
        """Copies what has changed in the background, unless the last copy still runs."""
        if not self._wanted or (self._thread is not None and self._thread.is_alive()):
            return
        self._thread = threading.Thread(target=self._copy, daemon=True, name='copies')
        self._thread.start()

    def close(self) -> None:
        """Copies what has changed since, and waits for it, though not for ever."""
        if self._thread is not None:
            self._thread.join(CLOSING)
            self.start()
            self._thread.join(CLOSING)

    def _names(self) -> Iterator[str]:
        yield from (name for name in _FILES if (self._workdir / name).exists())
        folder = self._workdir / _FOLDER
        if folder.is_dir():
            yield from (str(one.relative_to(self._workdir)) for one in places.files_below(folder))

    def _copy(self) -> None:
        try:
            for name in self._names():
                source, target = self._workdir / name, self._place / name
                facts = source.stat()
                state = facts.st_size, facts.st_mtime_ns
                if self._copied.get(name) == state:
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                if places.is_remote(target):
                    target.write_bytes(source.read_bytes())  # only whole objects are ever seen
                else:
                    with files.replacing(target) as beside:
                        beside.write_bytes(source.read_bytes())
                self._copied[name] = state
        except Exception as error:  # of any storage library
            if not self._warned:
                self._warned = True
                first = (str(error).splitlines() or [type(error).__name__])[0][:200]
                with contextlib.suppress(Exception):
                    self._log(f'warning: {self._place} lacks the newest records: {first}')
        else:
            self._warned = False
