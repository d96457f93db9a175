"""A sweep: one experiment with several settings and seeds, each run in a process of its own.

Layout of its folder::

    sweep.json        what is the same in all runs: configuration and further flags
    RUN/              a run's usual folder, named by its settings: optimizer.lr=1e-4,seed=0
    RUN/.sweep.lock   held while a process of the sweep trains this run
    RUN/sweep.json    settings and seed of the run, and how it ended

Any number of processes may be given the same sweep: each takes the next run that nobody holds.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import itertools
import json
from pathlib import Path
import re
import signal
import subprocess
import sys
import time

from hrm_jax import files, locks
from hrm_jax.errors import UsageError, WorkdirError
from hrm_jax.run.progress import duration

RECORD = 'sweep.json'
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WRONG_COMMAND_LINE = 2


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
      settings: key of the configuration -> value as text, those that are swept.
      seed: of the run.
    """

    settings: Mapping[str, str]
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        parts = [f'{key}={value}' for key, value in self.settings.items()] + [f'seed={self.seed}']
        return re.sub(r'[^\w.,=+-]', '_', ','.join(parts))

    @property
    def flags(self) -> list[str]:
        swept = [f'--config.{key}={value}' for key, value in self.settings.items()]
        return [*swept, f'--config.seed={self.seed}']


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The runs of a sweep.

    Attributes:
      config: the experiment, as ``--config`` takes it.
      flags: further flags of every run.
      runs: in order; the seeds of one setting follow each other.
    """

    config: str
    flags: tuple[str, ...]
    runs: tuple[Run, ...]


def read_settings(texts: Sequence[str]) -> dict[str, list[str]]:
    """Parses ``KEY=VALUE,VALUE``; values that have commas themselves are separated by ``;``.

    Raises:
      UsageError: no key, no value, or a key or value that occurs twice.
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        key, equals, rest = text.partition('=')
        key = key.strip().removeprefix('--').removeprefix('config.')
        values = [value.strip() for value in rest.split(';' if ';' in rest else ',')]
        UsageError.require(
            bool(key and equals and all(values)),
            f'--set must be KEY=VALUE,VALUE, such as optimizer.lr=1e-4,3e-4; got {text!r}.',
        )
        UsageError.require(
            key not in found and len(set(values)) == len(values),
            f'--set must name every key and every value of it once; {text!r} repeats one.',
        )
        UsageError.require(key != 'seed', 'the seeds of a sweep are set with --seeds.')
        found[key] = values
    return found


def runs_of(settings: Mapping[str, Sequence[str]], seeds: Sequence[int]) -> tuple[Run, ...]:
    """Returns a run for every combination of values and every seed.

    Raises:
      UsageError: two of them would have one folder.
    """
    combinations = itertools.product(*settings.values())
    runs = tuple(
        Run(dict(zip(settings, values, strict=True)), seed)
        for values in combinations
        for seed in seeds
    )
    names = [run.name for run in runs]
    twice = next((name for name in names if names.count(name) > 1), None)
    UsageError.require(
        twice is None, f'every run needs a folder of its own; two would be called {twice}.'
    )
    return runs


def execute(
    sweep: Sweep, folder: Path, log: Callable[[str], None], command: Sequence[str] = ()
) -> int:
    """Trains every run that is not done; what others train is waited for.

    Args:
      sweep: the runs.
      folder: of the sweep; made when missing.
      log: prints a message.
      command: that trains; (): ``python -m hrm_jax.main``.

    Returns:
      0: all are done. Otherwise the exit code of a run: of the last one that failed, or of the
      one that a signal or a wrong command line ended, after which no further run is begun.

    Raises:
      WorkdirError: the folder has a sweep with another configuration or other flags.
    """
    _record_sweep(sweep, folder)
    command = command or (sys.executable, '-m', 'hrm_jax.main')
    began, trained, code = time.monotonic(), 0, 0
    failed: set[str] = set()
    told: set[str] = set()
    waiting = list(sweep.runs)
    while waiting:
        held: list[Run] = []
        for run in waiting:
            place, number = folder / run.name, sweep.runs.index(run) + 1
            place.mkdir(exist_ok=True)
            with contextlib.ExitStack() as owned:
                try:
                    owned.enter_context(locks.exclusive(place / '.sweep.lock', 'file', log=log))
                except locks.Held as error:
                    held.append(run)
                    if run.name not in told:
                        log(f'[{number}/{len(sweep.runs)}] {run.name}: in progress ({error.owner})')
                    told.add(run.name)
                    continue
                if is_done(place):
                    log(f'[{number}/{len(sweep.runs)}] {run.name}: done')
                    continue
                log(f'[{number}/{len(sweep.runs)}] {run.name}: starts')
                flags = [f'--config={sweep.config}', f'--workdir={place}', *run.flags, *sweep.flags]
                flags += _one_device(flags)
                ended = _train([*command, *flags])
                _record_run(place, run, ended)
                trained += 1
            if ended:
                log(f'{run.name} ended with exit code {ended}')
                failed.add(run.name)
                code = ended
                # A signal, or what every other run would stumble over too.
                if ended < 0 or ended > 128 or ended == _WRONG_COMMAND_LINE:
                    return 128 - ended if ended < 0 else ended
            else:
                log(_remaining(sweep, folder, (time.monotonic() - began) / trained))
        waiting = held
        if waiting:
            time.sleep(2.0)
    if failed:
        log(f'not done: {", ".join(sorted(failed))}. The same command tries again.')
    return code


def _one_device(flags: Sequence[str]) -> list[str]:
    """Keeps runs to one CPU device unless a flag states another number.

    Runs of a sweep are compared, and several may be trained on one machine at a time: none of
    them should depend on the cores that its machine has.
    """
    names = [flag.partition('=')[0].lstrip('-').replace('-', '_') for flag in flags]
    stated = {'cpu_devices', 'config.mesh.cpu_devices'} & set(names)
    return [] if stated else ['--cpu-devices=1']


def is_done(place: Path) -> bool:
    """Whether a run of a sweep was trained to its end."""
    if not (place / RECORD).is_file():
        return False
    return files.read_json(place / RECORD, WorkdirError, dict).get('exit_code') == 0


def _remaining(sweep: Sweep, folder: Path, seconds: float) -> str:
    left = sum(not is_done(folder / run.name) for run in sweep.runs)
    after = f'; {left} left, about {duration(seconds * left)}' if left else ''
    return f'{len(sweep.runs) - left} of {len(sweep.runs)} runs are done{after}'


def _record_run(place: Path, run: Run, code: int) -> None:
    facts = {'settings': dict(run.settings), 'seed': run.seed, 'exit_code': code}
    files.write_text(place / RECORD, json.dumps(facts, indent=2) + '\n')


def _record_sweep(sweep: Sweep, folder: Path) -> None:
    """Settings and seeds may grow from call to call; what all runs share may not change."""
    folder.mkdir(parents=True, exist_ok=True)
    same = {'config': sweep.config, 'flags': list(sweep.flags)}
    with locks.exclusive(folder / '.sweep.lock', 'file', wait=True):
        path = folder / RECORD
        before = files.read_json(path, WorkdirError, dict) if path.is_file() else same
        for name, value in same.items():
            WorkdirError.require(
                before.get(name) == value,
                f'{folder} has a sweep with {name} {before.get(name)!r}; now it is {value!r}. '
                f'Give that again, or another --workdir.',
            )
        files.write_text(path, json.dumps(same, indent=2) + '\n')


def _train(command: Sequence[str]) -> int:
    """Runs a command to its end and returns its exit code; it gets our signals."""
    with _forwarding() as children:
        child = subprocess.Popen(command)
        children.append(child)
        return child.wait()


@contextlib.contextmanager
def _forwarding() -> Iterator[list[subprocess.Popen]]:
    """Hands signals to the run, which saves and ends; the sweep ends with its exit code.

    A terminal sends Ctrl-C to both, and a second one ends a run at once, so it is not sent twice.
    """
    children: list[subprocess.Popen] = []

    def forward(number: int, _frame: object) -> None:
        if number != signal.SIGINT or not sys.stdin or not sys.stdin.isatty():
            for child in children:
                child.send_signal(number)

    before = {number: signal.signal(number, forward) for number in _SIGNALS}
    try:
        yield children
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
