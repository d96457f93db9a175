"""The runs of a comparison: each side and seed in a process of one thread, kept as a small file."""

from collections.abc import Iterator, Sequence
import concurrent.futures
import dataclasses
import json
import os
from pathlib import Path
import shutil
import subprocess
import sys
import threading
from typing import Any

from experiments import originals
from experiments.outcome.cases import Case
from hrm_jax import files
from hrm_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
SIDES = ('original', 'ours')
_ONE_THREAD = {
    **dict.fromkeys(('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS'), '1'),
    'CUDA_VISIBLE_DEVICES': '',
    'JAX_PLATFORMS': 'cpu',
}
_XLA_ONE_THREAD = '--xla_cpu_multi_thread_eigen=false'


class OutcomeError(UserError):
    """A side could not be trained, or its kept curve cannot be used."""


@dataclasses.dataclass(frozen=True)
class Result:
    """One finished run.

    Attributes:
      case, side, seed: which.
      steps: train steps at each evaluation.
      metrics: name -> value at each evaluation.
      facts: number of parameters, versions, stand-ins.
    """

    case: str
    side: str
    seed: int
    steps: list[int]
    metrics: dict[str, list[float]]
    facts: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Run:
    """One training that is to be done.

    Attributes:
      case, side, seed: which.
      folder: of the comparison.
      checkout: of the original.
      python: interpreter with torch, for the original.
    """

    case: Case
    side: str
    seed: int
    folder: Path
    checkout: str
    python: str

    @property
    def name(self) -> str:
        return f'{self.case.name}-{self.side}-seed{self.seed}'

    @property
    def file(self) -> Path:
        return self.folder / 'curves' / f'{self.name}.json'

    def finished(self) -> Result | None:
        """The result, where the run is done.

        Raises:
          OutcomeError: the file is of other settings.
        """
        if not self.file.exists():
            return None
        values = files.read_json(self.file, OutcomeError, dict)
        same = values.pop('settings') == originals.fingerprint(self.case.name, self._config())
        OutcomeError.require(
            same, f'{self.file} must be a run of the same settings; it has others. Use another '
            f'--folder, or remove the file.',
        )  # fmt: skip
        return Result(self.case.name, self.side, self.seed, **values)

    def train(self, core: int | None, running: set[subprocess.Popen]) -> Result:
        """Trains, and keeps the curve; the same call after a stop begins where it can.

        Args:
          core: to stay on; None: any.
          running: holds the process while it runs, so that others can end it.

        Raises:
          OutcomeError: the process failed; with its last words and the place of its log.
        """
        found = self.finished()
        if found:
            return found
        work = self.folder / 'work' / self.name
        work.mkdir(parents=True, exist_ok=True)
        result, log = work / 'result.json', work / 'log.txt'
        files.write_text(work / 'request.json', json.dumps(self._request(work)))
        command = [*self._command(), str(work / 'request.json'), str(result)]
        environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'} | _ONE_THREAD
        environment['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {_XLA_ONE_THREAD}'.strip()
        with open(log, 'a') as output:
            try:
                process = subprocess.Popen(
                    command, stdout=output, stderr=output, env=environment, cwd=ROOT
                )
            except OSError as error:
                raise OutcomeError(f'{self.name}: {command[0]} does not start: {error}') from None
            running.add(process)
            with process:
                if core is not None:
                    os.sched_setaffinity(process.pid, {core})
                code = process.wait()
            running.discard(process)
        if code or not result.exists():
            raise OutcomeError(f'{self.name} could not run ({_last_words(log, code)}); log: {log}')
        values = json.loads(result.read_text())
        own = {'settings': originals.fingerprint(self.case.name, self._config())}
        names = self.case.metrics
        missing = [name for name in names if name not in values['metrics']]
        OutcomeError.require(
            bool(values['steps']) and not missing,
            f'{self.name} must give {", ".join(names)} at every evaluation; it gave '
            f'{", ".join(values["metrics"]) or "none"}; log: {log}',
        )
        values['metrics'] = {name: values['metrics'][name] for name in names}
        files.write_text(self.file, json.dumps(own | values))
        shutil.rmtree(work, ignore_errors=True)
        return Result(self.case.name, self.side, self.seed, **values)

    def _config(self):
        return self.case.config(self.seed, self.folder / 'data' / self.case.name)

    def _request(self, work: Path) -> dict[str, Any]:
        config = self._config()
        config = dataclasses.replace(
            config, data=dataclasses.replace(config.data, path=os.path.abspath(config.data.path))
        )
        theirs = originals.of_original(self.case.name, config)  # refuses what it does not have
        if self.side == 'ours':
            return {'settings': config.to_dict(), 'workdir': os.path.abspath(work / 'run')}
        return {
            'original': self.case.name,
            'checkout': os.path.abspath(self.checkout),
            'settings': theirs,
        }

    def _command(self) -> list[str]:
        if self.side == 'ours':
            return [sys.executable, '-m', 'experiments.outcome.ours']
        return [self.python, str(Path(__file__).with_name('theirs.py'))]


def _last_words(log: Path, code: int) -> str:
    lines = [line.strip() for line in log.read_text(errors='replace').splitlines()]
    return next((line for line in reversed(lines) if line), f'exit code {code}')


def in_turns(cases: Sequence[Case], seeds: int, **common: Any) -> list[Run]:
    """All runs in an order in which sides, cases and seeds take turns.

    Args:
      cases: to run.
      seeds: 0 to this.
      common: fields of every ``Run``; ``checkouts`` by case.
    """
    checkouts = common.pop('checkouts')
    return [
        Run(case, side, seed, checkout=checkouts[case.name], **common)
        for seed in range(seeds)
        for case in cases
        for side in SIDES
    ]


def run_all(runs: Sequence[Run], jobs: int) -> Iterator[tuple[Run, Result | OutcomeError]]:
    """Trains what is not trained yet; yields every run with its result or its failure.

    Args:
      runs: all, in order. After a failure the other runs of that case and side are left out.
      jobs: at a time, each on a core of its own.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
    failed: dict[tuple[str, str], OutcomeError] = {}
    running: set[subprocess.Popen] = set()
    free, lock = list(range(jobs)), threading.Lock()

    def do(run: Run) -> Result | OutcomeError:
        key = (run.case.name, run.side)
        if key in failed:
            return failed[key]
        with lock:
            slot = free.pop(0)
        try:
            return run.train(cores[slot % len(cores)] if cores else None, running)
        except OutcomeError as error:
            failed[key] = error
            return error
        finally:
            with lock:
                free.append(slot)

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(do, run): run for run in runs}
        try:
            for future in concurrent.futures.as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                process.terminate()  # ours saves where it is
            raise
