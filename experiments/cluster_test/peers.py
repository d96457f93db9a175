"""Two processes of one run, one of them killed during a save."""

from pathlib import Path
import random
import shutil
import signal
import subprocess
import time

from experiments.cluster_test import stores
from experiments.cluster_test.table import Failed, Row
from experiments.fault_drill import lives
from hrm_jax.checkpoint import layout
from hrm_jax.errors import RESTART

# The survivor of a killed process: a restart can bring it back, whatever noticed it first.
ALLOWED = (0, -signal.SIGKILL, RESTART, -signal.SIGABRT)


def undisturbed(data: Path, folder: Path, name: str, steps: int, every: int) -> bytes:
    """Returns metrics.jsonl of two processes that nobody disturbs."""
    run = folder / name
    # Nobody dies here: a machine that stands still for minutes must not look like it. JAX's own
    # limit of 30 s for the first exchange is not ours to set: then anew.
    calm = [f'--{name}-timeout={stores.limit(300)}' for name in ('heartbeat', 'start')]
    words = [*stores.command(data, run, steps=steps, every=every), *calm]
    for attempt in range(5):
        shutil.rmtree(run, ignore_errors=True)
        logs = folder / f'logs_{name}_{attempt}'
        ended = lives.end_of(lives.start(words, 2, 2, logs), stores.limit(600))
        if not any(ended):
            return stores.metrics_of(run)
        if any(code not in ALLOWED for code in ended):
            break
    raise Failed(f'the undisturbed pair ended with {ended}; see {logs}')


def _saved_unfinished(run: Path) -> list[str]:
    return sorted(path.name for path in (run / layout.FOLDER).glob('*.orbax-checkpoint-tmp*'))


def _in_a_save(run: Path, pair: list[subprocess.Popen], passing: int) -> bool:
    """Waits until a save has begun after ``passing`` others; False if a process ended before."""
    before, is_old = set(layout.steps(run)), True
    while all(process.poll() is None for process in pair):
        saves = bool(_saved_unfinished(run))
        is_old = is_old and saves  # what the life before left, until this one clears it away
        if saves and not is_old and len(set(layout.steps(run)) - before) >= passing:
            return True
        time.sleep(0.002)
    return False


def killed_in_saves(data: Path, folder: Path, kills: int, rng: random.Random) -> Row:
    """Kills one of two processes during saves; the end must be that of an undisturbed pair."""
    began, run, every = time.monotonic(), folder / 'pair', 2
    whole = undisturbed(data, folder, 'pair_undisturbed', stores.STEPS, every)
    # A false alarm on a machine that stands still costs one more life, and a long heartbeat the
    # same time after every kill.
    extra = ['--heartbeat-timeout=10', f'--start-timeout={stores.limit(60)}']
    words = [*stores.command(data, run, every=every), *extra]
    hits, number, lost, codes = 0, 0, 0, set()
    while True:
        logs = folder / f'logs_pair_{number}'
        number += 1
        left = (stores.STEPS - max(layout.steps(run), default=0)) // every
        pair, hit = lives.start(words, 2, 2, logs), -1
        if hits < kills:
            passing = stores.saves_to_let_pass(left, kills - hits, rng)
            if _in_a_save(run, pair, passing):
                time.sleep(rng.uniform(0, 0.1))
                hit = rng.randrange(2)
                pair[hit].kill()
                hits += 1
        ended = lives.end_of(pair, stores.limit(300))
        codes |= {code for k, code in enumerate(ended) if k != hit}
        if any(code not in ALLOWED for code in ended):
            raise Failed(f'a life ended with {ended}; see {logs}')
        if hit < 0 and not any(ended):
            break
        lost += bool(_saved_unfinished(run))
    if stores.metrics_of(run) != whole:
        raise Failed('metrics.jsonl is not that of the undisturbed pair')
    if hits < kills:
        raise Failed(f'the run ended after {hits} of {kills} kills')
    text = (
        f'{hits} kills, {lost} of them left a save unfinished, {number} lives, same bytes, codes '
        f'of the survivors {sorted(codes)}'
    )
    return Row('2 processes, one killed during saves', text, began)
