"""Runs whose checkpoints are on object storage: killed while they save, and refused for a while."""

from collections.abc import Sequence
import functools
import os
from pathlib import Path
import random
import signal
import subprocess
import sys
import threading
import time

from experiments.cluster_test import gcs_server
from experiments.cluster_test.table import Failed, Row
from hrm_jax.errors import RESTART

STEPS, EVERY, BATCH = 60, 5, 8
_PREFIX = 'run/checkpoints/'
_MARK = 'commit_success.txt'
_patience = 1.0


def be_patient(factor: float) -> None:
    """Multiplies all limits of time: a machine with other work to do is slower."""
    global _patience
    _patience = factor


def limit(seconds: float) -> int:
    """Returns seconds after which something counts as failed."""
    return round(seconds * _patience)


def command(
    data: Path, run: Path, directory: str = '', steps: int = STEPS, every: int = EVERY
) -> list[str]:
    """The command line of one process of a small run on 4x4 Sudokus."""
    return [
        sys.executable, '-m', 'hrm_jax.main', '--config=configs/quickstart.py', f'--workdir={run}',
        f'--config.data.path={data}', '--config.model.hidden_size=32',
        '--config.model.intermediate_size=64', '--config.model.puzzle_emb_ndim=32',
        # Most of a life is the tracing and compilation of its step.
        *(f'--config.model.{level}_{what}=1' for level in 'HL' for what in ('layers', 'cycles')),
        f'--config.train.global_batch_size={BATCH}', '--config.train.epochs=80',
        '--config.train.eval_interval=80', f'--config.train.max_steps={steps}',
        f'--config.checkpoint.every_steps={every}', f'--config.checkpoint.directory={directory}',
        '--config.eval.global_batch_size=16', '--config.logging.tensorboard=False',
        '--cpu-devices=1',
    ]  # fmt: skip


def start(words: Sequence[str], log: Path, environment: dict[str, str]) -> subprocess.Popen:
    """Starts a command; its output is added to ``log``."""
    with log.open('ab') as file:
        return subprocess.Popen(
            words, stdout=file, stderr=file, env=os.environ | {'JAX_PLATFORMS': 'cpu'} | environment
        )


def metrics_of(run: Path) -> bytes:
    return (run / 'metrics.jsonl').read_bytes()


def make_data(folder: Path) -> Path:
    """Builds a small set of generated 4x4 Sudokus."""
    from data_builders import sudoku

    sudoku.build(
        str(folder / 'data'), source=sudoku.GENERATED, size=4, seed=0, train_count=400,
        test_count=64, show=False,
    )  # fmt: skip
    return folder / 'data'


@functools.cache
def undisturbed(data: Path, folder: Path) -> bytes:
    """Returns metrics.jsonl of the run that nobody disturbs, on the disk; it is run once."""
    run = folder / 'undisturbed'
    log = folder / 'undisturbed.txt'
    if start(command(data, run), log, {}).wait(limit(600)):
        raise Failed(f'the undisturbed run failed; see {log}')
    return metrics_of(run)


def compare(data: Path, folder: Path, run: Path) -> None:
    """Raises Failed where a run did not record what the undisturbed one did."""
    if metrics_of(run) != undisturbed(data, folder):
        raise Failed('metrics.jsonl is not that of the undisturbed run')


def saves_to_let_pass(left: int, kills: int, rng: random.Random) -> int:
    """How many saves of a life are left alone before the kill: 0 or 1.

    So that lives resume from something, and a run has room for all of its kills.

    Args:
      left: saves until its end.
      kills: that are still to come.
      rng: decides.
    """
    return int(rng.random() < (left - 1) / (2 * kills))


def _objects(store: gcs_server.Store) -> dict[str, set[str]]:
    """The objects of every checkpoint folder."""
    found: dict[str, set[str]] = {}
    for name in store.names(_PREFIX):
        step, _, rest = name.removeprefix(_PREFIX).partition('/')
        found.setdefault(step, set()).add(rest)
    return found


def whole_checkpoints(store: gcs_server.Store) -> set[int]:
    """Steps of the checkpoints that were written to their end."""
    found = _objects(store)
    return {int(step) for step, names in found.items() if step.isdecimal() and _MARK in names}


def in_a_save(store: gcs_server.Store) -> bool:
    """Whether a checkpoint is being written: objects, and no mark."""
    return any(_MARK not in names and len(names) > 2 for names in _objects(store).values())


def killed_in_saves(data: Path, folder: Path, kills: int, rng: random.Random) -> Row:
    """Kills a run during its saves; every life must resume, and the end be that of no kills."""
    began, run, hits, lives, lost = time.monotonic(), folder / 'gcs', 0, 0, 0
    log, every = folder / 'gcs.txt', 2
    with gcs_server.serving() as (store, environment):
        store.delay = 0.01  # a save takes a second or two
        words = command(data, run, f'gs://{gcs_server.BUCKET}/run', every=every)
        while True:
            lives += 1
            before = whole_checkpoints(store)
            process, since = start(words, log, environment), None
            left = (STEPS - max(before, default=0)) // every
            target = saves_to_let_pass(left, kills - hits, rng) if hits < kills else -1
            wanted = rng.uniform(0, 1.5)
            while process.poll() is None:
                done = whole_checkpoints(store)
                if target >= 0 and len(done - before) >= target and in_a_save(store):
                    since = since or time.monotonic()
                    if time.monotonic() - since >= wanted and in_a_save(store):
                        process.kill()
                        hits += 1
                        break
                time.sleep(0.005)
            code = process.wait(limit(120))
            if code == 0:
                break
            if code != -signal.SIGKILL:
                raise Failed(f'a life ended with {code}; see {log}')
            lost += in_a_save(store)
        compare(data, folder, run)
    if hits < kills:
        raise Failed(f'the run ended after {hits} of {kills} kills')
    text = f'{hits} kills, {lost} of them left a save unfinished, {lives} lives, same bytes'
    return Row('gs://, killed during saves', text, began)


def refused_for_a_while(data: Path, folder: Path, status: int, seconds: float) -> Row:
    """The storage answers with an error for a while, in the middle of a run.

    503 passes by itself: training continues, or the run ends with the code for a restart. 403 is
    for a person: code 1, the checkpoints are intact, and the same command resumes once it works.
    """
    began, run = time.monotonic(), folder / f'gcs_{status}'
    log = folder / f'gcs_{status}.txt'
    with gcs_server.serving() as (store, environment):
        words = command(data, run, f'gs://{gcs_server.BUCKET}/run')
        codes: list[int] = []

        def fails() -> None:
            while not any(name.endswith(_MARK) for name in store.names(_PREFIX)):
                time.sleep(0.02)
            store.status = status
            began = time.monotonic()
            # 503 for so long, or until something noticed it; 403 until the run has ended.
            while status == 403 and store.status:
                time.sleep(0.05)
            while time.monotonic() - began < seconds or not store.refused:
                time.sleep(0.05)
            store.status = 0

        thread = threading.Thread(target=fails, daemon=True)
        thread.start()
        allowed = {503: (0, RESTART), 403: (1,)}[status]
        while not codes or codes[-1]:
            codes.append(start(words, log, environment).wait(limit(600)))
            if codes[-1] not in (0, *allowed) or len(codes) > 20:
                raise Failed(f'a life ended with {codes[-1]}; see {log}')
            store.status = 0 if status == 403 else store.status
        thread.join(limit(60))
        compare(data, folder, run)
        if status == 403 and codes[0] != 1:
            raise Failed(f'nothing was refused; exit codes {codes}')
    text = f'{store.refused} requests refused, exit codes {codes}, same bytes'
    return Row(f'gs://, {status} for {seconds:.0f} s', text, began)


def refused_scheme(data: Path, folder: Path) -> Row:
    """Storage that the library cannot write is refused at the start, and nothing is left."""
    began, log = time.monotonic(), folder / 's3.txt'
    run = folder / 's3_run'
    with log.open('wb') as file:
        code = subprocess.Popen(
            command(data.absolute(), run, 's3://bucket/run'), stdout=file, stderr=file,
            env=os.environ | {'JAX_PLATFORMS': 'cpu'},
        ).wait(limit(600))  # fmt: skip
    text = log.read_text(errors='replace')
    if code != 1 or 'gs://BUCKET' not in text or Path('s3:').exists() or run.exists():
        raise Failed(f'it ended with {code}; see {log}')
    return Row('s3://', 'refused at the start with code 1; no folder is left', began)


def a_new_machine(data: Path, folder: Path) -> Row:
    """A run is stopped, and resumed with an empty workdir from gs:// alone."""
    began, log = time.monotonic(), folder / 'gcs_new.txt'
    with gcs_server.serving() as (store, environment):
        directory = f'gs://{gcs_server.BUCKET}/run'
        one = start(command(data, folder / 'gcs_old', directory), log, environment)
        while not store.names(_PREFIX) and one.poll() is None:
            time.sleep(0.05)
        one.send_signal(signal.SIGTERM)
        code = one.wait(limit(300))
        if code != 128 + signal.SIGTERM:
            raise Failed(f'the stopped life ended with {code}; see {log}')
        run = folder / 'gcs_new'
        if start(command(data, run, directory), log, environment).wait(limit(600)):
            raise Failed(f'the new machine failed; see {log}')
        compare(data, folder, run)
    return Row('gs://, a new machine with an empty workdir', 'same bytes', began)
